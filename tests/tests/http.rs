//! The HTTP port of the programs, as a stranger meets it who can reach it: bound to one address, bounded in
//! time, size and number, and silent about tenants.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runlog_tests::generator::draft::{Draft, quoted, render};
use runlog_tests::generator::{Intent, Record, generate, malformed, runs};
use runlog_tests::{Pipeline, Process, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);
/// Twice what the programs give a connection, for a machine that is busy.
const CONNECTION: Duration = Duration::from_secs(20);
/// What an answer may take, whatever others do to the port: half of what it takes where it has to wait for
/// the end of another connection.
const PROBE: Duration = Duration::from_secs(5);
/// The programs answer no more than this many connections at once.
const CONNECTIONS: usize = 64;

async fn connect(process: &Process) -> TcpStream {
    TcpStream::connect(&process.address).await.unwrap()
}

/// What comes back until the connection ends, which it must. A refusal may come before all was sent, and
/// end the connection roughly; what came before counts.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = timeout(CONNECTION, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes, and answers what comes back.
async fn exchange(process: &Process, request: &[u8]) -> String {
    let mut stream = connect(process).await;
    let _ = stream.write_all(request).await;
    rest(&mut stream).await
}

async fn assert_answers(process: &Process) {
    let asked = Instant::now();
    let answer = exchange(process, b"GET /healthz HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(asked.elapsed() < PROBE, "{:?}", asked.elapsed());
}

/// Heads that are too large: by the number of fields, by one of them, by the path.
fn heads() -> [String; 3] {
    let field = |n: usize| format!("x-{n}: y\r\n");
    let many: String = (0..200).map(field).collect();
    let long = "y".repeat(64 << 10);
    [
        format!("GET /metrics HTTP/1.1\r\n{many}\r\n"),
        format!("GET /metrics HTTP/1.1\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_for_the_three_paths_is_refused() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let mut projectors = pipeline.projectors().unwrap();
    projectors.wait_ready().await.unwrap();
    let refused = [
        ("GET /", "404"),
        ("GET /metrics/", "404"),
        ("GET //metrics", "404"),
        ("GET /metrics/../../etc/passwd", "404"),
        ("GET /%2e%2e/etc/passwd", "404"),
        ("GET /debug/pprof", "404"),
        ("GET http://other.example/secret", "404"),
        ("OPTIONS *", "404"),
        ("CONNECT other.example:443", "404"),
        ("POST /metrics", "405"),
        ("PUT /healthz", "405"),
        ("DELETE /readyz", "405"),
        ("TRACE /healthz", "405"),
        ("BREW /metrics", "405"),
    ];
    for (request, status) in refused {
        let request = format!("{request} HTTP/1.1\r\nhost: planted.example\r\n\r\n");
        let answer = exchange(&projectors, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
        assert!(!answer.contains("planted"), "{request}: {answer}");
    }
    // No HTTP/1: TLS's first bytes, HTTP/2's, and lines that are none.
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\0\0\0\0\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost planted\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let answer = exchange(&projectors, bytes).await;
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
        assert!(is_refused, "{bytes:?}: {answer}");
    }
    for head in heads() {
        let answer = exchange(&projectors, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_answers(&projectors).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_gets_one_answer_whatever_it_sends() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let mut projectors = pipeline.projectors().unwrap();
    projectors.wait_ready().await.unwrap();

    let pipelined = b"GET /healthz HTTP/1.1\r\n\r\n".repeat(100);
    let answer = exchange(&projectors, &pipelined).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let kept = b"GET /healthz HTTP/1.1\r\nconnection: keep-alive\r\n\r\n";
    let answer = exchange(&projectors, kept).await;
    assert!(answer.contains("connection: close"), "{answer}");

    // Half closed: after a request it is answered, before its end there is none.
    // Often, since a program that answers only where it has not seen the end yet does so mostly.
    for _ in 0..100 {
        let mut half = connect(&projectors).await;
        half.write_all(b"GET /healthz HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        half.shutdown().await.unwrap();
        assert!(rest(&mut half).await.starts_with("HTTP/1.1 200"));
    }
    let mut half = connect(&projectors).await;
    half.write_all(b"GET /healthz HTTP").await.unwrap();
    half.shutdown().await.unwrap();
    let closed = Instant::now();
    let answer = rest(&mut half).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(closed.elapsed() < PROBE, "{:?}", closed.elapsed());

    // A body without an end, to a path that takes one and to one that does not, is not taken in.
    let before = projectors.peak_memory().unwrap();
    for head in [
        "GET /healthz HTTP/1.1\r\ncontent-length: 1099511627776\r\n\r\n",
        "POST /metrics HTTP/1.1\r\ncontent-length: 1099511627776\r\n\r\n",
        "POST /metrics HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
        "POST /metrics HTTP/1.1\r\ncontent-length: 1099511627776\r\nexpect: 100-continue\r\n\r\n",
    ] {
        let mut stream = connect(&projectors).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let (begun, mut sent) = (Instant::now(), 0);
        let mebibyte = vec![b'y'; 1 << 20];
        while stream.write_all(&mebibyte).await.is_ok() {
            sent += 1;
            assert!(
                begun.elapsed() < CONNECTION,
                "{head}: {sent} MiB were taken"
            );
        }
        assert!(sent < 64, "{head}: {sent} MiB were taken");
    }
    let grown = projectors.peak_memory().unwrap() - before;
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    assert_answers(&projectors).await;
}

/// Sockets that the process has open.
fn sockets(process: &Process) -> BTreeSet<u64> {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let inode = |target: std::path::PathBuf| {
        let name = target.to_str()?.strip_prefix("socket:[")?.to_owned();
        name.strip_suffix(']')?.parse().ok()
    };
    targets.filter_map(inode).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_many_connections_end_and_keep_nobody_from_an_answer() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    let before = sockets(&ingest).len();

    // A head that comes a byte at a time: each byte keeps no time limit from running.
    let mut slow = connect(&ingest).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx: ")
        .await
        .unwrap();
    let begun = Instant::now();
    let mut dripped = 0;
    while slow.write_all(b"y").await.is_ok() {
        dripped += 1;
        assert!(begun.elapsed() < CONNECTION, "{dripped} bytes were taken");
        assert_answers(&ingest).await;
        // The pace of the sender, not a wait.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(dripped > 10, "ended after {dripped} bytes");

    // Many that say nothing, and many that begin. Ingest works on.
    let mut held = Vec::new();
    for number in 0..5 * CONNECTIONS {
        let mut stream = connect(&ingest).await;
        if number % 2 == 0 {
            // Refused where its place was taken in the meantime.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nx: ").await;
        }
        held.push(stream);
        if number % 16 == 0 {
            assert_answers(&ingest).await;
        }
    }
    assert_answers(&ingest).await;
    let open = sockets(&ingest).len();
    // Some room for Kafka's and PostgreSQL's connections, which come and go.
    assert!(
        open <= before + CONNECTIONS + 8,
        "{open} sockets, before {before}"
    );
    pipeline.topic.send(&generate(71, 200, 1)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();

    // All of them end by themselves.
    for stream in &mut held {
        rest(stream).await;
    }
    assert_answers(&ingest).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// The local addresses of the process's listening sockets, as the kernel writes them.
fn listening(process: &Process) -> BTreeSet<String> {
    let mine = sockets(process);
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let text: String = tables.into_iter().map(Result::unwrap_or_default).collect();
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Local address, state (0A = listening) and inode.
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (*state == "0A" && mine.contains(&inode.parse().ok()?)).then(|| (*local).to_owned())
    };
    text.lines().filter_map(address).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_program_listens_on_the_configured_address_and_nowhere_else() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    for name in ["runlog-ingest", "runlog-projectors"] {
        let command = pipeline.program(name);
        let mut process = Process::spawn(&pipeline.environment, name, command).unwrap();
        process.wait_ready().await.unwrap();
        let port: u16 = process.address.rsplit_once(':').unwrap().1.parse().unwrap();
        // 127.0.0.1 in the order of this machine's bytes.
        let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
        let expected = BTreeSet::from([format!("{loopback:08X}:{port:04X}")]);
        assert_eq!(listening(&process), expected, "{name}");
        let elsewhere = TcpStream::connect(("127.0.0.2", port)).await;
        assert!(elsewhere.is_err(), "{name} answers at 127.0.0.2");
    }
}

// ---------------------------------------------------------------- what it tells of tenants

/// Stands in every id and name of the tenants, and nowhere else.
const MARK: &str = "zq7x";

fn marked(draft: Draft) -> Draft {
    let mark = |text: &str| format!("{MARK}-{text}");
    Draft {
        tenant: format!("{MARK}-tenant-{}", draft.tenant.len() % 3),
        project: mark(&draft.project),
        environment: mark(&draft.environment),
        run: mark(&draft.run),
        plan: mark(&draft.plan),
        plan_version: mark(&draft.plan_version),
        step: draft.step.as_deref().map(mark),
        ..draft
    }
}

fn record(draft: &Draft, value: Option<Vec<u8>>, content_type: Option<String>) -> Record {
    Record {
        partition: 0,
        hash: 0,
        key: Some(draft.run.clone().into_bytes()),
        value,
        content_type,
        intent: Intent::Append,
    }
}

/// Whole runs of three tenants, repeated ones, every kind of bad record, and one of a tenant that the
/// topic may not speak for. And the ids that they have.
fn traffic() -> (Vec<Record>, BTreeSet<String>) {
    let mut rng = rand::SeedableRng::seed_from_u64(72);
    let mut drafts = Vec::new();
    for number in 0..40 {
        drafts.extend(runs::story(&mut rng, number).into_iter().map(marked));
    }
    let plain = |draft: &Draft| record(draft, Some(render(&draft.fields(), "")), None);
    let mut records: Vec<Record> = drafts.iter().map(plain).collect();
    records.extend(drafts.iter().take(20).map(plain));
    let with_step = drafts.iter().find(|draft| draft.step.is_some()).unwrap();
    for spoilt in malformed::all(&drafts[0], with_step) {
        records.push(record(&drafts[0], spoilt.value, spoilt.content_type));
    }
    let mut foreign = drafts[0].clone();
    foreign.tenant = format!("{MARK}-foreign");
    records.push(plain(&foreign));
    let mut reused = drafts[0].clone();
    reused.run = format!("{MARK}-another-run");
    records.push(plain(&reused));
    let mut unknown = drafts[1].clone();
    unknown.event_id = uuid::Uuid::new_v4().to_string();
    unknown.event_type = format!("{MARK}.Unknown");
    let mut fields = unknown.fields();
    fields.push((format!("{MARK}-field"), quoted(MARK)));
    records.push(record(&unknown, Some(render(&fields, "")), None));
    records.push(record(
        &unknown,
        Some(b"{}".to_vec()),
        Some(format!("text/{MARK}")),
    ));
    let ids = drafts
        .iter()
        .flat_map(|d| [d.event_id.clone(), d.key()])
        .collect();
    (records, ids)
}

/// A metric's name, and its labels with their values.
type Sample = (String, Vec<(String, String)>);

/// The samples in Prometheus' text.
fn samples(text: &str) -> Result<Vec<Sample>> {
    let lines = text.lines().filter(|l| l.starts_with("runlog_"));
    let sample = |line: &str| {
        let (series, _) = line.rsplit_once(' ').context("a line without a value")?;
        let Some((name, labels)) = series.split_once('{') else {
            return Ok((series.to_owned(), Vec::new()));
        };
        let labels = labels.strip_suffix('}').context("labels without an end")?;
        // None of the values that are allowed has a comma or a quote in it.
        let pairs = labels.split(',').map(|pair| {
            let (label, value) = pair.split_once("=\"").context("a label without a value")?;
            let value = value.strip_suffix('"').context("a value without an end")?;
            Ok((label.to_owned(), value.to_owned()))
        });
        Ok((name.to_owned(), pairs.collect::<Result<_>>()?))
    };
    lines.map(sample).collect()
}

/// Whether it is one of the few labels, with a value that the product or its operator chose.
fn is_allowed(label: &str, value: &str, topic: &str) -> bool {
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match label {
        "topic" => value == topic,
        "partition" => value.parse::<i32>().is_ok(),
        // Dead-letter reasons and reasons to halt, of fixed lists.
        "outcome" | "reason" => word(value),
        "projection" => ["run_status", "run_timeline", "run_stats"].contains(&value),
        "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
        "component" => ["ingest", "projectors"].contains(&value),
        "version" => value == env!("CARGO_PKG_VERSION"),
        _ => false,
    }
}

/// What /metrics and /readyz say. The names of the labels, and the values of `outcome`.
async fn judge(process: &Process, topic: &str, ids: &BTreeSet<String>) -> [BTreeSet<String>; 2] {
    let [mut names, mut outcomes] = [BTreeSet::new(), BTreeSet::new()];
    for path in ["/metrics", "/readyz", "/healthz"] {
        let text = process.get(path).await.unwrap();
        assert!(!text.contains(MARK), "{path} of {}: {text}", process.name);
        let told = ids.iter().find(|id| text.contains(id.as_str()));
        assert_eq!(told, None, "{path} of {}", process.name);
        for (metric, labels) in samples(&text).unwrap() {
            for (label, value) in labels {
                let allowed = is_allowed(&label, &value, topic);
                assert!(allowed, "{metric} has the label {label}=\"{value}\"");
                if label == "outcome" {
                    outcomes.insert(value);
                }
                names.insert(label);
            }
        }
    }
    [names, outcomes]
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_labels_of_a_fixed_list_and_no_id_of_a_tenant() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let (records, ids) = traffic();
    let topic = pipeline.topic.name.as_str();
    let tenants = (0..3).map(|n| format!("\"{MARK}-tenant-{n}\""));
    let tenants = tenants.collect::<Vec<_>>().join(", ");
    let mut command = pipeline.program("runlog-ingest");
    command.env(
        "RUNLOG_INGEST__TOPICS",
        format!("[{{name=\"{topic}\", tenants=[{tenants}]}}]"),
    );
    let ingest = Process::spawn(&pipeline.environment, "runlog-ingest", command).unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.topic.send(&records).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    // Counted now and then.
    wait_until("the dead letters to be counted", SOON, async || {
        let metrics = ingest.get("/metrics").await?;
        ensure!(
            metrics.contains("runlog_dead_letters_pending{"),
            "{metrics}"
        );
        Ok(())
    })
    .await
    .unwrap();

    // The traffic is there, and is the tenants'.
    let events: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM event_log.run_events WHERE starts_with(tenant_id, $1) AND starts_with(run_id, $1)",
    )
    .bind(MARK)
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    assert!(events > 200, "{events} events");

    let set = |list: &[&str]| {
        list.iter()
            .map(|&name| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let [names, outcomes] = judge(&ingest, topic, &ids).await;
    let all = [
        "component",
        "le",
        "outcome",
        "partition",
        "reason",
        "topic",
        "version",
    ];
    assert_eq!(names, set(&all));
    let expected = set(&[
        "appended",
        "duplicate",
        "event_id_reused",
        "invalid_event",
        "invalid_json",
        "tenant_not_allowed",
        "tombstone",
        "unknown_content_type",
    ]);
    assert!(outcomes.is_superset(&expected), "{outcomes:?}");
    let [names, _] = judge(&projectors, topic, &ids).await;
    assert_eq!(names, set(&["component", "le", "projection", "version"]));
}
