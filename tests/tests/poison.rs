//! Records that could stop a consumer, and must not: every row of what faults this system has to
//! survive, with its bytes. All of them go through one transaction, each with good neighbours, and each
//! has a test of its own for what became of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use runlog_tests::generator::generate;
use runlog_tests::oracle::table::report;
use runlog_tests::wire::{self, RawRecord};
use runlog_tests::{Pipeline, Process};
use tokio::sync::OnceCell;
use uuid::Uuid;

const DRAINED: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// What must become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Appended,
    /// Reason, and a part of the detail.
    DeadLetter(&'static str, &'static str),
}

use Fate::{Appended, DeadLetter};

/// The fields of a valid event, one of them replaced by raw JSON, or one more.
fn with(name: &str, raw: &str) -> Vec<u8> {
    let mut fields = BTreeMap::from([
        ("eventId", quoted(&Uuid::new_v4().to_string())),
        ("eventType", quoted("Note")),
        ("tenantId", quoted("acme")),
        ("projectId", quoted("p")),
        ("environmentId", quoted("e")),
        ("runId", quoted("run")),
        ("planId", quoted("plan")),
        ("planVersion", quoted("v1")),
        ("engineAttemptId", "1".to_owned()),
        ("logicalAttemptId", "1".to_owned()),
        (
            "idempotencyKey",
            quoted(&hex::encode([*Uuid::new_v4().as_bytes(), [7; 16]].concat())),
        ),
        ("emittedAt", quoted("2026-01-01T00:00:00Z")),
    ]);
    fields.insert(name, raw.to_owned());
    let members: Vec<String> = fields
        .iter()
        .map(|(name, raw)| format!("\"{name}\":{raw}"))
        .collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn value(bytes: impl Into<Vec<u8>>) -> RawRecord {
    RawRecord {
        key: Some(b"run".to_vec()),
        value: Some(bytes.into()),
        headers: Vec::new(),
    }
}

fn payload(raw: &str) -> RawRecord {
    value(with("payload", raw))
}

fn good() -> RawRecord {
    payload("{\"good\":true}")
}

fn headed(headers: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> RawRecord {
    RawRecord { headers, ..good() }
}

fn of_type(content_type: &str, bytes: impl Into<Vec<u8>>) -> RawRecord {
    let header = (
        b"content-type".to_vec(),
        Some(content_type.as_bytes().to_vec()),
    );
    RawRecord {
        headers: vec![header],
        ..value(bytes)
    }
}

/// What became of one record.
#[derive(Debug)]
struct Became {
    sent: RawRecord,
    appended: bool,
    /// Reason, detail, key, value, and the headers as they are kept.
    dead_letters: Vec<Letter>,
}

type Letter = (
    String,
    String,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    serde_json::Value,
);

/// What became of all of them.
struct Outcome {
    poison: BTreeMap<&'static str, Became>,
    /// Good neighbours, and how many of them are events.
    neighbours: (usize, usize),
    /// Distinct times of rows: each transaction has one.
    transactions: i64,
    peak_memory: u64,
    exit_code: Option<i32>,
}

static OUTCOME: OnceCell<Outcome> = OnceCell::const_new();

async fn outcome() -> &'static Outcome {
    OUTCOME.get_or_init(send_all).await
}

async fn send_all() -> Outcome {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let send = |record: &RawRecord| {
        let bootstrap = &pipeline.environment.kafka;
        wire::send(bootstrap, &pipeline.topic.name, 0, record).unwrap()
    };
    let rows = rows();
    let (mut poison, mut neighbours) = (Vec::new(), vec![send(&good())]);
    for (name, record) in rows {
        let offset = send(&record);
        poison.push((name, record, offset));
        neighbours.push(send(&good()));
    }
    let count = neighbours.len() + poison.len();
    let mut program = pipeline.program("runlog-ingest");
    program
        // All of it is one batch, and the batch is complete when the last record is there.
        .env("RUNLOG_INGEST__BATCH__MAX_EVENTS", count.to_string())
        .env("RUNLOG_INGEST__BATCH__MAX_BYTES", "64MiB")
        .env("RUNLOG_INGEST__BATCH__LINGER", "10s");
    let ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();
    pipeline.wait_ingested(DRAINED).await.unwrap();
    let peak_memory = ingest.peak_memory().unwrap();
    eprintln!("{count} records, VmHWM {} MiB", peak_memory >> 20);
    let pool = &pipeline.database.pool;
    let appended: Vec<i64> = sqlx::query_scalar("SELECT source_offset FROM event_log.run_events")
        .fetch_all(pool)
        .await
        .unwrap();
    let mut became = BTreeMap::new();
    for (name, sent, offset) in poison {
        let dead_letters = sqlx::query_as(
            "SELECT reason, detail, key, value, headers FROM event_log.dead_letters WHERE source_offset = $1",
        )
        .bind(offset)
        .fetch_all(pool)
        .await
        .unwrap();
        let appended = appended.contains(&offset);
        let one = Became {
            sent,
            appended,
            dead_letters,
        };
        assert!(became.insert(name, one).is_none(), "{name} stands twice");
    }
    let transactions = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT persisted_at FROM event_log.run_events
                               UNION SELECT received_at FROM event_log.dead_letters) times",
    );
    Outcome {
        poison: became,
        neighbours: (
            neighbours.len(),
            neighbours.iter().filter(|n| appended.contains(n)).count(),
        ),
        transactions: transactions.fetch_one(pool).await.unwrap(),
        peak_memory,
        exit_code: ingest.terminate().await.unwrap().code(),
    }
}

