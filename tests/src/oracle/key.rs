//! The idempotency key, derived as the contract says (section "The event").
//!
//! Called by the generator, which needs honest keys. The oracle itself takes the key as sent: a
//! key that does not match its derivation is still a unique key.

use sha2::{Digest, Sha256};

/// The parts that make a key, in the order in which they are hashed.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// `runId`.
    pub run_id: &'a str,
    /// `stepId`; `None` for an event of the run itself.
    pub step_id: Option<&'a str>,
    /// `logicalAttemptId`.
    pub logical_attempt_id: i64,
    /// `eventType`.
    pub event_type: &'a str,
    /// `planId`.
    pub plan_id: &'a str,
    /// `planVersion`.
    pub plan_version: &'a str,
}

/// 64 lower-case hex digits: SHA-256 of the parts joined by `|`, with `RUN` for no step.
#[must_use]
pub fn derive(parts: KeyParts<'_>) -> String {
    let text = format!(
        "{}|{}|{}|{}|{}|{}",
        parts.run_id,
        parts.step_id.unwrap_or("RUN"),
        parts.logical_attempt_id,
        parts.event_type,
        parts.plan_id,
        parts.plan_version
    );
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{KeyParts, derive};

    /// The contract's table labels these plan versions `v2`, `v2`, `v2`, `v3` and `v1`, but its five
    /// digests come out of its formula only with `2`, `2`, `2`, `3` and `1`. The formula and the
    /// digests are taken as they stand here; which planVersion text was meant is an open question.
    #[test]
    fn golden_digests_of_the_contract_come_out_of_its_formula() {
        let vectors = [
            (
                Some("model.orders"),
                1,
                "StepStarted",
                "2",
                "7f4b974658a54fb2aee9ecb9cefebd2eec27f3fd01f0f8c0d031dfc4a5b96e3c",
            ),
            (
                None,
                1,
                "RunStarted",
                "2",
                "204197f81e5dc1a8491d8e411c440a730c51a741cd48a74863d3e5c4c452640d",
            ),
            (
                Some("model.orders"),
                2,
                "StepFailed",
                "2",
                "599945c1a8023ece5d2ae5132a4397b8cfbe9fa1c4c08d6fc4193a9bd9a2ebcd",
            ),
            (
                None,
                1,
                "RunFailed",
                "3",
                "b5a178e6f30962ca3d17b573c0d4c5f96d7623be5fe62a972644785fc05a003b",
            ),
            (
                Some("seed.customers"),
                1,
                "StepSkipped",
                "1",
                "6bfdbe26d62eac0c00cf2683aae31115e76e4d33d515e39957627be091367b31",
            ),
        ];
        for (step_id, logical_attempt_id, event_type, plan_version, expected) in vectors {
            let parts = KeyParts {
                run_id: "0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a",
                step_id,
                logical_attempt_id,
                event_type,
                plan_id: "plan_abc",
                plan_version,
            };
            assert_eq!(derive(parts), expected, "{parts:?}");
        }
    }
}
