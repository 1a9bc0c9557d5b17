//! Section `kafka.security`: TLS and SASL towards the brokers. Here is what may be set together; what
//! becomes of it is in [`crate::kafka`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::secret::Secret;
use super::source::Source;

/// What the brokers' listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaProtocol {
    /// No TLS, no login.
    #[default]
    #[serde(alias = "PLAINTEXT")]
    Plaintext,
    /// TLS; the login is the client's certificate, if there is one.
    #[serde(alias = "SSL")]
    Ssl,
    /// A login without TLS.
    #[serde(alias = "SASL_PLAINTEXT")]
    SaslPlaintext,
    /// A login over TLS.
    #[serde(alias = "SASL_SSL")]
    SaslSsl,
}

impl KafkaProtocol {
    /// As librdkafka and the configuration spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub(crate) fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How a login is proved. GSSAPI is not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// The password itself: only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof that the password is known.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with the longer digest.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token that somebody else issued, from a file.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl SaslMechanism {
    /// As Kafka spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// TLS and login. The files are read whenever a Kafka client is made, not when the configuration is
/// loaded: a process that makes none needs none of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSecurityConfig {
    /// What the listener speaks. Default plaintext, with which no other key here may be set.
    pub protocol: KafkaProtocol,
    /// Certificates (PEM) of the authorities that may have signed a broker's. None = this system's.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate (PEM) with those between it and its authority, for mutual TLS.
    pub certificate_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    pub key_file: Option<PathBuf>,
    /// What the private key is encrypted with.
    pub key_password: Option<Secret>,
    /// A file that holds it, in the place of `key_password`; blanks around it are cut off.
    pub key_password_file: Option<PathBuf>,
    /// How the login is proved; needed with sasl_plaintext and sasl_ssl.
    pub mechanism: Option<SaslMechanism>,
    /// The login, for PLAIN and SCRAM.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// A file that holds it, in the place of `password`; blanks around it are cut off.
    pub password_file: Option<PathBuf>,
    /// A file that holds the token for OAUTHBEARER. Read again at least every minute.
    pub token_file: Option<PathBuf>,
    /// Where the keys that name files came from, for messages. Not a key: the loader fills it in.
    #[serde(skip)]
    pub sources: BTreeMap<&'static str, Source>,
}

/// The keys that name files.
pub(super) const FILE_KEYS: [&str; 6] = [
    "kafka.security.ca_file",
    "kafka.security.certificate_file",
    "kafka.security.key_file",
    "kafka.security.key_password_file",
    "kafka.security.password_file",
    "kafka.security.token_file",
];

/// Properties of librdkafka that these keys stand for.
const OWNED: [&str; 17] = [
    "security.protocol",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.key.password",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.config",
];

impl KafkaSecurityConfig {
    /// Whether anything is set here; otherwise `kafka.properties` may say how to reach Kafka safely.
    pub fn is_used(&self) -> bool {
        self.protocol != KafkaProtocol::Plaintext
    }

    pub(super) fn check(&self, properties: &BTreeMap<String, String>) -> Result<(), Problem> {
        let protocol = self.protocol.name();
        if !self.protocol.is_tls()
            && let Some(key) = first_set(&self.tls_keys())
        {
            return wrong(
                key,
                format!(
                    "is set, but kafka.security.protocol is {protocol}, which has no TLS; use ssl or sasl_ssl"
                ),
            );
        }
        if !self.protocol.is_sasl()
            && let Some(key) = first_set(&self.sasl_keys())
        {
            return wrong(
                key,
                format!(
                    "is set, but kafka.security.protocol is {protocol}, which has no login; use sasl_ssl"
                ),
            );
        }
        if self.is_used()
            && let Some(name) = OWNED.iter().find(|name| properties.contains_key(**name))
        {
            return Problem::err(
                format!("kafka.properties.{name}"),
                format!(
                    "and kafka.security.protocol = {protocol} are both set; keep the keys of kafka.security"
                ),
            );
        }
        self.check_key_pair()?;
        self.check_login()
    }

    fn tls_keys(&self) -> [(&'static str, bool); 5] {
        [
            ("ca_file", self.ca_file.is_some()),
            ("certificate_file", self.certificate_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("key_password", self.key_password.is_some()),
            ("key_password_file", self.key_password_file.is_some()),
        ]
    }

    fn sasl_keys(&self) -> [(&'static str, bool); 5] {
        [
            ("mechanism", self.mechanism.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("password_file", self.password_file.is_some()),
            ("token_file", self.token_file.is_some()),
        ]
    }

    fn check_key_pair(&self) -> Result<(), Problem> {
        let password = first_set(&self.tls_keys()[3..]);
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => wrong(
                "certificate_file",
                "needs its key: set kafka.security.key_file",
            ),
            (None, Some(_)) => wrong(
                "key_file",
                "needs its certificate: set kafka.security.certificate_file",
            ),
            (None, None) if password.is_some() => wrong(
                password.unwrap_or_default(),
                "is set without kafka.security.key_file",
            ),
            _ if self.key_password.is_some() && self.key_password_file.is_some() => wrong(
                "key_password_file",
                "and kafka.security.key_password are both set; keep one",
            ),
            _ => Ok(()),
        }
    }

    fn check_login(&self) -> Result<(), Problem> {
        let Some(mechanism) = self.mechanism else {
            if self.protocol.is_sasl() {
                let protocol = self.protocol.name();
                return wrong(
                    "protocol",
                    format!(
                        "is {protocol} and needs kafka.security.mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
                    ),
                );
            }
            return Ok(());
        };
        let name = mechanism.name();
        let password = first_set(&self.sasl_keys()[1..4]);
        if mechanism == SaslMechanism::OauthBearer {
            return match (&self.token_file, password) {
                (Some(_), None) => Ok(()),
                (_, Some(key)) => wrong(
                    key,
                    format!(
                        "does not go with kafka.security.mechanism = {name}, which takes kafka.security.token_file"
                    ),
                ),
                (None, None) => wrong(
                    "mechanism",
                    format!("is {name} and needs kafka.security.token_file"),
                ),
            };
        }
        if self.token_file.is_some() {
            return wrong(
                "token_file",
                format!(
                    "does not go with kafka.security.mechanism = {name}; it is for OAUTHBEARER"
                ),
            );
        }
        if self.username.is_none() {
            return wrong(
                "mechanism",
                format!("is {name} and needs kafka.security.username"),
            );
        }
        match (&self.password, &self.password_file) {
            (None, None) => wrong(
                "mechanism",
                format!("is {name} and needs kafka.security.password_file (or password)"),
            ),
            (Some(_), Some(_)) => wrong(
                "password_file",
                "and kafka.security.password are both set; keep one",
            ),
            _ => Ok(()),
        }
    }
}

fn first_set(keys: &[(&'static str, bool)]) -> Option<&'static str> {
    keys.iter().find(|(_, is_set)| *is_set).map(|(key, _)| *key)
}

fn wrong(key: &str, detail: impl Into<String>) -> Result<(), Problem> {
    Problem::err(format!("kafka.security.{key}"), detail)
}