/// As `event_log.dead_letters.headers` has them.
fn kept(headers: &[(Vec<u8>, Option<Vec<u8>>)]) -> serde_json::Value {
    let text = |bytes: &Vec<u8>| base64(bytes);
    let one = |(name, value): &(Vec<u8>, Option<Vec<u8>>)| serde_json::json!({ "name": text(name), "value": value.as_ref().map(text) });
    headers.iter().map(one).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, n| {
            bits << 8 | usize::from(chunk.get(n).copied().unwrap_or(0))
        });
        for n in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * n) & 63];
            text.push(if n <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}

/// Headers that a dead letter keeps.
const KEPT_HEADERS: usize = 1_000;

async fn assert_became(name: &str, fate: Fate) {
    let became = &outcome().await.poison[name];
    match fate {
        Appended => {
            assert!(became.appended, "{name}: {:?}", became.dead_letters);
            assert!(became.dead_letters.is_empty(), "{name}");
        }
        DeadLetter(reason, part) => {
            assert!(!became.appended, "{name}");
            let [(found, detail, key, value, headers)] = &became.dead_letters[..] else {
                panic!("{name}: {} dead letters", became.dead_letters.len());
            };
            assert_eq!(found, reason, "{name}: {detail}");
            assert!(
                detail.contains(part),
                "{name}: {part:?} is not in {detail:?}"
            );
            assert!(detail.len() <= 1024 && !detail.contains(char::is_control));
            assert!(*key == became.sent.key, "{name}: another key");
            assert!(*value == became.sent.value, "{name}: another value");
            let first = &became.sent.headers[..became.sent.headers.len().min(KEPT_HEADERS)];
            assert!(*headers == kept(first), "{name}: other headers");
        }
    }
}

/// A test for each record, and the list of all of them.
macro_rules! poison {
    ($($name:ident: $record:expr => $fate:expr;)*) => {
        fn rows() -> Vec<(&'static str, RawRecord)> {
            vec![$((stringify!($name), $record)),*]
        }
        $(
            #[tokio::test]
            async fn $name() {
                assert_became(stringify!($name), $fate).await;
            }
        )*
    };
}

