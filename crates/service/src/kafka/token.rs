//! The token of OAUTHBEARER, from the file that `kafka.security.token_file` names. Called by the
//! contexts of all Kafka clients when librdkafka asks for a token: at first, and when 80 % of the last
//! one's time are over.
#![allow(unsafe_code)]

use std::error::Error;
use std::ffi::CString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, ptr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaConfig;

/// How long a token is used before the file is read again, whatever the token says itself: the file is
/// rotated by somebody else, at times that they choose.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// The token in the file whose path is given, which is how `sasl.oauthbearer.config` is used here.
///
/// # Errors
/// That the file cannot be read, or its token has run out. The token is in no message.
pub fn oauth_token(path: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    let path =
        path.ok_or("set kafka.security.mechanism = OAUTHBEARER and kafka.security.token_file")?;
    let text = fs::read_to_string(path).map_err(|error| {
        format!("cannot read {path}, which kafka.security.token_file names: {error}")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    token(text.trim(), now).map_err(|problem| {
        format!("the token in {path}, which kafka.security.token_file names, {problem}").into()
    })
}

/// Gives a client its token now. For clients of administrators, which live shortly and whose binding
/// never asks the context for one.
///
/// # Errors
/// As [`oauth_token`].
pub fn give_token<C: ClientContext>(
    client: &Client<C>,
    config: &KafkaConfig,
) -> Result<(), Box<dyn Error>> {
    let Some(path) = &config.security.token_file else {
        return Ok(());
    };
    let given = oauth_token(Some(&path.to_string_lossy()))?;
    let (token, principal) = (
        CString::new(given.token)?,
        CString::new(given.principal_name)?,
    );
    let mut words = [0; 256];
    // SAFETY: the client is alive; the texts end with NUL and are copied before the call returns; no
    // extensions are given; `words` is as long as it says.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            given.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            words.as_mut_ptr(),
            words.len(),
        )
    };
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    Err("the Kafka client does not take the token in kafka.security.token_file".into())
}

/// The token with its time. One that is no JSON Web Token is used for [`READ_AGAIN`] at a time.
fn token(text: &str, now: Duration) -> Result<OAuthToken, &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    let claims = text.split('.').nth(1).and_then(|part| {
        let json = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
        serde_json::from_slice::<serde_json::Value>(&json).ok()
    });
    let claim = |name: &str| claims.as_ref().and_then(|claims| claims.get(name));
    let mut until = (now + READ_AGAIN).as_millis();
    if let Some(expiry) = claim("exp").and_then(serde_json::Value::as_f64) {
        let expiry = Duration::try_from_secs_f64(expiry).unwrap_or_default();
        if expiry <= now {
            return Err("has run out: its exp has passed");
        }
        until = until.min(expiry.as_millis());
    }
    let principal = claim("sub").and_then(serde_json::Value::as_str);
    Ok(OAuthToken {
        token: text.to_owned(),
        // Only for librdkafka's own log; the broker reads the token.
        principal_name: principal.unwrap_or("token_file").to_owned(),
        lifetime_ms: i64::try_from(until).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_read_again_within_a_minute_and_never_used_beyond_its_time() {
        let now = Duration::from_secs(1_000_000);
        let lifetime = |text: &str| token(text, now).map(|token| token.lifetime_ms);
        assert_eq!(lifetime("opaque"), Ok(1_000_060_000));
        assert_eq!(
            lifetime(&jwt(r#"{"sub":"a","exp":1003600}"#)),
            Ok(1_000_060_000)
        );
        assert_eq!(
            lifetime(&jwt(r#"{"sub":"a","exp":1000007}"#)),
            Ok(1_000_007_000)
        );
        assert_eq!(
            lifetime(&jwt(r#"{"exp":999999}"#)),
            Err("has run out: its exp has passed")
        );
        assert_eq!(lifetime(""), Err("is empty"));
        let named = token(&jwt(r#"{"sub":"ingest"}"#), now).unwrap();
        assert_eq!(named.principal_name, "ingest");
    }

    #[test]
    fn a_message_names_the_file_and_the_setting() {
        let error = oauth_token(Some("/nonexistent/token"))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("/nonexistent/token") && error.contains("kafka.security.token_file"),
            "{error}"
        );
    }
}
