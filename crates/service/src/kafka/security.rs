//! `kafka.security` as properties of librdkafka, and the files that it names: whether they can be read,
//! and whether they have changed. Called by [`super::client_config`] and by ingest, which makes a new
//! client when they have.

use std::fs;
use std::path::PathBuf;

use rdkafka::ClientConfig;

use crate::config::{ConfigError, KafkaSecurityConfig, Secret, Source, read_secret};

/// Sets what `kafka.security` says. A broker's certificate and its host name are always verified.
pub(super) fn apply(
    security: &KafkaSecurityConfig,
    client: &mut ClientConfig,
) -> Result<(), ConfigError> {
    if !security.is_used() {
        return Ok(());
    }
    client.set("security.protocol", security.protocol.name());
    if security.protocol.is_tls() {
        client.set("enable.ssl.certificate.verification", "true");
        client.set("ssl.endpoint.identification.algorithm", "https");
        for (key, path) in tls_files(security) {
            read(security, key, path)?;
        }
        for (property, path) in [
            ("ssl.ca.location", &security.ca_file),
            ("ssl.certificate.location", &security.certificate_file),
            ("ssl.key.location", &security.key_file),
        ] {
            if let Some(path) = path {
                client.set(property, path.to_string_lossy());
            }
        }
        let file = (
            "kafka.security.key_password_file",
            &security.key_password_file,
        );
        if let Some(password) = secret(security, &security.key_password, file)? {
            client.set("ssl.key.password", password.expose());
        }
    }
    if let Some(mechanism) = security.mechanism {
        client.set("sasl.mechanism", mechanism.name());
    }
    if let Some(username) = &security.username {
        client.set("sasl.username", username);
    }
    let file = ("kafka.security.password_file", &security.password_file);
    if let Some(password) = secret(security, &security.password, file)? {
        client.set("sasl.password", password.expose());
    }
    if let Some(path) = &security.token_file {
        read(security, "kafka.security.token_file", path)?;
        // Comes back to `oauth_token`.
        client.set("sasl.oauthbearer.config", path.to_string_lossy());
    }
    Ok(())
}

/// Whether a client is made from files, which may change while the process runs. The token's is not
/// among them: every client reads that again by itself.
pub fn has_files(security: &KafkaSecurityConfig) -> bool {
    all_files(security).next().is_some()
}

/// The contents of the files that a client is made from.
///
/// # Errors
/// Where one cannot be read.
pub fn files(security: &KafkaSecurityConfig) -> Result<Vec<Vec<u8>>, ConfigError> {
    all_files(security)
        .map(|(key, path)| read(security, key, path))
        .collect()
}

fn tls_files(security: &KafkaSecurityConfig) -> impl Iterator<Item = (&'static str, &PathBuf)> {
    [
        ("kafka.security.ca_file", &security.ca_file),
        (
            "kafka.security.certificate_file",
            &security.certificate_file,
        ),
        ("kafka.security.key_file", &security.key_file),
    ]
    .into_iter()
    .filter_map(|(key, path)| Some((key, path.as_ref()?)))
}

fn all_files(security: &KafkaSecurityConfig) -> impl Iterator<Item = (&'static str, &PathBuf)> {
    let secrets = [
        (
            "kafka.security.key_password_file",
            &security.key_password_file,
        ),
        ("kafka.security.password_file", &security.password_file),
    ];
    let secrets = secrets.into_iter();
    tls_files(security).chain(secrets.filter_map(|(key, path)| Some((key, path.as_ref()?))))
}

fn origin(security: &KafkaSecurityConfig, key: &'static str) -> Source {
    security.sources.get(key).cloned().unwrap_or_default()
}

fn read(
    security: &KafkaSecurityConfig,
    key: &'static str,
    path: &PathBuf,
) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|cause| ConfigError::SecretFile {
        key,
        origin: origin(security, key),
        path: path.clone(),
        cause,
    })
}

/// A secret, be it written in the configuration or in a file.
fn secret(
    security: &KafkaSecurityConfig,
    written: &Option<Secret>,
    (key, path): (&'static str, &Option<PathBuf>),
) -> Result<Option<Secret>, ConfigError> {
    match path {
        Some(path) => read_secret(key, &origin(security, key), path).map(Some),
        None => Ok(written.clone()),
    }
}
