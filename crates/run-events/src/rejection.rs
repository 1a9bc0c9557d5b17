//! Why a record cannot be appended: the dead-letter reasons and the detail that goes with them.

use std::fmt;

/// The reason of a dead letter. The text forms are part of the public surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value is not JSON, or repeats a key of an object.
    InvalidJson,
    /// The value is not readable as Avro.
    InvalidAvro,
    /// The value names a schema that is not known here.
    UnknownSchema,
    /// A field is missing or breaks a rule; the detail names it.
    InvalidEvent,
    /// The topic may not speak for the event's tenant.
    TenantNotAllowed,
    /// The key is in the log with other content.
    IdempotencyConflict,
    /// The event id is in the log under another tenant, run or key.
    EventIdReused,
    /// The record is larger than the configured limit.
    TooLarge,
    /// The event is well-formed, but the database cannot hold it.
    Unstorable,
    /// The record has a null value.
    Tombstone,
    /// Strict mode: the idempotency key is not the derived one.
    KeyMismatch,
    /// The `content-type` header names a format that is not read here.
    UnknownContentType,
    /// The run was retired from the log.
    RunRetired,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::InvalidJson,
        Self::InvalidAvro,
        Self::UnknownSchema,
        Self::InvalidEvent,
        Self::TenantNotAllowed,
        Self::IdempotencyConflict,
        Self::EventIdReused,
        Self::TooLarge,
        Self::Unstorable,
        Self::Tombstone,
        Self::KeyMismatch,
        Self::UnknownContentType,
        Self::RunRetired,
    ];

    /// The reason with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The name as stored in `event_log.dead_letters.reason` and used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidAvro => "invalid_avro",
            Self::UnknownSchema => "unknown_schema",
            Self::InvalidEvent => "invalid_event",
            Self::TenantNotAllowed => "tenant_not_allowed",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::EventIdReused => "event_id_reused",
            Self::TooLarge => "too_large",
            Self::Unstorable => "unstorable",
            Self::Tombstone => "tombstone",
            Self::KeyMismatch => "key_mismatch",
            Self::UnknownContentType => "unknown_content_type",
            Self::RunRetired => "run_retired",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refused record: the reason, what exactly is wrong, and whose it is as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// What is wrong, naming the field, at most [`Rejection::MAX_DETAIL_BYTES`] bytes, without
    /// control characters.
    pub detail: String,
    /// The tenant, where the record names a valid one.
    pub tenant_id: Option<String>,
    /// The run, where the record names a valid one.
    pub run_id: Option<String>,
}

impl Rejection {
    /// The bound of [`Rejection::detail`]: a dead letter must never fail itself.
    pub const MAX_DETAIL_BYTES: usize = 1024;

    /// A rejection of a record whose tenant and run are not known. The detail is made safe to
    /// store: control characters become spaces, and it is cut to its bound.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        Self {
            reason,
            detail: storable_detail(detail.as_ref()),
            tenant_id: None,
            run_id: None,
        }
    }

    /// The same rejection with its owner; both must have passed validation.
    #[must_use]
    pub fn owned_by(mut self, tenant_id: Option<String>, run_id: Option<String>) -> Self {
        self.tenant_id = tenant_id;
        self.run_id = run_id;
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

fn storable_detail(text: &str) -> String {
    let mut detail = String::with_capacity(text.len().min(Rejection::MAX_DETAIL_BYTES));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if detail.len() + c.len_utf8() > Rejection::MAX_DETAIL_BYTES {
            break;
        }
        detail.push(c);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_cut_on_a_character_and_cleaned() {
        let detail =
            Rejection::new(Reason::InvalidEvent, format!("a\0b{}", "é".repeat(2_000))).detail;
        assert!(detail.len() <= Rejection::MAX_DETAIL_BYTES);
        assert!(detail.starts_with("a b"));
    }
}
