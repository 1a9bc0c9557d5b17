//! What can be wrong with a configuration, in messages that name the key, the place that set
//! it and what to do.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use super::source::Source;

/// A configuration that cannot be used. The process ends with exit code 2.
///
/// A library error that carries one must keep it as its `source`, so that [`crate::exit`] finds
/// it in the chain (`#[error(transparent)]` would hide it there).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--config` names a file that cannot be read, or `runlog.toml` is there but unreadable.
    #[error("cannot read the configuration file {}; give another with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file is no TOML. The text of the offending line is left out: it may hold a secret.
    #[error("{origin} is not valid TOML: {detail}")]
    Syntax {
        /// The file.
        origin: Source,
        /// Line, column and reason.
        detail: String,
    },
    /// A `--set` flag or an environment variable that is not of the form it must have.
    #[error("{origin} cannot be used: {detail}")]
    Malformed {
        /// The flag or the variable.
        origin: Source,
        /// What form it must have.
        detail: String,
    },
    /// A key that does not exist.
    #[error("unknown configuration key {key} (set by {origin}); did you mean {nearest}?")]
    UnknownKey {
        /// The key as it was spelled.
        key: String,
        /// What set it.
        origin: Source,
        /// The known key that looks most like it.
        nearest: String,
    },
    /// A value of the wrong type or form.
    #[error("{key} is {found} (set by {origin}), but it must be {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What set it.
        origin: Source,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value of the right type that cannot be used.
    #[error("{key} (set by {origin}) {detail}")]
    Invalid {
        /// The key.
        key: String,
        /// What set it.
        origin: Source,
        /// What is wrong, as the rest of a sentence that starts with the key.
        detail: String,
    },
    /// A key without a default that nobody set.
    #[error("{key} is not set; {hint}")]
    Missing {
        /// The key.
        key: &'static str,
        /// How to set it.
        hint: &'static str,
    },
    /// A secret and its `*_file` are both set: which one counts would be a guess.
    #[error("both {key} (set by {origin}) and {key}_file (set by {file_origin}) are set; keep one")]
    Ambiguous {
        /// The key of the secret.
        key: &'static str,
        /// What set the secret.
        origin: Source,
        /// What set its file.
        file_origin: Source,
    },
    /// The file that a `*_file` key names cannot be read.
    #[error("cannot read {}, which {key} names (set by {origin})", path.display())]
    SecretFile {
        /// The `*_file` key.
        key: &'static str,
        /// What set it.
        origin: Source,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What a section found wrong with one of its values; the loader adds where the value came from.
#[derive(Debug)]
pub(super) struct Problem {
    /// The full key.
    pub(super) key: Cow<'static, str>,
    /// The rest of a sentence that starts with the key.
    pub(super) detail: String,
}

impl Problem {
    /// `Err(Problem)` for `key`; the detail goes on where the key's name ends.
    pub(super) fn err<T>(
        key: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Result<T, Problem> {
        Err(Problem {
            key: key.into(),
            detail: detail.into(),
        })
    }

    /// Checks that a value lies in a closed range and says the range where it does not.
    pub(super) fn unless_within<T: PartialOrd>(
        key: &'static str,
        value: T,
        range: std::ops::RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Result<(), Problem> {
        if range.contains(&value) {
            return Ok(());
        }
        let (value, low, high) = (show(&value), show(range.start()), show(range.end()));
        Problem::err(
            key,
            format!("is {value}; it must lie between {low} and {high}"),
        )
    }

    /// [`Problem::unless_within`] for a duration.
    pub(super) fn unless_lasting(
        key: &'static str,
        value: std::time::Duration,
        range: std::ops::RangeInclusive<std::time::Duration>,
    ) -> Result<(), Problem> {
        Problem::unless_within(key, value, range, |d| {
            humantime::format_duration(*d).to_string()
        })
    }
}
