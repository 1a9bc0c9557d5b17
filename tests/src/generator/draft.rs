//! An event before it is bytes, and the many spellings that its bytes may have.
//!
//! Called by the other parts of the generator. A draft's JSON is put together from raw values, so
//! that `1` and `1.0`, a missing and a null field, or a key twice can all be written.

use crate::oracle::key::{KeyParts, derive};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use uuid::Builder;

/// A payload with another spelling of the same content, and one of another content.
#[derive(Clone, Debug)]
pub struct Payload {
    /// JSON text.
    pub text: String,
    /// JSON text with the same RFC 8785 form.
    pub twin: String,
    /// JSON text with another one.
    pub other: String,
}

impl Payload {
    /// From three texts.
    #[must_use]
    pub fn new(text: &str, twin: &str, other: &str) -> Self {
        Self {
            text: text.to_owned(),
            twin: twin.to_owned(),
            other: other.to_owned(),
        }
    }
}

/// An event that can be rendered.
#[derive(Clone, Debug)]
pub struct Draft {
    /// UUID text.
    pub event_id: String,
    /// `eventType`
    pub event_type: String,
    /// `tenantId`
    pub tenant: String,
    /// `projectId`
    pub project: String,
    /// `environmentId`
    pub environment: String,
    /// `runId`
    pub run: String,
    /// `planId`
    pub plan: String,
    /// `planVersion`
    pub plan_version: String,
    /// `engineAttemptId`
    pub engine_attempt: i64,
    /// `logicalAttemptId`
    pub logical_attempt: i64,
    /// A key that is not the derived one.
    pub foreign_key: Option<String>,
    /// RFC 3339 text.
    pub emitted_at: String,
    /// `stepId`
    pub step: Option<String>,
    /// `payload`
    pub payload: Option<Payload>,
}

/// Field names with raw JSON values, in the order in which they are written.
pub type Fields = Vec<(String, String)>;

/// Text as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A random version 4 UUID.
#[must_use]
pub fn random_uuid(rng: &mut StdRng) -> String {
    Builder::from_random_bytes(rng.random())
        .into_uuid()
        .to_string()
}

impl Draft {
    /// The key that the record carries.
    #[must_use]
    pub fn key(&self) -> String {
        self.foreign_key.clone().unwrap_or_else(|| {
            derive(KeyParts {
                run_id: &self.run,
                step_id: self.step.as_deref(),
                logical_attempt_id: self.logical_attempt,
                event_type: &self.event_type,
                plan_id: &self.plan,
                plan_version: &self.plan_version,
            })
        })
    }

    /// The fields, plainly spelt.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let mut fields: Fields = [
            ("eventId", quoted(&self.event_id)),
            ("eventType", quoted(&self.event_type)),
            ("tenantId", quoted(&self.tenant)),
            ("projectId", quoted(&self.project)),
            ("environmentId", quoted(&self.environment)),
            ("runId", quoted(&self.run)),
            ("planId", quoted(&self.plan)),
            ("planVersion", quoted(&self.plan_version)),
            ("engineAttemptId", self.engine_attempt.to_string()),
            ("logicalAttemptId", self.logical_attempt.to_string()),
            ("idempotencyKey", quoted(&self.key())),
            ("emittedAt", quoted(&self.emitted_at)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(step) = &self.step {
            fields.push(("stepId".to_owned(), quoted(step)));
        }
        if let Some(payload) = &self.payload {
            fields.push(("payload".to_owned(), payload.text.clone()));
        }
        fields
    }

    /// The fields, sometimes in one of the other spellings that mean the same.
    #[must_use]
    pub fn varied_fields(&self, rng: &mut StdRng) -> Fields {
        let mut fields = self.fields();
        if self.step.is_none() && rng.random_bool(0.1) {
            fields.push(("stepId".to_owned(), "null".to_owned()));
        }
        if self.payload.is_none() && rng.random_bool(0.1) {
            fields.push(("payload".to_owned(), "null".to_owned()));
        }
        if rng.random_bool(0.05) {
            let extra = rng.random_range(0..1_000_000);
            fields.push((
                format!("x-extra-{extra}"),
                "{\"ignored\":[1,null]}".to_owned(),
            ));
        }
        if rng.random_bool(0.1) {
            fields[0].1 = fields[0].1.to_ascii_uppercase();
        }
        if rng.random_bool(0.3) {
            fields.shuffle(rng);
        }
        fields
    }

    /// The bytes of a record, in one of the spellings.
    #[must_use]
    pub fn bytes(&self, rng: &mut StdRng) -> Vec<u8> {
        let fields = self.varied_fields(rng);
        match rng.random_range(0..20) {
            0 => render(&fields, " \r\n\t"),
            1 => escaped_names(&fields),
            _ => render(&fields, ""),
        }
    }
}

/// An object of the fields, with `space` wherever white space may stand.
#[must_use]
pub fn render(fields: &Fields, space: &str) -> Vec<u8> {
    let members: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{space}{}{space}:{space}{value}{space}", quoted(name)))
        .collect();
    format!("{space}{{{}}}{space}", members.join(",")).into_bytes()
}

/// The same object with the first letter of every name written as an escape.
fn escaped_names(fields: &Fields) -> Vec<u8> {
    let members: Vec<String> = fields
        .iter()
        .map(|(name, value)| {
            format!(
                "\"\\u{:04x}{}\":{value}",
                u32::from(name.as_bytes()[0]),
                &name[1..]
            )
        })
        .collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}
