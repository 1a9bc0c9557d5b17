//! What a database error means for the batch, decided in one place.

use sqlx::Error;

/// Whose fault an error is, and so what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// The content of some record: find it, dead-letter it, commit its neighbours.
    Record,
    /// The environment: the whole batch again, with backoff, for ever. Never a dead letter.
    Environment,
    /// The server cancelled a statement that took too long, or an administrator did: less at once. One
    /// record alone that is cancelled is the environment's.
    Cancelled,
    /// A unique constraint spoke: what was known is out of date; look again.
    Unique,
    /// A bug or a misconfiguration: stop and say what to do.
    Fatal,
    /// Nothing known: find out whether one record alone is the reason, else stop the partition.
    Unlisted,
}

/// The SQLSTATE of a database error (PostgreSQL, appendix A), if it is one.
pub fn sqlstate(error: &Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|code| code.into_owned())
}

/// Classes an error by its SQLSTATE and, for a check constraint, its table.
pub fn classify(error: &Error) -> FaultClass {
    let Some(code) = sqlstate(error) else {
        return classify_driver_error(error);
    };
    let table = error.as_database_error().and_then(|e| e.table());
    match code.as_str() {
        "23505" => FaultClass::Unique,
        "57014" => FaultClass::Cancelled,
        "23514" | "23502" if matches!(table, Some("event" | "dead_letter" | "run")) => {
            FaultClass::Record
        }
        // A constraint that Runlog did not make (23503 and others: it has no foreign keys, triggers or
        // exclusions of its own) may mean one record. On its own bookkeeping it is a bug.
        code if code.starts_with("23") && table != Some("stream") => FaultClass::Unlisted,
        "54000" | "54001" => FaultClass::Record,
        // A wrong password. It was right when the process started, so it is being rotated: the file that
        // holds it is read again, and comes to hold the new one.
        "28P01" => FaultClass::Environment,
        code => match &code[..2.min(code.len())] {
            "22" => FaultClass::Record,
            // Connection; invalid transaction state (also a read-only standby, 25006, and the session
            // limits 25P02 to 25P04: the connection is closed, the next one is in a known state);
            // rollback (serialization failure, deadlock); resources; a lock or an object that is not
            // available now; operator intervention; I/O. Another try meets another world.
            "08" | "25" | "40" | "53" | "55" | "57" | "58" => FaultClass::Environment,
            // Constraint of the stream row, authorisation, syntax or access rule, unknown database or
            // schema.
            "23" | "28" | "42" | "3D" | "3F" => FaultClass::Fatal,
            _ => FaultClass::Unlisted,
        },
    }
}

fn classify_driver_error(error: &Error) -> FaultClass {
    match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => FaultClass::Environment,
        // The record's bytes never reach the driver as anything but parameters, so an encoding or
        // decoding error is a bug of ours.
        _ => FaultClass::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_and_a_full_pool_are_the_environments() {
        let io = Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(classify(&io), FaultClass::Environment);
        assert_eq!(classify(&Error::PoolTimedOut), FaultClass::Environment);
    }

    #[test]
    fn a_column_that_is_not_there_is_a_bug() {
        assert_eq!(
            classify(&Error::ColumnNotFound("x".into())),
            FaultClass::Fatal
        );
    }
}
