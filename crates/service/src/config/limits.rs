//! Section `limits`: bounds on what is accepted.

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::quantity::byte_size;

/// Bounds on what is accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of one record (key, value and headers) at most; a larger one becomes a dead letter
    /// (`too_large`).
    /// 1 byte to 64 MiB, default 1 MiB.
    #[serde(with = "byte_size")]
    pub max_record_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            max_record_bytes: 1 << 20,
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), Problem> {
        Problem::unless_within(
            "limits.max_record_bytes",
            self.max_record_bytes,
            1..=64 << 20,
            byte_size::text,
        )
    }
}
