//! One run's events, judged in runSeq order: the sequence, the content digests, the chain, and the
//! order of offsets. Pure. Fed by [`super::log`].
//!
//! A chain digest that does not follow may have three causes: the event's own fields were changed, its
//! chain_digest was, or the event before it was replaced together with its digests. What the *next*
//! event's digest was computed from tells the first two apart, so the verdict waits for it.

use std::collections::BTreeMap;

use run_events::digest::chain_digest;
use run_events::{Digest, IdempotencyKey, Micros};
use uuid::Uuid;

use super::finding::Kind;

/// An event, as far as it is judged. What has not the form of a digest or key is `None`: it fits nothing.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) run_seq: i64,
    pub(crate) stream_id: i64,
    pub(crate) source_offset: i64,
    pub(crate) event_id: Uuid,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) emitted_at: Micros,
    pub(crate) engine_attempt_id: i32,
    /// Of the event's own columns; `None` where they have no canonical form.
    pub(crate) content: Option<Digest>,
    pub(crate) content_digest: Option<Digest>,
    pub(crate) chain_digest: Option<Digest>,
    /// Whether the payload is gone, by a record of its erasure: then the content may be another, and nobody
    /// can tell what it was. The chain still tells whether content_digest is what was appended.
    pub(crate) is_erased: bool,
}

impl Event {
    /// What its chain digest ought to be after `before`, with this content digest.
    fn link(&self, before: Digest, content: Option<Digest>) -> Option<Digest> {
        let (key, content) = (self.key?, content?);
        Some(chain_digest(
            before,
            self.run_seq,
            self.event_id,
            key,
            self.emitted_at,
            self.engine_attempt_id,
            content,
        ))
    }

    fn follows(&self, before: Option<Digest>, content: Option<Digest>) -> bool {
        let link = before.and_then(|before| self.link(before, content));
        link.is_some() && link == self.chain_digest
    }
}

/// What is wrong at one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) run_seq: i64,
    pub(crate) what: String,
}

/// An event whose chain digest does not follow; the next event tells more.
#[derive(Debug, Clone, Copy)]
struct Doubtful {
    run_seq: i64,
    /// What its chain digest ought to be.
    expected: Option<Digest>,
}

/// What the event before a doubtful one's successor was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Stored,
    Expected,
    Neither,
}

/// A run while it is read.
#[derive(Debug)]
pub(crate) struct RunCheck {
    next_seq: i64,
    /// The chain digest of the last event, as it is stored; `None` = it was missing or is no digest.
    head: Option<Digest>,
    doubtful: Option<Doubtful>,
    /// Of each stream the last event's offset and runSeq.
    offsets: BTreeMap<i64, (i64, i64)>,
    pub(crate) faults: Vec<Fault>,
    /// Events whose content cannot be compared, since their payloads were erased.
    pub(crate) erased: u64,
}

impl RunCheck {
    pub(crate) fn new() -> Self {
        Self {
            next_seq: 1,
            head: Some(Digest::CHAIN_START),
            doubtful: None,
            offsets: BTreeMap::new(),
            faults: Vec::new(),
            erased: 0,
        }
    }

    /// The run's last event: its runSeq and its chain digest as stored.
    pub(crate) fn head(&self) -> (i64, Option<Digest>) {
        (self.next_seq - 1, self.head)
    }

    /// Judges the next event.
    pub(crate) fn event(&mut self, event: &Event) {
        if event.run_seq < self.next_seq {
            // The primary key and a CHECK must have been dropped for that.
            let what = format!("runSeq {} is there twice, or below 1", event.run_seq);
            return self.fault(Kind::RunSeq, event.run_seq, what);
        }
        if event.run_seq > self.next_seq {
            self.hole(event.run_seq);
        }
        self.offset(event);
        let from = self.content_and_chain(event);
        self.settle(from.unwrap_or(From::Neither));
        if from == Some(From::Neither) {
            self.doubtful = Some(Doubtful {
                run_seq: event.run_seq,
                expected: self
                    .head
                    .and_then(|before| event.link(before, event.content_digest)),
            });
        }
        self.head = event.chain_digest;
        self.next_seq = event.run_seq + 1;
    }

