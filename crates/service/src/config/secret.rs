//! A configured value that must not be shown: in logs, in errors, in `runlog config show`.

use std::path::Path;
use std::{fmt, fs};

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::error::ConfigError;
use super::source::Source;

/// What stands in the place of a secret.
pub(crate) const MASK: &str = "***";

/// A secret text. `Debug`, `Display` and `Serialize` show [`MASK`], or, for a URL, the URL
/// with its password masked; only [`Secret::expose`] gives the text.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself. Hand it to what needs it and to nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is a URL with a password in it.
    pub(super) fn holds_password(&self) -> bool {
        let in_query = |url: &Url| url.query_pairs().any(|(name, _)| name == "password");
        Url::parse(&self.0).is_ok_and(|url| url.password().is_some() || in_query(&url))
    }

    /// What may be shown: a URL keeps all but its passwords, any other text is [`MASK`] alone.
    pub fn masked(&self) -> String {
        mask_url(&self.0).unwrap_or_else(|| MASK.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

/// The secret that a file holds, without the blanks around it.
///
/// # Errors
/// Where the file, which `key` names, cannot be read or holds nothing.
pub(crate) fn read_secret(
    key: &'static str,
    origin: &Source,
    path: &Path,
) -> Result<Secret, ConfigError> {
    let text = fs::read_to_string(path).map_err(|cause| ConfigError::SecretFile {
        key,
        origin: origin.clone(),
        path: path.to_owned(),
        cause,
    })?;
    if text.trim().is_empty() {
        return Err(ConfigError::Invalid {
            key: key.to_owned(),
            origin: origin.clone(),
            detail: format!("names {}, which is empty", path.display()),
        });
    }
    Ok(Secret::new(text.trim()))
}

/// Whether a key of this name holds a secret: passwords, secrets, and private keys given
/// inline (their PEM text, not the path of a file).
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', ".");
    // Names of librdkafka that hold key material or tokens without saying "password".
    const INLINE: [&str; 3] = ["key.pem", "ssl.key", "token"];
    name.contains("password")
        || name.contains("secret")
        || INLINE.iter().any(|end| name.ends_with(end))
        || name.ends_with("oauthbearer.config")
        || name.ends_with("sasl.jaas.config")
}

/// The URL with every password masked; `None` where the text is no URL with a host part, in
/// which case nothing of it is safe to show.
fn mask_url(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok()?;
    if !url.has_authority() {
        return None;
    }
    if url.password().is_some() {
        url.set_password(Some(MASK)).ok()?;
    }
    if url.query().is_some() {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let value = if is_secret_name(&name) {
                    MASK.into()
                } else {
                    value
                };
                (name.into_owned(), value.into_owned())
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    Some(url.to_string())
}
