//! Generators of events, histories and damaged records for the property tests.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use run_events::{EventType, IdempotencyKey, LoggedEvent, Micros, RunEvent};
use serde_json::{Map, Value};
use uuid::Uuid;

const RUN_TYPES: [&str; 7] = [
    "RunQueued",
    "RunStarted",
    "RunPaused",
    "RunResumed",
    "RunCompleted",
    "RunFailed",
    "RunCancelled",
];
const STEP_TYPES: [&str; 4] = ["StepStarted", "StepCompleted", "StepFailed", "StepSkipped"];

/// The years 0000 to 9999, which are the times that a log can hold.
const STORABLE: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// Any valid event: ids of up to 256 bytes, all types, any payload.
pub(crate) fn valid_event() -> impl Strategy<Value = RunEvent> {
    let ids = (
        text(256, Pipe::May),
        text(256, Pipe::May),
        text(256, Pipe::May),
        text(256, Pipe::MayNot),
        text(256, Pipe::MayNot),
        text(256, Pipe::MayNot),
    );
    let numbers = (attempt(), attempt(), any::<u128>(), any::<[u8; 32]>());
    let payload = proptest::option::of(payload());
    (ids, numbers, STORABLE, type_and_step(), payload).prop_map(
        |(ids, numbers, emitted_at, (event_type, step_id), payload)| RunEvent {
            event_id: Uuid::from_u128(numbers.2),
            event_type,
            tenant_id: ids.0,
            project_id: ids.1,
            environment_id: ids.2,
            run_id: ids.3,
            plan_id: ids.4,
            plan_version: ids.5,
            engine_attempt_id: numbers.0,
            logical_attempt_id: numbers.1,
            idempotency_key: IdempotencyKey(numbers.3),
            emitted_at: Micros(emitted_at),
            step_id,
            payload,
        },
    )
}

fn attempt() -> impl Strategy<Value = i32> {
    prop_oneof![1..4_i32, 1..=i32::MAX, Just(i32::MAX)]
}

enum Pipe {
    May,
    MayNot,
}

/// 1 to `max_bytes` bytes without control characters; often exactly the limit, often in characters
/// of four bytes.
fn text(max_bytes: usize, pipe: Pipe) -> impl Strategy<Value = String> {
    let allowed = move |c: &char| !c.is_control() && (*c != '|' || matches!(pipe, Pipe::May));
    let any_char = prop_oneof![
        any::<char>(),
        proptest::char::range(' ', '~'),
        select(vec![
            '"',
            '\\',
            '/',
            '|',
            'é',
            '€',
            '😀',
            '\u{feff}',
            '\u{2028}',
            '\u{10ffff}'
        ]),
    ]
    .prop_filter("not allowed here", allowed);
    prop_oneof![
        4 => vec(any_char, 1..12),
        1 => Just(vec!['😀'; max_bytes / 4]),
        1 => Just(vec!['a'; max_bytes]),
        1 => Just(vec!['€'; max_bytes / 3]),
    ]
    .prop_map(String::from_iter)
}

fn type_and_step() -> impl Strategy<Value = (EventType, Option<String>)> {
    let step = || text(256, Pipe::MayNot);
    let unknown = prop_oneof![
        text(128, Pipe::MayNot),
        select(vec!["runStarted", "StepStarted ", "RUN"]).prop_map(str::to_owned),
    ];
    prop_oneof![
        select(RUN_TYPES.to_vec()).prop_map(|name| (name.to_owned(), None)),
        (select(STEP_TYPES.to_vec()), step()).prop_map(|(name, s)| (name.to_owned(), Some(s))),
        (unknown, proptest::option::of(step())),
    ]
    .prop_map(|(name, step_id)| (EventType::from_name(name), step_id))
}

/// Any payload that can be stored: every kind of number and text, nested, sometimes to the limit.
fn payload() -> impl Strategy<Value = Map<String, Value>> {
    let deepest = (0..128).fold(Value::Bool(true), |inner, level| match level {
        127 => Value::Object(Map::from_iter([("deep".to_owned(), inner)])),
        _ => Value::Array(vec![inner]),
    });
    let deepest = deepest.as_object().cloned().unwrap_or_default();
    let fields = btree_map(json_text(), json(), 0..6).prop_map(Map::from_iter);
    let named = json().prop_map(|value| {
        // Keys to which serde_json gives a meaning of its own in some builds.
        let keys = [
            "$serde_json::private::RawValue",
            "$serde_json::private::Number",
        ];
        Map::from_iter(keys.map(|key| (key.to_owned(), value.clone())))
    });
    prop_oneof![8 => fields, 1 => named, 1 => Just(deepest)]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        select(vec![i64::MIN, -1, 0, 1, (1 << 53) + 1, i64::MAX]).prop_map(Value::from),
        any::<f64>().prop_map(|double| match double.is_finite() {
            true => Value::from(double),
            false => Value::from(f64::MAX),
        }),
        select(vec![
            -0.0,
            1.0,
            0.1,
            1e21,
            1e-7,
            5e-324,
            f64::MAX,
            f64::MIN_POSITIVE
        ])
        .prop_map(Value::from),
        json_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(json_text(), inner, 0..6)
                .prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// Any text without U+0000; control characters and unpaired-looking ones included.
fn json_text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..8).prop_map(|text| text.into_iter().filter(|c| *c != '\0').collect())
}