    /// Judges what was left open: there are no more events.
    pub(crate) fn end(&mut self) {
        self.settle(From::Neither);
    }

    /// The content digest, and which digest before it the event's chain follows on; `None` = that of a
    /// missing event.
    fn content_and_chain(&mut self, event: &Event) -> Option<From> {
        let mut fits = event.content.is_some() && event.content == event.content_digest;
        if !fits && event.is_erased && event.content_digest.is_some() {
            fits = true;
            self.erased += 1;
        }
        let expected = self.doubtful.and_then(|doubtful| doubtful.expected);
        let mut from = From::Neither;
        for (before, is) in [(self.head, From::Stored), (expected, From::Expected)] {
            if event.follows(before, event.content_digest) {
                from = is;
                break;
            }
            if !fits && event.follows(before, event.content) {
                let what = "content_digest is not what was appended; the content is";
                self.at(event.run_seq, Kind::Content, what);
                return Some(is);
            }
        }
        if !fits {
            let what = "its content is not what was appended (content_digest)";
            self.at(event.run_seq, Kind::Content, what);
        }
        let is_unknown = self.head.is_none() && expected.is_none() && event.chain_digest.is_some();
        (!is_unknown).then_some(from)
    }

    /// Says what is wrong with the event that is in doubt, by what the next one was computed from.
    fn settle(&mut self, from: From) {
        let Some(Doubtful { run_seq, .. }) = self.doubtful.take() else {
            return;
        };
        match from {
            From::Stored => {
                let before = match run_seq {
                    1 => String::new(),
                    _ => format!(", or runSeq {} was replaced", run_seq - 1),
                };
                let what = format!(
                    "eventId, idempotencyKey, emittedAt or engineAttemptId is not what was appended (chain_digest){before}"
                );
                self.at(run_seq, Kind::Chain, &what);
            }
            From::Expected => {
                let what = "chain_digest is not what was appended; what it is made of is";
                self.at(run_seq, Kind::Chain, what);
            }
            From::Neither => {
                let what = match run_seq {
                    1 => "the chain breaks at runSeq 1 (chain_digest)".to_owned(),
                    _ => format!(
                        "the chain breaks between runSeq {} and {run_seq} (chain_digest)",
                        run_seq - 1
                    ),
                };
                self.fault(Kind::Chain, run_seq, what);
            }
        }
    }

    /// Events before `run_seq` are missing; nothing is known of the chain there.
    fn hole(&mut self, run_seq: i64) {
        self.settle(From::Neither);
        let (first, last) = (self.next_seq, run_seq - 1);
        self.fault(Kind::RunSeq, first, missing(first, last));
        self.head = None;
    }

    /// Within a stream the offsets rise with runSeq (invariant I4).
    fn offset(&mut self, event: &Event) {
        let place = (event.source_offset, event.run_seq);
        if let Some((offset, run_seq)) = self.offsets.insert(event.stream_id, place)
            && offset >= event.source_offset
        {
            let what = format!(
                "its Kafka offset {} is not above {offset}, that of runSeq {run_seq}",
                event.source_offset
            );
            self.at(event.run_seq, Kind::Offset, &what);
        }
    }

    fn at(&mut self, run_seq: i64, kind: Kind, what: &str) {
        self.fault(kind, run_seq, format!("runSeq {run_seq}: {what}"));
    }

    pub(crate) fn fault(&mut self, kind: Kind, run_seq: i64, what: String) {
        self.faults.push(Fault {
            kind,
            run_seq,
            what,
        });
    }
}

/// That events are missing, in words.
pub(crate) fn missing(first: i64, last: i64) -> String {
    if first == last {
        format!("runSeq {first} is missing")
    } else {
        format!("runSeq {first} to {last} are missing")
    }
}
