//! What to do with each record of a batch: a pure function of the records and of what is known of
//! their runs. The fast path knows from the cache, the checked path from the database; both decide
//! here, so they cannot differ in their rules (contract, "What append guarantees").

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use chrono::{DateTime, Utc};
use run_events::digest::chain_digest;
use run_events::{Digest, IdempotencyKey, Reason, Rejection, RunEvent};
use uuid::Uuid;

use crate::record::{Original, Outcome, Record};
use crate::run_cache::{KnownKey, KnownRun, run_name};

/// The batch, digested once however often it is tried.
pub(crate) struct Prepared<'b> {
    pub(crate) records: Vec<PreparedRecord<'b>>,
    /// The distinct runs of the batch, as (tenant, run).
    pub(crate) runs: Vec<(&'b str, &'b str)>,
    /// Their cache names, in the same order.
    pub(crate) names: Vec<String>,
}

pub(crate) struct PreparedRecord<'b> {
    pub(crate) record: &'b Record,
    pub(crate) event: Option<PreparedEvent<'b>>,
}

#[derive(Clone, Copy)]
pub(crate) struct PreparedEvent<'b> {
    pub(crate) event: &'b RunEvent,
    pub(crate) content: Digest,
    /// Index into [`Prepared::runs`].
    pub(crate) run: usize,
}

impl<'b> Prepared<'b> {
    pub(crate) fn new(records: &'b [Record]) -> Self {
        let mut index: HashMap<(&str, &str), usize> = HashMap::new();
        let mut runs = Vec::new();
        let mut prepare = |event: &'b RunEvent| {
            let content = event.content_digest()?;
            if !is_storable(&event.tenant_id) || !is_storable(&event.run_id) {
                return None;
            }
            let name = (event.tenant_id.as_str(), event.run_id.as_str());
            let run = *index.entry(name).or_insert_with(|| {
                runs.push(name);
                runs.len() - 1
            });
            Some(PreparedEvent {
                event,
                content,
                run,
            })
        };
        let records = records
            .iter()
            .map(|record| PreparedRecord {
                record,
                event: record.verdict.as_ref().ok().and_then(&mut prepare),
            })
            .collect();
        let names = runs.iter().map(|(t, r)| run_name(t, r)).collect();
        Self {
            records,
            runs,
            names,
        }
    }
}

/// A run while a batch is decided: what is known of it, and what the batch adds.
pub(crate) struct StagedRun<'k> {
    known: &'k KnownRun,
    pub(crate) head_seq: i64,
    pub(crate) chain: Digest,
    /// Keys that the batch adds, or that were looked up for it.
    pub(crate) new_keys: HashMap<IdempotencyKey, KnownKey>,
}

impl<'k> StagedRun<'k> {
    pub(crate) fn new(known: &'k KnownRun) -> Self {
        Self {
            known,
            head_seq: known.head_seq,
            chain: known.chain,
            new_keys: HashMap::new(),
        }
    }

    /// The run's number, if the log may hold this key without its being known here.
    pub(crate) fn lacks(&self, key: &IdempotencyKey) -> Option<i64> {
        (!self.known.is_whole && self.key(key).is_none()).then_some(self.known.run_no)
    }

    fn key(&self, key: &IdempotencyKey) -> Option<&KnownKey> {
        self.new_keys.get(key).or_else(|| self.known.keys.get(key))
    }
}

/// A row of `event_log.event` to be.
pub(crate) struct NewEvent<'b> {
    pub(crate) run_no: i64,
    pub(crate) run_seq: i64,
    pub(crate) source_offset: i64,
    pub(crate) event: &'b RunEvent,
    pub(crate) content: Digest,
    /// The chain digest of the event before it in its run, as it was believed to be.
    pub(crate) previous_chain: Digest,
    pub(crate) chain: Digest,
}

/// A row of `event_log.dead_letter` to be.
pub(crate) struct NewDeadLetter<'b> {
    pub(crate) record: &'b Record,
    pub(crate) rejection: Rejection,
}

/// What to write, and what became of each record, in order.
#[derive(Default)]
pub(crate) struct Decision<'b> {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) events: Vec<NewEvent<'b>>,
    pub(crate) dead_letters: Vec<NewDeadLetter<'b>>,
}

impl<'b> Decision<'b> {
    pub(crate) fn reject(&mut self, record: &'b Record, rejection: Rejection, outcome: Outcome) {
        self.dead_letters.push(NewDeadLetter { record, rejection });
        self.outcomes.push(outcome);
    }

    /// Takes over what was decided for the records that follow.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.outcomes.append(&mut next.outcomes);
        self.events.append(&mut next.events);
        self.dead_letters.append(&mut next.dead_letters);
    }
}

