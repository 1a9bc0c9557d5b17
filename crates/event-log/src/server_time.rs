//! Times as the server counts them. Read by [`crate::verify`] and [`crate::seal`], for which a row that
//! somebody changed must not be unreadable.

use chrono::{DateTime, Utc};
use run_events::Micros;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};

/// A timestamptz as the server counts it: microseconds since 2000-01-01, `infinity` included, which
/// the driver's own type cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerTime(i64);

/// 2000-01-01T00:00:00Z.
const SERVER_EPOCH: i64 = 946_684_800_000_000;

impl From<ServerTime> for Micros {
    fn from(time: ServerTime) -> Self {
        Self(time.0.wrapping_add(SERVER_EPOCH))
    }
}

impl From<DateTime<Utc>> for ServerTime {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros() - SERVER_EPOCH)
    }
}

impl Type<Postgres> for ServerTime {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl Decode<'_, Postgres> for ServerTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        // Results of prepared statements are binary.
        Ok(Self(i64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}
