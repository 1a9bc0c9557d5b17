//! The bookkeeping of a batch: dead letters with their bytes, every offset accounted for, one time.

use chrono::{DateTime, Utc};
use event_log::record::Header;
use event_log::{AppendError, Batch, Record};
use run_events::{Reason, Rejection};
use sqlx::Row;

use crate::support::database::with_database;
use crate::support::events::{batch, event, record};

#[tokio::test]
async fn a_dead_letter_keeps_its_bytes_whatever_they_are() {
    with_database(|database| async move {
        let refused = |offset, reason| Record {
            key: None,
            value: None,
            ..record(offset, Err(Rejection::new(reason, "a\0b")))
        };
        let tombstone = refused(0, Reason::Tombstone);
        let strange = Record {
            key: Some(vec![0, 0xff]),
            value: Some(Vec::new()),
            timestamp_ms: None,
            headers: vec![
                Header {
                    name: vec![0xff, 0xfe, 0],
                    value: None,
                },
                Header {
                    name: Vec::new(),
                    value: Some(vec![0; 3]),
                },
            ],
            ..refused(1, Reason::InvalidJson)
        };
        let mut writer = database.writer(0).await;
        let records = Batch {
            start: 0,
            end: 2,
            skipped: 0,
            records: vec![tombstone, strange],
        };
        writer.append(&database.pool, &records).await.unwrap();
        let rows = sqlx::query("SELECT * FROM event_log.dead_letters ORDER BY source_offset")
            .fetch_all(&database.pool)
            .await
            .unwrap();
        assert_eq!(rows[0].get::<Option<Vec<u8>>, _>("key"), None);
        assert_eq!(rows[0].get::<Option<Vec<u8>>, _>("value"), None);
        assert_eq!(rows[0].get::<String, _>("reason"), "tombstone");
        assert_eq!(
            rows[0].get::<serde_json::Value, _>("headers"),
            serde_json::json!([])
        );
        assert_eq!(
            rows[1].get::<Option<Vec<u8>>, _>("key"),
            Some(vec![0, 0xff])
        );
        assert_eq!(rows[1].get::<Option<Vec<u8>>, _>("value"), Some(Vec::new()));
        let headers =
            serde_json::json!([{"name": "//4A", "value": null}, {"name": "", "value": "AAAA"}]);
        assert_eq!(rows[1].get::<serde_json::Value, _>("headers"), headers);
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_skipped_offsets_alone_moves_the_ledger() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let skipped = Batch {
            start: 0,
            end: 5,
            skipped: 5,
            records: Vec::new(),
        };
        writer.append(&database.pool, &skipped).await.unwrap();
        let nothing = Batch {
            start: 5,
            end: 5,
            skipped: 0,
            records: Vec::new(),
        };
        writer.append(&database.pool, &nothing).await.unwrap();
        let gap = Batch {
            end: 8,
            skipped: 2,
            ..batch(5, [event("t", "run", "a")])
        };
        writer.append(&database.pool, &gap).await.unwrap();
        let row = sqlx::query("SELECT * FROM event_log.stream")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(
            (
                row.get("next_offset"),
                row.get("skipped"),
                row.get("appended")
            ),
            (8i64, 7i64, 1i64)
        );
        assert_eq!(row.get::<i64, _>("last_record_offset"), 5);
        assert_eq!(
            row.get::<Vec<u8>, _>("last_record_digest"),
            gap.records[0].digest()
        );
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_loses_an_offset_is_never_sent() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let two = || batch(0, [event("t", "run", "a"), event("t", "run", "b")]);
        let mut backwards = two();
        backwards.records.reverse();
        let wrong = [
            Batch { end: 3, ..two() },
            Batch {
                skipped: 1,
                ..two()
            },
            Batch {
                start: 1,
                end: 3,
                ..two()
            },
            backwards,
        ];
        for batch in wrong {
            let result = writer.append(&database.pool, &batch).await;
            assert!(
                matches!(result, Err(AppendError::Unaccounted { .. })),
                "{batch:?}"
            );
        }
        assert_eq!(
            database
                .number("SELECT next_offset FROM event_log.stream")
                .await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn persisted_at_never_falls_even_if_the_clock_did() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
        // A clock that ran an hour ahead and was set right.
        database
            .run("UPDATE event_log.stream SET last_persisted_at = now() + interval '1 hour'")
            .await
            .unwrap();
        let ahead: DateTime<Utc> =
            sqlx::query_scalar("SELECT last_persisted_at FROM event_log.stream")
                .fetch_one(&database.pool)
                .await
                .unwrap();
        let next = batch(1, [event("t", "run", "b")]);
        assert_eq!(
            writer
                .append(&database.pool, &next)
                .await
                .unwrap()
                .persisted_at,
            ahead
        );
        let behind =
            "SELECT count(*) FROM event_log.event WHERE run_seq = 2 AND persisted_at < now()";
        assert_eq!(database.number(behind).await, 0);
    })
    .await;
}
