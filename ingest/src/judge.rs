//! Whether a record holds a valid event that its topic may bring. Pure: a function of the record and
//! the topic's rules, in the contract's order of checks.

use std::collections::HashSet;

use event_log::{Batch, Header};
use run_events::{Reason, Rejection, RunEvent, json};
use service::config::{Config, TopicConfig};

use crate::gather::Gathered;
use crate::raw_record::RawRecord;

/// What a topic's records have to keep.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The tenants that the topic may speak for; `None` = all.
    tenants: Option<HashSet<String>>,
    max_record_bytes: usize,
    strict_keys: bool,
}

/// What was noticed about an accepted record, or about those of a batch; worth counting.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noticed {
    /// Fields that the contract does not know.
    pub(crate) unknown_fields: u64,
    /// Idempotency keys that are not the derived ones.
    pub(crate) key_mismatches: u64,
    /// Kafka keys that are not the runId.
    pub(crate) foreign_record_keys: u64,
}

impl Noticed {
    pub(crate) fn of_all(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |mut sum, one| {
            sum.add(*one);
            sum
        })
    }

    fn add(&mut self, more: Self) {
        self.unknown_fields += more.unknown_fields;
        self.key_mismatches += more.key_mismatches;
        self.foreign_record_keys += more.foreign_record_keys;
    }
}

impl Rules {
    pub(crate) fn new(config: &Config, topic: &str) -> Self {
        let topic: Option<&TopicConfig> = config.ingest.topics.iter().find(|t| t.name == topic);
        let tenants = topic.and_then(|t| t.tenants.as_ref());
        Self {
            tenants: tenants.map(|names| names.iter().cloned().collect()),
            max_record_bytes: config.limits.max_record_bytes,
            strict_keys: config.ingest.strict_keys,
        }
    }

    /// The event in the record, or the first check that it fails.
    pub(crate) fn judge(&self, record: &RawRecord) -> Result<(RunEvent, Noticed), Rejection> {
        if let Some(refused) = &record.refused {
            return Err(refused.clone());
        }
        let bytes = record.bytes();
        if bytes > self.max_record_bytes {
            let detail = format!(
                "{bytes} bytes, more than limits.max_record_bytes = {}",
                self.max_record_bytes
            );
            return Err(Rejection::new(Reason::TooLarge, detail));
        }
        let Some(value) = &record.value else {
            return Err(Rejection::new(
                Reason::Tombstone,
                "the record has a null value",
            ));
        };
        let decoded = match format_of(value, &record.headers)? {
            Format::Json => json::decode(value),
        };
        let decoded = decoded.map_err(|rejection| self.disowned(rejection))?;
        let event = decoded.event;
        if !self.allows(&event.tenant_id) {
            let detail = "tenantId: this topic may not speak for the tenant (ingest.topics)";
            return Err(Rejection::new(Reason::TenantNotAllowed, detail));
        }
        let key_mismatch = event.derived_key() != event.idempotency_key;
        if key_mismatch && self.strict_keys {
            let detail = format!(
                "idempotencyKey: is not the derived key {}",
                event.derived_key()
            );
            return Err(Rejection::new(Reason::KeyMismatch, detail)
                .owned_by(Some(event.tenant_id), Some(event.run_id)));
        }
        let noticed = Noticed {
            unknown_fields: u64::from(decoded.unknown_fields),
            key_mismatches: u64::from(key_mismatch),
            foreign_record_keys: u64::from(record.key.as_deref() != Some(event.run_id.as_bytes())),
        };
        Ok((event, noticed))
    }

    /// The batch to append, and what was noticed about each of its records.
    pub(crate) fn batch(&self, gathered: Gathered) -> (Batch, Vec<Noticed>) {
        let mut all = Vec::with_capacity(gathered.records.len());
        let record = |raw: RawRecord| {
            let (verdict, noticed) = match self.judge(&raw) {
                Ok((event, noticed)) => (Ok(event), noticed),
                Err(rejection) => (Err(rejection), Noticed::default()),
            };
            all.push(noticed);
            raw.judged(verdict)
        };
        let batch = Batch {
            start: gathered.start,
            end: gathered.end,
            skipped: gathered.skipped,
            records: gathered.records.into_iter().map(record).collect(),
        };
        (batch, all)
    }

