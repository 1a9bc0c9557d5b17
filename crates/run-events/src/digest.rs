//! The digests, which are built on canonical JSON (RFC 8785, [`crate::canonical`]).
//!
//! The content digest decides duplicate or conflict; the chain digest makes an edit of history
//! visible. Both are stored with every event by the log.

use std::fmt;

use serde::ser::{Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::canonical::{write_integer, write_object, write_text, write_value};
use crate::{IdempotencyKey, Micros, RunEvent};

/// A SHA-256. Its text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The chain digest before a run's first event: 32 zero bytes.
    pub const CHAIN_START: Self = Self([0; 32]);

    /// SHA-256 over the RFC 8785 form of `value`, whose numbers are doubles: 1 = 1.0. `None` where it has
    /// none, since a number is not finite.
    pub fn of_canonical(value: &Value) -> Option<Self> {
        let mut canonical = Vec::new();
        write_value(&mut canonical, value)?;
        Some(Self(Sha256::digest(canonical).into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What two events with the same key must have in common to be the same event (contract, "What
/// append guarantees"), borrowed from wherever the event is.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The type's name.
    pub event_type: &'a str,
    /// The step; absent = null.
    pub step_id: Option<&'a str>,
    /// The attempt as the plan counts it.
    pub logical_attempt_id: i32,
    /// The plan.
    pub plan_id: &'a str,
    /// The plan's version.
    pub plan_version: &'a str,
    /// The project.
    pub project_id: &'a str,
    /// The environment.
    pub environment_id: &'a str,
    /// What the producer attached; absent = null.
    pub payload: Option<&'a serde_json::Map<String, Value>>,
}

impl Content<'_> {
    /// What the canonical form of an ordinary event fits in: more costs another allocation.
    const ORDINARY_BYTES: usize = 512;

    /// SHA-256 over the RFC 8785 form. Numbers are doubles, so 1 = 1.0.
    ///
    /// `None` where a number of the payload is not finite; decoding refuses such a payload.
    pub fn digest(&self) -> Option<Digest> {
        Some(Digest(Sha256::digest(self.canonical()?).into()))
    }

    /// The object with these members, by name. Names are ASCII and stand here in their order.
    fn canonical(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(Self::ORDINARY_BYTES);
        out.extend_from_slice(b"{\"environmentId\":");
        write_text(&mut out, self.environment_id);
        out.extend_from_slice(b",\"eventType\":");
        write_text(&mut out, self.event_type);
        out.extend_from_slice(b",\"logicalAttemptId\":");
        write_integer(&mut out, self.logical_attempt_id.into());
        out.extend_from_slice(b",\"payload\":");
        match self.payload {
            Some(payload) => write_object(&mut out, payload)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"planId\":");
        write_text(&mut out, self.plan_id);
        out.extend_from_slice(b",\"planVersion\":");
        write_text(&mut out, self.plan_version);
        out.extend_from_slice(b",\"projectId\":");
        write_text(&mut out, self.project_id);
        out.extend_from_slice(b",\"stepId\":");
        match self.step_id {
            Some(step_id) => write_text(&mut out, step_id),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        Some(out)
    }
}

impl RunEvent {
    /// The digest of the event's [`Content`].
    pub fn content_digest(&self) -> Option<Digest> {
        let content = Content {
            event_type: self.event_type.as_str(),
            step_id: self.step_id.as_deref(),
            logical_attempt_id: self.logical_attempt_id,
            plan_id: &self.plan_id,
            plan_version: &self.plan_version,
            project_id: &self.project_id,
            environment_id: &self.environment_id,
            payload: self.payload.as_ref(),
        };
        content.digest()
    }
}

/// One link of a run's chain: SHA-256 over, in this order, the previous digest (32 bytes), runSeq
/// (8 bytes), eventId (16), idempotencyKey (32), emittedAt in microseconds (8), engineAttemptId (4)
/// and the content digest (32); integers big-endian.
pub fn chain_digest(
    previous: Digest,
    run_seq: i64,
    event_id: Uuid,
    key: IdempotencyKey,
    emitted_at: Micros,
    engine_attempt_id: i32,
    content: Digest,
) -> Digest {
    let mut hash = Sha256::new();
    hash.update(previous.0);
    hash.update(run_seq.to_be_bytes());
    hash.update(event_id.as_bytes());
    hash.update(key.0);
    hash.update(emitted_at.0.to_be_bytes());
    hash.update(engine_attempt_id.to_be_bytes());
    hash.update(content.0);
    Digest(hash.finalize().into())
}
