//! A configured value that must not be shown: in logs, in errors, in `runlog config show`.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

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
