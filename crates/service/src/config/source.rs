//! Where a configured value came from, in the words a person would use to find it again.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// The layer, and the place in it, that set a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// Nobody set it: the documented default.
    #[default]
    Default,
    /// The configuration file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// A `--set` flag for this key, as it was spelled.
    Flag(String),
    /// The content of this file, which a `*_file` key names.
    SecretFile(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Environment(name) => write!(f, "environment variable {name}"),
            Source::Flag(key) => write!(f, "flag --set {key}"),
            Source::SecretFile(path) => write!(f, "secret file {}", path.display()),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
