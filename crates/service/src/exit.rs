//! How a process ends: the exit codes, which are part of the product's surface, and the one
//! place that turns an error into a message and a code. Called last by each main.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::database::DatabaseError;

/// The exit codes of every Runlog binary. `clap` ends with the code of [`Exit::Usage`] too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It ran, and found or met a problem.
    Problem = 1,
    /// The command line or the configuration cannot be used.
    Usage = 2,
    /// Kafka or PostgreSQL cannot be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error that means exit code 3: something outside cannot be reached. For services other
/// than PostgreSQL, whose [`DatabaseError`] says so by itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Unreachable {
    /// What cannot be reached, where that was configured, and what to do.
    pub message: String,
    /// Why, where there is more to say.
    #[source]
    pub cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Unreachable {
    /// An error whose message says it all.
    pub fn new(message: impl Into<String>) -> Self {
        Unreachable {
            message: message.into(),
            cause: None,
        }
    }
}

/// The code that an error means, by the first error in its chain that means one.
pub fn classify(error: &anyhow::Error) -> Exit {
    error.chain().find_map(meaning).unwrap_or(Exit::Problem)
}

fn meaning(error: &(dyn Error + 'static)) -> Option<Exit> {
    if error.is::<ConfigError>() {
        return Some(Exit::Usage);
    }
    if error.is::<Unreachable>() {
        return Some(Exit::Unreachable);
    }
    error
        .downcast_ref::<DatabaseError>()
        .map(|error| match error {
            DatabaseError::Url(_) => Exit::Usage,
            DatabaseError::Refused { .. } | DatabaseError::Unreachable { .. } => Exit::Unreachable,
        })
}

/// Ends a main: prints an error's whole chain to stderr, under the program's name, and gives
/// the code to return.
pub fn finish(program: &str, result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!(
                "{}",
                Report {
                    program,
                    error: &error
                }
            );
            classify(&error).into()
        }
    }
}

/// "program: message", then one "caused by" line per cause.
struct Report<'a> {
    program: &'a str,
    error: &'a anyhow::Error,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.program, self.error)?;
        // Some libraries repeat their cause in their own message: once is enough.
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, "\n  caused by: {text}")?;
            }
            said = text;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{Exit, Report, Unreachable, classify};
    use crate::config::ConfigError;
    use crate::database::DatabaseError;

    fn missing() -> ConfigError {
        ConfigError::Missing {
            key: "database.url",
            hint: "set it",
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Start(#[source] ConfigError);

    #[test]
    fn codes_are_the_documented_ones() {
        let codes = [Exit::Done, Exit::Problem, Exit::Usage, Exit::Unreachable];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3]);
    }

    #[test]
    fn an_error_is_classed_wherever_it_stands_in_the_chain() {
        assert_eq!(classify(&missing().into()), Exit::Usage);
        assert_eq!(
            classify(&anyhow::Error::from(missing()).context("starting")),
            Exit::Usage
        );
        assert_eq!(
            classify(&anyhow::Error::from(Start(missing())).context("a")),
            Exit::Usage
        );
        assert_eq!(classify(&DatabaseError::Url(missing()).into()), Exit::Usage);
        assert_eq!(
            classify(&Unreachable::new("no broker").into()),
            Exit::Unreachable
        );
        assert_eq!(
            classify(&anyhow!("anything else").context("at work")),
            Exit::Problem
        );
    }

    #[test]
    fn the_chain_is_printed_line_by_line_and_nothing_twice() {
        let error = anyhow!("refused")
            .context("cannot claim: refused")
            .context("stopped");
        let shown = Report {
            program: "runlog-ingest",
            error: &error,
        }
        .to_string();
        assert_eq!(
            shown,
            "runlog-ingest: stopped\n  caused by: cannot claim: refused"
        );
    }
}
