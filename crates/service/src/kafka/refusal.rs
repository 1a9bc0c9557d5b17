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
        const SIGNS: [(&str, Refusal); 19] = [
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
            ("might require SASL authentication", Refusal::Closed),
            // Ended by the broker before the first answer.
            ("in state APIVERSION_QUERY", Refusal::Closed),
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

#[cfg(test)]
mod tests {
    use super::Refusal::{
        self, Certificate, ClientCertificate, Closed, Credentials, Mechanism, NoTls, Token,
    };
    use crate::config::{KafkaConfig, KafkaProtocol, Secret};

    /// What librdkafka 2.12.1 says to a Kafka 4.3.1 and its certificates.
    #[test]
    fn the_words_of_the_client_library_are_understood() {
        for (words, refusal) in [
            (
                "ssl://localhost:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate \
                 verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly \
                 configured",
                Some(Certificate),
            ),
            (
                "sasl_ssl://localhost:9094/bootstrap: SASL authentication error: SaslAuthenticateRequest failed: \
                 Broker: SASL Authentication failed (after 303ms in state AUTH_REQ)",
                Some(Credentials),
            ),
            (
                "sasl_ssl://localhost:9094/bootstrap: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: \
                 Unsupported SASL mechanism: broker's supported mechanisms: PLAIN",
                Some(Mechanism),
            ),
            (
                "Failed to acquire SASL OAUTHBEARER token: the token in /token has run out",
                Some(Token),
            ),
            (
                "ssl://localhost:9095/1: Receive failed: SSL error: ssl/record/rec_layer_s3.c:1605: error:0A00045C:SSL \
                 routines::tlsv13 alert certificate required: SSL alert number 116",
                Some(ClientCertificate),
            ),
            (
                "ssl://localhost:9092/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker \
                 listener?",
                Some(NoTls),
            ),
            (
                "localhost:9094/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms \
                 in state APIVERSION_QUERY)",
                Some(Closed),
            ),
            (
                "localhost:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
                None,
            ),
        ] {
            assert_eq!(Refusal::of(words), refusal, "{words}");
        }
    }

    #[test]
    fn the_place_that_is_named_is_the_one_that_was_set() {
        let mut config = KafkaConfig::default();
        let property = ("sasl.password".to_owned(), "hunter2".to_owned());
        config.properties.extend([property]);
        let advice = Credentials.advice(&config);
        assert!(
            advice.contains("kafka.properties.sasl.password"),
            "{advice}"
        );
        config.properties.clear();
        config.security.protocol = KafkaProtocol::SaslSsl;
        config.security.password = Some(Secret::new("hunter2"));
        let advice = Credentials.advice(&config);
        assert!(advice.contains("kafka.security.password"), "{advice}");
        assert!(!advice.contains("hunter2"), "{advice}");
    }
}
