//! A record's JSON text, built field by field, so that a test can also write what no JSON library
//! would: equal keys, `1e0`, lone surrogates.

/// A record as a list of (key, raw JSON value); keys are written as they are, escapes included.
#[derive(Clone)]
pub(crate) struct Record(Vec<(String, String)>);

impl Record {
    /// A valid StepStarted with every field.
    pub(crate) fn step() -> Self {
        let fields = [
            ("eventId", r#""0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b""#),
            ("eventType", r#""StepStarted""#),
            ("tenantId", r#""acme""#),
            ("projectId", r#""warehouse""#),
            ("environmentId", r#""prod""#),
            ("runId", r#""run-1""#),
            ("planId", r#""plan_abc""#),
            ("planVersion", r#""v2""#),
            ("engineAttemptId", "3"),
            ("logicalAttemptId", "2"),
            (
                "idempotencyKey",
                r#""0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef""#,
            ),
            ("emittedAt", r#""2026-01-02T03:04:05.123456Z""#),
            ("stepId", r#""model.orders""#),
            ("payload", r#"{"rows":7}"#),
        ];
        Self(fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    /// A valid event of this type without a step.
    pub(crate) fn run(event_type: &str) -> Self {
        Self::step()
            .with("eventType", format!("{event_type:?}"))
            .without("stepId")
    }

    /// The field with another value, or a new field at the end.
    pub(crate) fn with(mut self, key: &str, raw: impl Into<String>) -> Self {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some((_, value)) => *value = raw.into(),
            None => self.0.push((key.to_owned(), raw.into())),
        }
        self
    }

    /// One more field at the end, even where the key is there already.
    pub(crate) fn and(mut self, key: &str, raw: impl Into<String>) -> Self {
        self.0.push((key.to_owned(), raw.into()));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(k, _)| k != key);
        self
    }

    pub(crate) fn text(&self) -> String {
        let fields: Vec<String> = self.0.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

/// `levels` arrays, one in the other.
pub(crate) fn arrays(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// An object that, itself included, opens `levels` objects.
pub(crate) fn objects(levels: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}