/// Decides the records of `range` in order. `runs` is parallel to [`Prepared::runs`] and takes what
/// the batch adds; `used_ids` are event ids that the log is known to hold.
pub(crate) fn decide<'b>(
    prepared: &Prepared<'b>,
    range: Range<usize>,
    runs: &mut [StagedRun<'_>],
    used_ids: &HashSet<Uuid>,
    persisted_at: DateTime<Utc>,
) -> Decision<'b> {
    let mut decision = Decision::default();
    let mut batch_ids = HashSet::with_capacity(range.len());
    for PreparedRecord { record, event } in &prepared.records[range] {
        let Some(prepared_event) = event else {
            let rejection = rejection_of(record);
            let outcome = Outcome::DeadLetter(rejection.reason);
            decision.reject(record, rejection, outcome);
            continue;
        };
        let event = prepared_event.event;
        let run = &mut runs[prepared_event.run];
        if run.known.is_retired {
            let outcome = Outcome::DeadLetter(Reason::RunRetired);
            decision.reject(record, run_retired(event), outcome);
        } else if let Some(known) = run.key(&event.idempotency_key) {
            let original = known.original;
            if known.content == prepared_event.content {
                decision.outcomes.push(Outcome::Duplicate(original));
            } else {
                decision.reject(
                    record,
                    conflict(event, original),
                    Outcome::Conflict(original),
                );
            }
        } else if used_ids.contains(&event.event_id) || !batch_ids.insert(event.event_id) {
            let outcome = Outcome::DeadLetter(Reason::EventIdReused);
            decision.reject(record, event_id_reused(event), outcome);
        } else {
            let new = next_event(run, prepared_event, record.offset, persisted_at);
            decision.outcomes.push(Outcome::Appended {
                run_seq: new.run_seq,
            });
            decision.events.push(new);
        }
    }
    decision
}

fn next_event<'b>(
    run: &mut StagedRun<'_>,
    prepared: &PreparedEvent<'b>,
    source_offset: i64,
    persisted_at: DateTime<Utc>,
) -> NewEvent<'b> {
    let event = prepared.event;
    let previous_chain = run.chain;
    run.head_seq += 1;
    run.chain = chain_digest(
        previous_chain,
        run.head_seq,
        event.event_id,
        event.idempotency_key,
        event.emitted_at,
        event.engine_attempt_id,
        prepared.content,
    );
    let original = Original {
        event_id: event.event_id,
        run_seq: run.head_seq,
        persisted_at,
    };
    let content = prepared.content;
    run.new_keys
        .insert(event.idempotency_key, KnownKey { content, original });
    NewEvent {
        run_no: run.known.run_no,
        run_seq: run.head_seq,
        source_offset,
        event,
        content,
        previous_chain,
        chain: run.chain,
    }
}

/// Why a record has no [`PreparedEvent`]. Validation lets no event come here that has none; if one
/// does, the run cannot be numbered, or the content cannot be compared.
fn rejection_of(record: &Record) -> Rejection {
    match &record.verdict {
        Err(rejection) => rejection.clone(),
        Ok(event) => unstorable(
            event,
            "the payload has no canonical form, or the tenantId or runId holds U+0000",
        ),
    }
}

/// Whether the database can hold the text. The names of cached runs rely on it too.
pub(crate) fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// The rejection of a valid event that the database cannot hold.
pub(crate) fn unstorable(event: &RunEvent, detail: &str) -> Rejection {
    owned(event, Rejection::new(Reason::Unstorable, detail))
}

fn conflict(event: &RunEvent, original: Original) -> Rejection {
    let detail = format!(
        "idempotencyKey: the run holds this key with other content, as runSeq {} with eventId {}",
        original.run_seq, original.event_id
    );
    owned(event, Rejection::new(Reason::IdempotencyConflict, detail))
}

/// Duplicate or not, nobody can tell any more.
fn run_retired(event: &RunEvent) -> Rejection {
    let detail = "runId: the run was retired from the log, which takes no more events of it";
    owned(event, Rejection::new(Reason::RunRetired, detail))
}

/// Does not say who holds the id: that may be another tenant.
fn event_id_reused(event: &RunEvent) -> Rejection {
    let detail = format!(
        "eventId: the log holds {} for another event",
        event.event_id
    );
    owned(event, Rejection::new(Reason::EventIdReused, detail))
}

fn owned(event: &RunEvent, rejection: Rejection) -> Rejection {
    rejection.owned_by(Some(event.tenant_id.clone()), Some(event.run_id.clone()))
}
