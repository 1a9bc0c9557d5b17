//! A dead letter never fails itself, however large or odd its record is; where the database refuses one
//! all the same, nothing is lost.

use event_log::{AppendError, Batch, FaultClass, Header, Outcome, Record};
use run_events::{Reason, Rejection};

use crate::support::database::with_database;
use crate::support::events::{event, record};

const MIB: usize = 1 << 20;

fn refused(offset: i64) -> Record {
    record(offset, Err(Rejection::new(Reason::TooLarge, "large")))
}

fn batch_of(records: Vec<Record>) -> Batch {
    Batch {
        start: 0,
        end: records.len() as i64,
        skipped: 0,
        records,
    }
}

#[tokio::test]
async fn keys_values_headers_and_names_of_16_mb_are_kept_as_they_are() {
    with_database(|database| async move {
        let large = |byte: u8| vec![byte; 16 * MIB];
        let with_headers = |offset, headers| Record {
            headers,
            ..refused(offset)
        };
        let name = |name: Vec<u8>, value| Header { name, value };
        let records = vec![
            Record {
                key: Some(large(0)),
                ..refused(0)
            },
            Record {
                value: Some(large(0xff)),
                ..refused(1)
            },
            with_headers(2, vec![name(b"\xff\0".to_vec(), Some(large(0x80)))]),
            with_headers(3, vec![name(large(0xfe), None)]),
            record(4, Ok(event("t", "run", "good"))),
        ];
        let mut writer = database.writer(0).await;
        let batch = batch_of(records);
        let appended = writer.append(&database.pool, &batch).await.unwrap();
        let dead = Outcome::DeadLetter(Reason::TooLarge);
        let good = Outcome::Appended { run_seq: 1 };
        assert_eq!(appended.outcomes, [dead, dead, dead, dead, good]);
        let same = "SELECT count(*) FROM event_log.dead_letters d WHERE CASE source_offset
              WHEN 0 THEN key = convert_to(repeat('x', 0), 'UTF8') || decode(repeat('00', 16777216), 'hex')
              WHEN 1 THEN value = decode(repeat('ff', 16777216), 'hex')
              WHEN 2 THEN decode(headers -> 0 ->> 'name', 'base64') = '\\xff00'
                      AND decode(headers -> 0 ->> 'value', 'base64') = decode(repeat('80', 16777216), 'hex')
              WHEN 3 THEN decode(headers -> 0 ->> 'name', 'base64') = decode(repeat('fe', 16777216), 'hex')
                      AND headers -> 0 -> 'value' = 'null' END";
        assert_eq!(database.number(same).await, 4);
    })
    .await;
}

/// PostgreSQL takes messages of up to 1 GB; a batch is closed when it reaches `ingest.batch.max_bytes`,
/// at most 256 MiB, so it holds less than that and one record more. Headers take a third more, as
/// base64.
#[tokio::test]
async fn the_largest_batch_of_dead_letters_fits_into_a_message() {
    with_database(|database| async move {
        // Bytes that do not compress, so that the database does not take its time to try.
        let mut state = 88_172_645_463_325_252_u64;
        let mut next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        };
        let bytes: Vec<u8> = (0..2 * MIB).flat_map(&mut next).collect();
        let large = |offset| Record {
            value: Some(bytes.clone()),
            ..refused(offset)
        };
        let batch = batch_of((0..17).map(large).collect());
        let mut writer = database.writer(0).await;
        let appended = writer.append(&database.pool, &batch).await.unwrap();
        assert_eq!(
            appended.outcomes,
            [Outcome::DeadLetter(Reason::TooLarge); 17]
        );
        let kept = "SELECT count(*) FROM event_log.dead_letters WHERE length(value) = 16777216";
        assert_eq!(database.number(kept).await, 17);
    })
    .await;
}

#[tokio::test]
async fn a_thousand_headers_and_a_detail_with_nul_are_kept() {
    with_database(|database| async move {
        let header = |n: usize| Header {
            name: vec![n as u8, 0],
            value: n.is_multiple_of(2).then(Vec::new),
        };
        let letter = Record {
            headers: (0..1000).map(header).collect(),
            key: None,
            value: None,
            ..record(0, Err(Rejection::new(Reason::Tombstone, "a\0b\u{7f}c")))
        };
        let mut writer = database.writer(0).await;
        let batch = batch_of(vec![letter]);
        writer.append(&database.pool, &batch).await.unwrap();
        let kept = "SELECT count(*) FROM event_log.dead_letters
             WHERE jsonb_array_length(headers) = 1000 AND detail = 'a b c' AND key IS NULL AND value IS NULL
               AND decode(headers -> 999 ->> 'name', 'base64') = '\\xe700'
               AND headers -> 998 ->> 'value' = '' AND headers -> 999 -> 'value' = 'null'";
        assert_eq!(database.number(kept).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_that_the_database_refuses_is_an_error_and_nothing_is_written() {
    with_database(|database| async move {
        let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '22023'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON event_log.dead_letter
               FOR EACH ROW EXECUTE FUNCTION refuse()";
        database.run(trigger).await.unwrap();
        let mut writer = database.writer(0).await;
        let batch = batch_of(vec![record(0, Ok(event("t", "run", "a"))), refused(1)]);
        // A record's fault that no dead letter can keep: the caller halts the partition.
        match writer.append(&database.pool, &batch).await {
            Err(AppendError::Fault { class, .. }) => assert_eq!(class, FaultClass::Record),
            other => panic!("{other:?}"),
        }
        let nothing =
            "SELECT next_offset + (SELECT count(*) FROM event_log.event) FROM event_log.stream";
        assert_eq!(database.number(nothing).await, 0);
        database
            .run("DROP TRIGGER refuse ON event_log.dead_letter")
            .await
            .unwrap();
        writer.append(&database.pool, &batch).await.unwrap();
        assert_eq!(database.number(nothing).await, 3);
    })
    .await;
}
