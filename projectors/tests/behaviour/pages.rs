//! Pages of a stream, as batches read them: with the payloads that are asked for, and bounded.

use event_log::read::{PageSize, Payloads, StreamEvent, stream_events};
use serde_json::json;

use crate::support::{Database, Log, page, run};

async fn read(
    database: &Database,
    stream: i64,
    size: PageSize,
    payloads: Payloads,
) -> Vec<StreamEvent> {
    let mut connection = database.pool.acquire().await.unwrap();
    let events = stream_events(&mut connection, stream, 0, i64::MAX, size, payloads);
    events.await.unwrap()
}

fn payloads(events: &[StreamEvent]) -> Vec<Option<i64>> {
    let number = |event: &StreamEvent| event.logged.event.payload.as_ref()?["n"].as_i64();
    events.iter().map(number).collect()
}

#[tokio::test]
async fn only_the_payloads_that_are_asked_for_are_read() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    for (n, event_type) in ["RunStarted", "Note", "RunPaused", "RunFailed"]
        .into_iter()
        .enumerate()
    {
        let run_id = format!("run-{n}");
        log.append(stream, &run_id, run(event_type).payload(json!({ "n": n })))
            .await;
    }
    log.append(stream, "run-3", run("RunFailed")).await;
    for (wanted, expected) in [
        (Payloads::All, [Some(0), Some(1), Some(2), Some(3), None]),
        (
            Payloads::Of(&["RunFailed", "RunPaused"]),
            [None, None, Some(2), Some(3), None],
        ),
        (Payloads::Of(&[]), [None; 5]),
    ] {
        let events = read(&database, stream, page(10), wanted).await;
        assert_eq!(payloads(&events), expected, "{wanted:?}");
        let runs = events.iter().map(|e| e.logged.event.run_id.as_str());
        let expected = ["run-0", "run-1", "run-2", "run-3", "run-3"];
        assert!(runs.eq(expected), "{events:?}");
    }
}

#[tokio::test]
async fn a_page_ends_where_its_events_weigh_enough_payloads_or_not() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    for n in 0..40 {
        let text = "x".repeat(if n < 20 { 10 } else { 10_000 });
        let event = run("Note").payload(json!({ "n": n, "text": text }));
        log.append(stream, "r", event).await;
    }
    let size = |bytes| PageSize { events: 100, bytes };
    for (bytes, wanted, expected) in [
        // Whatever it weighs, one comes.
        (1, Payloads::All, 1..=1),
        (5_000, Payloads::Of(&[]), 6..=10),
        (1_000_000, Payloads::Of(&[]), 40..=40),
        // Twenty small ones, and then some that weigh 40 KB each.
        (100_000, Payloads::All, 21..=24),
    ] {
        let read = read(&database, stream, size(bytes), wanted).await.len();
        assert!(expected.contains(&read), "{bytes} {wanted:?}: {read}");
    }
}