    fn allows(&self, tenant_id: &str) -> bool {
        self.tenants
            .as_ref()
            .is_none_or(|tenants| tenants.contains(tenant_id))
    }

    /// A dead letter names only a tenant that its topic may speak for.
    fn disowned(&self, rejection: Rejection) -> Rejection {
        match &rejection.tenant_id {
            Some(tenant_id) if !self.allows(tenant_id) => rejection.owned_by(None, None),
            None => rejection.owned_by(None, None),
            Some(_) => rejection,
        }
    }
}

enum Format {
    Json,
}

/// The value's format, by the `content-type` header, else by its first bytes.
fn format_of(value: &[u8], headers: &[Header]) -> Result<Format, Rejection> {
    const NO_SCHEMA: &str = "the value is Avro, and no Avro schema is known here: publish JSON";
    let header = headers
        .iter()
        .rev()
        .find(|h| h.name.eq_ignore_ascii_case(b"content-type"));
    let Some(header) = header else {
        return match value {
            [0, ..] | [0xC3, 0x01, ..] => Err(Rejection::new(Reason::UnknownSchema, NO_SCHEMA)),
            _ => Ok(Format::Json),
        };
    };
    let content_type = String::from_utf8_lossy(header.value.as_deref().unwrap_or_default());
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(Format::Json)
    } else if media_type.eq_ignore_ascii_case("application/vnd.runlog.run-event+avro") {
        Err(Rejection::new(Reason::UnknownSchema, NO_SCHEMA))
    } else {
        let detail = format!("content-type: {media_type:?} is not read here; use application/json");
        Err(Rejection::new(Reason::UnknownContentType, detail))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event_json(tenant: &str) -> String {
        format!(
            r#"{{"eventId":"018f6f3e-0000-7000-8000-000000000001","eventType":"RunStarted","tenantId":"{tenant}",
            "projectId":"p","environmentId":"e","runId":"run-1","planId":"plan","planVersion":"v1",
            "engineAttemptId":1,"logicalAttemptId":1,
            "idempotencyKey":"7f4b974658a54fb2aee9ecb9cefebd2eec27f3fd01f0f8c0d031dfc4a5b96e3c",
            "emittedAt":"2026-01-01T00:00:00Z","later":1}}"#
        )
    }

    fn record(value: &str) -> RawRecord {
        RawRecord {
            offset: 0,
            timestamp_ms: None,
            key: Some(b"run-1".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
            refused: None,
        }
    }

    fn with_content_type(value: &str, content_type: &str) -> RawRecord {
        let header = Header {
            name: b"Content-Type".to_vec(),
            value: Some(content_type.as_bytes().to_vec()),
        };
        RawRecord {
            headers: vec![header],
            ..record(value)
        }
    }

    fn rules() -> Rules {
        Rules {
            tenants: None,
            max_record_bytes: 1 << 20,
            strict_keys: false,
        }
    }

    fn reason(result: Result<(RunEvent, Noticed), Rejection>) -> Reason {
        result.unwrap_err().reason
    }

    #[test]
    fn an_accepted_record_is_noticed_for_what_is_odd_about_it() {
        let (event, noticed) = rules().judge(&record(&event_json("acme"))).unwrap();
        assert_eq!(event.run_id, "run-1");
        assert_eq!(
            noticed,
            Noticed {
                unknown_fields: 1,
                key_mismatches: 1,
                foreign_record_keys: 0
            }
        );
        let other = RawRecord {
            key: None,
            ..record(&event_json("acme"))
        };
        assert_eq!(rules().judge(&other).unwrap().1.foreign_record_keys, 1);
    }

    #[test]
    fn the_content_type_decides_the_format_and_its_parameters_do_not() {
        let json = event_json("acme");
        assert!(
            rules()
                .judge(&with_content_type(&json, "application/json; charset=utf-8"))
                .is_ok()
        );
        assert_eq!(
            reason(rules().judge(&with_content_type(&json, "text/plain"))),
            Reason::UnknownContentType
        );
        let avro = "application/vnd.runlog.run-event+avro";
        assert_eq!(
            reason(rules().judge(&with_content_type(&json, avro))),
            Reason::UnknownSchema
        );
    }

    #[test]
    fn without_a_content_type_the_first_bytes_decide() {
        for (value, expected) in [
            (&b"\0\0\0\0\x01abc"[..], Reason::UnknownSchema),
            (&b"\xC3\x01abc"[..], Reason::UnknownSchema),
            (&b"abc"[..], Reason::InvalidJson),
            (&b""[..], Reason::InvalidJson),
        ] {
            let record = RawRecord {
                value: Some(value.to_vec()),
                ..record("")
            };
            assert_eq!(reason(rules().judge(&record)), expected, "{value:?}");
        }
    }

    #[test]
    fn size_comes_before_everything_and_a_null_value_is_a_tombstone() {
        let small = Rules {
            max_record_bytes: 10,
            ..rules()
        };
        assert_eq!(
            reason(small.judge(&record("not json at all"))),
            Reason::TooLarge
        );
        assert_eq!(
            reason(rules().judge(&RawRecord {
                value: None,
                ..record("")
            })),
            Reason::Tombstone
        );
    }

    #[test]
    fn a_batch_that_is_judged_again_gets_the_same_verdicts() {
        let valid = record(&event_json("acme"));
        let refused = RawRecord {
            refused: Some(Rejection::new(Reason::TooLarge, "too many headers")),
            ..valid.clone()
        };
        let at = |offset, raw: &RawRecord| RawRecord {
            offset,
            ..raw.clone()
        };
        let gathered = Gathered {
            start: 0,
            end: 4,
            skipped: 1,
            records: vec![at(0, &valid), at(2, &refused), at(3, &record("{"))],
        };
        let verdicts = |batch: &Batch| -> Vec<_> {
            let verdict =
                |r: &event_log::Record| r.verdict.as_ref().map(drop).map_err(|e| e.reason);
            batch.records.iter().map(verdict).collect()
        };
        let (first, noticed) = rules().batch(gathered);
        let expected = [Ok(()), Err(Reason::TooLarge), Err(Reason::InvalidJson)];
        assert_eq!(verdicts(&first), expected);
        let (again, noticed_again) = rules().batch(Gathered::unjudged(first));
        assert_eq!(verdicts(&again), expected);
        assert_eq!(noticed, noticed_again);
        assert_eq!((again.start, again.end, again.skipped), (0, 4, 1));
        assert_eq!(again.records[0].value, valid.value);
    }

    #[test]
    fn a_topic_speaks_only_for_its_tenants_and_a_dead_letter_names_no_other() {
        let bound = Rules {
            tenants: Some(HashSet::from(["acme".to_owned()])),
            ..rules()
        };
        assert!(bound.judge(&record(&event_json("acme"))).is_ok());
        let rejection = bound.judge(&record(&event_json("globex"))).unwrap_err();
        assert_eq!(rejection.reason, Reason::TenantNotAllowed);
        assert_eq!(rejection.tenant_id, None);
        let broken = event_json("globex").replace("RunStarted", "");
        let rejection = bound.judge(&record(&broken)).unwrap_err();
        assert_eq!(
            (rejection.reason, rejection.tenant_id),
            (Reason::InvalidEvent, None)
        );
        let broken = event_json("acme").replace("RunStarted", "");
        assert_eq!(
            bound
                .judge(&record(&broken))
                .unwrap_err()
                .tenant_id
                .as_deref(),
            Some("acme")
        );
    }

    #[test]
    fn a_key_that_is_not_derived_is_refused_only_in_strict_mode() {
        let strict = Rules {
            strict_keys: true,
            ..rules()
        };
        assert_eq!(
            reason(strict.judge(&record(&event_json("acme")))),
            Reason::KeyMismatch
        );
    }
}