/// A run's history with runSeqs 1, 2, 3 ...: a few steps and attempts, so that events meet; in
/// about the order that leads somewhere, and often not.
pub(crate) fn history() -> impl Strategy<Value = Vec<LoggedEvent>> {
    // A clock per partition: mostly forward, sometimes back.
    let told = (history_event(), -2_000_000..9_000_000_i64);
    vec(told, 1..50).prop_map(|told| {
        let mut at = 1_767_323_045_000_000;
        let number = |(run_seq, (event, passed))| {
            at += passed;
            LoggedEvent {
                run_seq,
                persisted_at: Micros(at),
                event,
            }
        };
        (1..).zip(told).map(number).collect()
    })
}

/// Any events at all in any order: gaps, repeats, seqs and times at the ends of their range; most
/// are the next in order, so that the extremes get applied.
pub(crate) fn any_sequence() -> impl Strategy<Value = Vec<LoggedEvent>> {
    let stray = prop_oneof![
        0..30_i64,
        any::<i64>(),
        select(vec![i64::MIN, -1, 0, i64::MAX - 1, i64::MAX]),
    ];
    let stray = proptest::option::weighted(0.3, stray);
    vec((stray, any_time(), any_time(), history_event()), 1..60).prop_map(|events| {
        let mut next = 1;
        let logged = |(stray, persisted_at, emitted_at, event): (Option<i64>, _, _, _)| {
            let run_seq = stray.unwrap_or(next);
            next += i64::from(run_seq == next);
            LoggedEvent {
                run_seq,
                persisted_at,
                event: RunEvent {
                    emitted_at,
                    ..event
                },
            }
        };
        events.into_iter().map(logged).collect()
    })
}

fn any_time() -> impl Strategy<Value = Micros> {
    prop_oneof![any::<i64>(), select(vec![i64::MIN, -1, 0, 1, i64::MAX])].prop_map(Micros)
}

fn history_event() -> impl Strategy<Value = RunEvent> {
    let run_event = prop_oneof![
        3 => select(vec!["RunQueued", "RunStarted", "RunPaused", "RunResumed", "RunNoted"]),
        1 => select(vec!["RunCompleted", "RunFailed", "RunCancelled"]),
    ]
    .prop_map(|name| (name, None));
    let step_event = (
        select(vec![
            "StepStarted",
            "StepCompleted",
            "StepFailed",
            "StepSkipped",
            "StepNoted",
        ]),
        proptest::option::weighted(0.98, select(vec!["a", "b", "é😀"])),
    );
    let payload = prop_oneof![
        Just(None),
        Just(Some(Map::new())),
        json().prop_map(|error| Some(Map::from_iter([("error".to_owned(), error)]))),
        payload().prop_map(Some),
    ];
    let kind = prop_oneof![2 => run_event, 3 => step_event];
    (kind, 1..4_i32, 1..9_i32, STORABLE, payload).prop_map(
        |((name, step_id), logical_attempt_id, engine_attempt_id, emitted_at, payload)| RunEvent {
            event_id: Uuid::nil(),
            event_type: EventType::from_name(name.to_owned()),
            tenant_id: "acme".to_owned(),
            project_id: format!("project-{engine_attempt_id}"),
            environment_id: "prod".to_owned(),
            run_id: "run-1".to_owned(),
            plan_id: "plan_abc".to_owned(),
            plan_version: "v2".to_owned(),
            engine_attempt_id,
            logical_attempt_id,
            idempotency_key: IdempotencyKey([7; 32]),
            emitted_at: Micros(emitted_at),
            step_id: step_id.map(str::to_owned),
            payload,
        },
    )
}

/// A way to damage a record's bytes.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
}

pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let token = select(vec![
        &b"\""[..],
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\u0000",
        b"\\ud800",
        b"null",
        b"1e999",
        b"-",
        b"\xff",
        b"\xe2\x82",
        b"\0",
        b"{\"a\":",
        b"\"runId\":1,",
    ])
    .prop_map(<[u8]>::to_vec);
    let damage = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), token).prop_map(|(at, token)| Damage::Insert(at, token)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, n)| Damage::Remove(at, n)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, n)| Damage::Repeat(at, n)),
        any::<Index>().prop_map(Damage::Cut),
    ];
    vec(damage, 1..4)
}

impl Damage {
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, token) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, token.iter().copied());
            }
            Self::Remove(at, n) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + n));
            }
            Self::Repeat(at, n) => {
                let at = at.index(bytes.len());
                let part = bytes[at..bytes.len().min(at + n)].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}
