//! What an error means for the process: decided here, from the log's own classes of database
//! errors. Called by the coordinator and the workers.

use event_log::fault::sqlstate;
use event_log::{FaultClass, classify};

use crate::projection::ProjectionError;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The environment's: try again, with backoff, for ever.
    Retry,
    /// A bug, or a log or read model that contradicts itself. Where one event alone is the reason, its
    /// run is parked; else this stream waits and tries again, with backoff. The others go on.
    Blocked,
    /// Nothing of this process can work: a missing table, permission, database or login.
    Stop,
}

pub(super) fn of_database(error: &sqlx::Error) -> Verdict {
    match classify(error) {
        // Either way the worker's next batch is smaller.
        FaultClass::Environment | FaultClass::Cancelled => Verdict::Retry,
        // A violated constraint is fatal to the log's writer, whose rows are its own. Here it is
        // one projection's trouble with one stream.
        FaultClass::Fatal if is_misconfiguration(error) => Verdict::Stop,
        FaultClass::Fatal | FaultClass::Record | FaultClass::Unique | FaultClass::Unlisted => {
            Verdict::Blocked
        }
    }
}

pub(super) fn of_projection(error: &ProjectionError) -> Verdict {
    match error {
        ProjectionError::Database { cause, .. } => of_database(cause),
        ProjectionError::Met => Verdict::Retry,
        ProjectionError::MissingEvent { .. }
        | ProjectionError::Corrupt { .. }
        | ProjectionError::Unknown { .. }
        | ProjectionError::Panicked => Verdict::Blocked,
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors say their cause themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn is_misconfiguration(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| !code.starts_with("23"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_tried_again_and_a_row_that_cannot_be_read_blocks_its_stream() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(of_database(&lost), Verdict::Retry);
        let unreadable = sqlx::Error::ColumnNotFound("status".into());
        assert_eq!(of_database(&unreadable), Verdict::Blocked);
    }
}
