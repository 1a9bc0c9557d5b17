//! What librdkafka's complaints about TLS and logins mean, in a sentence that names the setting. Pure.
//! Called wherever such a complaint is shown.

use crate::config::{KafkaConfig, SaslMechanism};

/// Why a broker and this client do not come together, as far as librdkafka's words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The broker's certificate does not stand the test.
    Certificate,
    /// The broker asks for a client certificate, or does not trust the one it got.
    ClientCertificate,
    /// The login or its password is not known there.
    Credentials,
    /// The broker does not offer this mechanism.
    Mechanism,
    /// There is no token to log in with.
    Token,
    /// The listener speaks no TLS.
    NoTls,
    /// The listener ends the connection: perhaps it speaks TLS, or wants a login.
    Closed,
}

impl Refusal {
    /// Reads it off librdkafka's words.
    pub fn of(words: &str) -> Option<Self> {
        const SIGNS: [(&str, Refusal); 20] = [
            ("certificate verify failed", Refusal::Certificate),
            ("Unsupported SASL mechanism", Refusal::Mechanism),
            ("SASL OAUTHBEARER token", Refusal::Token),
            ("Authentication failed", Refusal::Credentials),
            ("SASL authentication error", Refusal::Credentials),
            ("SaslAuthenticateRequest failed", Refusal::Credentials),
            ("credentials", Refusal::Credentials),
            ("alert certificate required", Refusal::ClientCertificate),
            ("alert bad certificate", Refusal::ClientCertificate),
            ("alert unknown ca", Refusal::ClientCertificate),
            ("alert certificate unknown", Refusal::ClientCertificate),
            ("alert certificate expired", Refusal::ClientCertificate),
            ("alert handshake failure", Refusal::ClientCertificate),
            ("wrong version number", Refusal::NoTls),
            ("packet length too long", Refusal::NoTls),
            ("PLAINTEXT broker listener", Refusal::NoTls),
            ("incorrect security.protocol", Refusal::Closed),
            ("connecting to a SSL listener", Refusal::Closed),
            ("SASL_SSL listener", Refusal::Closed),
            ("SSL listener", Refusal::Closed),
        ];
        let sign = SIGNS.iter().find(|(sign, _)| words.contains(sign));
        sign.map(|(_, refusal)| *refusal)
    }

    /// Whether it stays so until somebody changes a setting. A connection that ends in its handshake may
    /// also be a broker's that is starting.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::NoTls | Self::Closed)
    }

    /// What it means and which setting to look at.
    pub fn advice(self, config: &KafkaConfig) -> String {
        let security = &config.security;
        // The key, or the property where kafka.properties are used instead.
        let key = |key: &str, property: &str| {
            if !security.is_used() && config.properties.contains_key(property) {
                format!("kafka.properties.{property}")
            } else {
                format!("kafka.security.{key}")
            }
        };
        let protocol = security.protocol.name();
        match self {
            Self::Certificate => format!(
                "the broker's certificate is not trusted: it must be in force, signed by an authority of {}, and for \
                 the host name in kafka.bootstrap_servers or, after the first answer, in the broker's \
                 advertised.listeners",
                match &security.ca_file {
                    Some(path) => format!("kafka.security.ca_file = {}", path.display()),
                    None => format!(
                        "this system ({} is not set)",
                        key("ca_file", "ssl.ca.location")
                    ),
                }
            ),
            Self::ClientCertificate => format!(
                "the broker wants a client certificate that it trusts: check {} and {}",
                key("certificate_file", "ssl.certificate.location"),
                key("key_file", "ssl.key.location")
            ),
            Self::Credentials if security.mechanism == Some(SaslMechanism::OauthBearer) => {
                "the broker refuses the token: check what kafka.security.token_file holds"
                    .to_owned()
            }
            Self::Credentials => format!(
                "the broker refuses the login: check {}, {} and {}",
                key("username", "sasl.username"),
                match (&security.password_file, &security.password) {
                    (Some(path), _) => format!("kafka.security.password_file = {}", path.display()),
                    _ => key("password", "sasl.password"),
                },
                key("mechanism", "sasl.mechanism"),
            ),
            Self::Mechanism => format!(
                "the broker does not offer this mechanism: check {}",
                key("mechanism", "sasl.mechanism")
            ),
            Self::Token => {
                "there is no token to log in with: check kafka.security.token_file".to_owned()
            }
            Self::NoTls => format!(
                "the listener seems to speak no TLS: check {} (now {protocol}) and the port",
                key("protocol", "security.protocol")
            ),
            Self::Closed => format!(
                "the listener ends the connection, as one does that wants TLS or a login: check {} (now {protocol}) \
                 and the port",
                key("protocol", "security.protocol")
            ),
        }
    }
}