poison! {
    bad_json: value("{\"eventId\":") => DeadLetter("invalid_json", "EOF");
    empty_value: value("") => DeadLetter("invalid_json", "EOF");
    null_value: RawRecord { value: None, ..good() } => DeadLetter("tombstone", "null");
    invalid_utf8: value({
        let mut bytes = with("payload", "{\"a\":\"?\"}");
        let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
        bytes[at] = 0xff;
        bytes
    }) => DeadLetter("invalid_json", "UTF-8");
    duplicate_keys: payload("{\"a\":1,\"a\":2}") => DeadLetter("invalid_json", "twice");
    duplicate_fields: value({
        let mut text = with("planId", "\"plan\"");
        text.pop();
        [&text[..], b",\"planId\":\"other\"}"].concat()
    }) => DeadLetter("invalid_json", "planId");
    nul_in_the_payload: payload(r#"{"a":"b\u0000"}"#) => DeadLetter("unstorable", "payload");
    nul_in_the_tenant: value(with("tenantId", r#""a\u0000b""#)) => DeadLetter("invalid_event", "tenantId");
    nul_in_the_run: value(with("runId", r#""a\u0000b""#)) => DeadLetter("invalid_event", "runId");
    nul_in_the_step: value(with("stepId", r#""a\u0000b""#)) => DeadLetter("invalid_event", "stepId");
    lone_surrogate: payload(r#"{"a":"\ud800"}"#) => DeadLetter("invalid_json", "hex escape");
    nesting_100_000_deep: payload(&format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)))
        => DeadLetter("invalid_event", "nested");
    nesting_100_000_deep_in_an_unknown_field:
        value(with("later", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))))
        => DeadLetter("invalid_json", "nested");
    nesting_that_never_ends: payload(&"{\"a\":".repeat(100_000)) => DeadLetter("invalid_event", "nested");
    number_1e131072: payload("{\"a\":1e131072}") => DeadLetter("invalid_json", "out of range");
    integer_of_a_million_digits: payload(&format!("{{\"a\":{}}}", "7".repeat(1_000_000)))
        => DeadLetter("invalid_json", "out of range");
    fraction_of_a_million_digits: payload(&format!("{{\"a\":0.{}}}", "7".repeat(1_000_000))) => Appended;
    a_million_bytes_of_escapes: payload(&format!("{{\"a\":\"{}\"}}", r"\u0041".repeat(170_000))) => Appended;
    a_megabyte_of_tiny_objects: payload(&format!("{{\"a\":[{}0]}}", "{\"\":0},".repeat(125_000))) => Appended;
    a_hundred_thousand_unknown_fields: value({
        let mut text = with("planId", "\"plan\"");
        text.pop();
        for n in 0..100_000 {
            text.extend(format!(",\"{n}\":0").bytes());
        }
        text.push(b'}');
        text
    }) => Appended;
    value_of_10_mb: payload(&format!("{{\"a\":\"{}\"}}", "x".repeat(10_000_000)))
        => DeadLetter("too_large", "limits.max_record_bytes");
    key_of_2_mb: RawRecord { key: Some(vec![b'k'; 2 * MIB]), ..good() }
        => DeadLetter("too_large", "limits.max_record_bytes");
    header_of_2_mb: headed(vec![(b"h".to_vec(), Some(vec![b'v'; 2 * MIB]))])
        => DeadLetter("too_large", "limits.max_record_bytes");
    header_name_of_2_mb: headed(vec![(vec![b'h'; 2 * MIB], None)])
        => DeadLetter("too_large", "limits.max_record_bytes");
    headers_100_000_tiny: headed(vec![(b"h".to_vec(), Some(b"v".to_vec())); 100_000])
        => DeadLetter("too_large", "100000 headers");
    headers_100_000_without_anything: headed(vec![(Vec::new(), None); 100_000])
        => DeadLetter("too_large", "100000 headers");
    headers_1_000: headed(vec![(b"h".to_vec(), None); 1_000]) => Appended;
    header_name_that_is_not_utf8: headed(vec![(b"trace\xff\xfe".to_vec(), Some(b"\x80".to_vec()))]) => Appended;
    header_name_that_is_not_utf8_on_a_bad_record: RawRecord {
        value: Some(b"{".to_vec()),
        ..headed(vec![(b"\xff".to_vec(), Some(b"\0".to_vec())), (b"n".to_vec(), None)])
    } => DeadLetter("invalid_json", "EOF");
    wrong_content_type: of_type("text/plain", with("planId", "\"plan\""))
        => DeadLetter("unknown_content_type", "text/plain");
    content_type_that_is_not_utf8: RawRecord {
        headers: vec![(b"content-type".to_vec(), Some(b"\xff\0".to_vec()))],
        ..good()
    } => DeadLetter("unknown_content_type", "content-type");
    content_type_of_avro_on_json: of_type("application/vnd.runlog.run-event+avro", with("planId", "\"plan\""))
        => DeadLetter("unknown_schema", "Avro");
    avro_of_an_unknown_schema_id: value(*b"\0\0\0\x30\x39\x02a") => DeadLetter("unknown_schema", "Avro");
    avro_truncated_in_its_frame: value(*b"\0\0") => DeadLetter("unknown_schema", "Avro");
    avro_truncated_in_its_fingerprint: value(*b"\xC3\x01\x01\x02\x03") => DeadLetter("unknown_schema", "Avro");
    // A text of 2^62 bytes.
    avro_length_bomb: value(*b"\xC3\x01\x01\x02\x03\x04\x05\x06\x07\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")
        => DeadLetter("unknown_schema", "Avro");
    // A list of 2^62 items without a byte each.
    avro_block_bomb: of_type("application/vnd.runlog.run-event+avro",
        *b"\xC3\x01\x01\x02\x03\x04\x05\x06\x07\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\0")
        => DeadLetter("unknown_schema", "Avro");
    year_10000: value(with("emittedAt", "\"10000-01-01T00:00:00Z\"")) => DeadLetter("invalid_event", "emittedAt");
    negative_engine_attempt: value(with("engineAttemptId", "-1")) => DeadLetter("invalid_event", "engineAttemptId");
    negative_logical_attempt: value(with("logicalAttemptId", "-2147483648"))
        => DeadLetter("invalid_event", "logicalAttemptId");
    ids_of_256_four_byte_characters: value(with("runId", &quoted(&"\u{1f600}".repeat(256))))
        => DeadLetter("invalid_event", "runId");
    ids_of_64_four_byte_characters: value(with("runId", &quoted(&"\u{1f600}".repeat(64)))) => Appended;
}

#[tokio::test]
async fn all_of_them_are_one_transaction_that_their_neighbours_commit_in() {
    let outcome = outcome().await;
    let (sent, appended) = outcome.neighbours;
    assert_eq!(sent, rows().len() + 1);
    assert_eq!(appended, sent);
    assert_eq!(outcome.transactions, 1);
    assert_eq!(outcome.exit_code, Some(0));
}

#[tokio::test]
async fn all_of_them_take_bounded_memory() {
    // 25 MB of records: what they may take is in docs/operations.md. Most is the tree of tiny objects.
    let peak = outcome().await.peak_memory;
    assert!(peak < 350 << 20, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn records_that_swell_when_they_are_read_are_written_a_few_at_a_time() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    // A hundred times as large in memory; eight of them would fit into a batch by their bytes.
    let tiny = format!("{{\"a\":[{}0]}}", "{\"\":0},".repeat(125_000));
    for _ in 0..12 {
        let bootstrap = &pipeline.environment.kafka;
        wire::send(bootstrap, &pipeline.topic.name, 0, &payload(&tiny)).unwrap();
    }
    let ingest = pipeline.ingest().unwrap();
    pipeline.wait_ingested(DRAINED).await.unwrap();
    let peak = ingest.peak_memory().unwrap();
    eprintln!("VmHWM {} MiB", peak >> 20);
    assert!(peak < 350 << 20, "{} MiB", peak >> 20);
    assert_eq!(pipeline.progress().await.unwrap().appended, 12);
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn every_kind_of_malformed_record_in_one_batch_leaves_its_neighbours_alone() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let produced = pipeline.topic.send(&generate(17, 1_000, 1)).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(DRAINED).await.unwrap();
    let differences = pipeline.differences(&produced).await.unwrap();
    assert!(differences.is_empty(), "{}", report(&differences, 20));
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}
