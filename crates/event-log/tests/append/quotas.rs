//! Dead letters are kept whole up to a quota of their tenant's, and of what lies beyond it the first
//! KiB: the rows and their digests always, the counters right whoever changes the letters.

use event_log::stream;
use event_log::{Batch, Header, Outcome, Record, StreamWriter, Truncated};
use run_events::{Reason, Rejection};
use sha2::{Digest, Sha256};
use sqlx::Connection;

use crate::support::database::{Database, claimant, with_database};
use crate::support::events::{event, event_with, record};

/// Bytes of the letters' values, and what such a letter counts: its key is `key`.
const VALUE: usize = 3_997;
const COUNTS: usize = VALUE + 3;

/// Partition, offset, whether it was cut, the value, its whole length and digest.
type Letter = (i32, i64, bool, Vec<u8>, i64, Vec<u8>);

/// A record that names this tenant and is refused.
fn refused(offset: i64, tenant: Option<&str>) -> Record {
    let rejection = Rejection::new(Reason::InvalidEvent, "planId: is missing");
    let verdict = Err(rejection.owned_by(tenant.map(str::to_owned), None));
    Record {
        value: Some(vec![0xab; VALUE]),
        ..record(offset, verdict)
    }
}

fn batch(start: i64, records: Vec<Record>) -> Batch {
    Batch {
        start,
        end: start + records.len() as i64,
        skipped: 0,
        records,
    }
}

/// Appends refused records of these tenants at consecutive offsets; returns how many were cut.
async fn append(
    database: &Database,
    writer: &mut StreamWriter,
    start: i64,
    tenants: &[Option<&str>],
) -> Truncated {
    let records = (start..).zip(tenants).map(|(at, of)| refused(at, *of));
    let batch = batch(start, records.collect());
    let appended = writer.append(&database.pool, &batch).await.unwrap();
    let all = vec![Outcome::DeadLetter(Reason::InvalidEvent); tenants.len()];
    assert_eq!(appended.outcomes, all);
    appended.truncated
}

fn cut(tenants: &[(Option<&str>, u64)]) -> Truncated {
    let owned = |(tenant, count): &(Option<&str>, u64)| (tenant.map(str::to_owned), *count);
    tenants.iter().map(owned).collect()
}

/// The counters less what the pending letters hold; 0 where they are right.
const MISCOUNTED: &str = "SELECT coalesce(sum(abs(counted)), 0)::bigint FROM (
    SELECT sum(bytes) AS counted FROM (
      SELECT tenant_id, stream_id, bytes FROM event_log.dead_letter_usage
      UNION ALL
      SELECT tenant_id, stream_id, -event_log.dead_letter_bytes(key, value, headers)
      FROM event_log.dead_letter WHERE status = 'pending') all_of_them
    GROUP BY tenant_id, stream_id) sums";

#[tokio::test]
async fn beyond_its_tenants_quota_a_letter_keeps_row_length_digest_and_first_kib() {
    with_database(|database| async move {
        let quota = |writer: StreamWriter| writer.with_dead_letter_quota(3 * COUNTS);
        let mut first = quota(database.writer(0).await);
        let mut second = quota(database.writer(1).await);
        // Over two partitions: three fit, and a tenant's flood is no other tenant's.
        let t = Some("t");
        assert_eq!(append(&database, &mut first, 0, &[t, t]).await, cut(&[]));
        let of_second = append(&database, &mut second, 0, &[t, Some("u"), t]).await;
        assert_eq!(of_second, cut(&[(t, 1)]));
        assert_eq!(append(&database, &mut first, 2, &[t]).await, cut(&[(t, 1)]));
        let digest = Sha256::digest([0xab; VALUE]).to_vec();
        let rows: Vec<Letter> = sqlx::query_as(
            "SELECT partition, source_offset, truncated, value, value_bytes, value_digest
             FROM event_log.dead_letters WHERE tenant_id = 't' ORDER BY dead_letter_id",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        let row = |partition, offset, cut: bool| {
            let kept = if cut { 1_024 } else { VALUE };
            let value = vec![0xab; kept];
            (partition, offset, cut, value, VALUE as i64, digest.clone())
        };
        let expected = [
            row(0, 0, false),
            row(0, 1, false),
            row(1, 0, false),
            row(1, 2, true),
            row(0, 2, true),
        ];
        assert_eq!(rows, expected);
        assert_eq!(database.number(MISCOUNTED).await, 0);
        let of_topic = event_log::read::dead_letter_bytes(&database.pool).await;
        let kept = 4 * COUNTS + 2 * (1_024 + 3);
        assert_eq!(of_topic.unwrap(), [("t".to_owned(), kept as i64)]);
    })
    .await;
}

#[tokio::test]
async fn records_of_no_known_tenant_have_a_quota_per_topic() {
    with_database(|database| async move {
        let who = claimant("a test");
        stream::open(&database.pool, &who, "other", 0, 0)
            .await
            .unwrap();
        let claim = stream::claim(&database.pool, &who, "other", 0).await;
        let mut other =
            StreamWriter::new(claim.unwrap().unwrap()).with_dead_letter_quota(2 * COUNTS);
        let mut first = database.writer(0).await.with_dead_letter_quota(2 * COUNTS);
        let mut second = database.writer(1).await.with_dead_letter_quota(2 * COUNTS);
        let tenants = [None, None, Some("t")];
        assert_eq!(append(&database, &mut first, 0, &tenants).await, cut(&[]));
        // The topic's partitions share it; the other topic has its own.
        let tenants = [None, Some("t")];
        let of_second = append(&database, &mut second, 0, &tenants).await;
        assert_eq!(of_second, cut(&[(None, 1)]));
        assert_eq!(append(&database, &mut other, 0, &[None]).await, cut(&[]));
        assert_eq!(database.number(MISCOUNTED).await, 0);
    })
    .await;
}

#[tokio::test]
async fn headers_count_as_the_database_holds_them_to_the_byte() {
    with_database(|database| async move {
        let header = |name: &[u8], value: Option<&[u8]>| Header {
            name: name.to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        let headers = vec![
            header(b"a\xff\0", Some(b"value")),
            header(b"", None),
            header(b"b", Some(b"")),
        ];
        let headed = |offset| Record {
            headers: headers.clone(),
            ..refused(offset, Some("t"))
        };
        let mut writer = database.writer(0).await;
        let one = batch(0, vec![headed(0)]);
        writer.append(&database.pool, &one).await.unwrap();
        let used = "SELECT sum(bytes)::bigint FROM event_log.dead_letter_usage";
        let bytes = usize::try_from(database.number(used).await).unwrap();
        assert!(bytes > COUNTS + 90, "{bytes}");
        // Two more fit exactly: here both are counted by the writer, there one by the database.
        for (quota, cut_of) in [(3 * bytes, vec![]), (3 * bytes - 1, vec![(Some("t"), 1)])] {
            database
                .run("DELETE FROM event_log.dead_letter WHERE source_offset > 0")
                .await
                .unwrap();
            let mut writer = database.writer(0).await.with_dead_letter_quota(quota);
            let start = writer.claim().next_offset;
            let two = batch(start, vec![headed(start), headed(start + 1)]);
            let appended = writer.append(&database.pool, &two).await.unwrap();
            assert_eq!(appended.truncated, cut(&cut_of));
            assert_eq!(database.number(MISCOUNTED).await, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_longer_pending_erased_or_deleted_is_given_back() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await.with_dead_letter_quota(4 * COUNTS);
        let tenants = [Some("t"), Some("t"), None, Some("t"), Some("t")];
        assert_eq!(append(&database, &mut writer, 0, &tenants).await, cut(&[]));
        let used =
            "SELECT sum(bytes)::bigint FROM event_log.dead_letter_usage WHERE tenant_id = 't'";
        let counts = COUNTS as i64;
        for (act, left) in [
            (
                "UPDATE event_log.dead_letter SET status = 'replayed' WHERE source_offset = 0",
                3 * counts,
            ),
            // No longer pending: nothing more to give back.
            (
                "UPDATE event_log.dead_letter SET status = 'discarded' WHERE source_offset = 0",
                3 * counts,
            ),
            (
                "DELETE FROM event_log.dead_letter WHERE source_offset = 0",
                3 * counts,
            ),
            (
                "UPDATE event_log.dead_letter SET value = NULL, key = NULL WHERE source_offset = 1",
                2 * counts,
            ),
            (
                "DELETE FROM event_log.dead_letter WHERE source_offset = 3",
                counts,
            ),
            ("UPDATE event_log.dead_letter SET status = 'discarded'", 0),
            (
                "UPDATE event_log.dead_letter SET status = 'pending' WHERE source_offset = 4",
                counts,
            ),
        ] {
            database.run(act).await.unwrap();
            assert_eq!(database.number(used).await, left, "{act}");
            let miscounted = database.number(MISCOUNTED).await;
            assert_eq!(miscounted, 0, "{act}");
        }
        // There is room again, for as many as were given back.
        let tenants = [Some("t"); 4];
        let again = append(&database, &mut writer, 5, &tenants).await;
        assert_eq!(again, cut(&[(Some("t"), 1)]));
    })
    .await;
}

#[tokio::test]
async fn ingest_waits_for_nobody_who_discards_letters_of_its_partition() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await.with_dead_letter_quota(2 * COUNTS);
        let t = Some("t");
        assert_eq!(append(&database, &mut writer, 0, &[t, t]).await, cut(&[]));
        let mut operator = sqlx::PgConnection::connect_with(&database.options)
            .await
            .unwrap();
        let mut discarding = operator.begin().await.unwrap();
        sqlx::query("UPDATE event_log.dead_letter SET status = 'discarded'")
            .execute(&mut *discarding)
            .await
            .unwrap();
        // Appended meanwhile (a wait would fail after its 30 s), and what is not committed is not given back yet.
        let meanwhile = append(&database, &mut writer, 2, &[t]).await;
        assert_eq!(meanwhile, cut(&[(t, 1)]));
        discarding.commit().await.unwrap();
        assert_eq!(append(&database, &mut writer, 3, &[t]).await, cut(&[]));
        assert_eq!(database.number(MISCOUNTED).await, 0);
    })
    .await;
}

#[tokio::test]
async fn letters_of_the_version_before_are_whole_and_not_counted() {
    with_database(|database| async move {
        let writer = database.writer(0).await;
        sqlx::query(
            "INSERT INTO event_log.dead_letter (stream_id, source_offset, tenant_id, reason, detail, value, received_at)
             VALUES ($1, 900, 't', 'invalid_event', '', repeat('x', 5000)::bytea, now()),
                    ($1, 901, 't', 'tombstone', '', NULL, now())",
        )
        .bind(writer.claim().stream_id)
        .execute(&database.pool)
        .await
        .unwrap();
        let shown = "SELECT count(*) FROM event_log.dead_letters WHERE NOT truncated AND CASE source_offset
             WHEN 900 THEN value_bytes = 5000 AND value_digest = sha256(repeat('x', 5000)::bytea)
             ELSE value_bytes IS NULL AND value_digest IS NULL END";
        assert_eq!(database.number(shown).await, 2);
        database
            .run("UPDATE event_log.dead_letter SET status = 'discarded' WHERE source_offset = 900;
                  DELETE FROM event_log.dead_letter")
            .await
            .unwrap();
        let counted = "SELECT count(*) FROM event_log.dead_letter_usage";
        assert_eq!(database.number(counted).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_the_database_refuses_has_the_same_quota() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await.with_dead_letter_quota(COUNTS);
        let bad = |offset: i64| Record {
            value: Some(vec![0xab; VALUE]),
            ..record(
                offset,
                Ok(event_with(
                    "t",
                    "run",
                    &format!("{offset}"),
                    r#"{"a": "\u0000"}"#,
                )),
            )
        };
        let good = record(1, Ok(event("t", "run", "good")));
        let batch = batch(0, vec![bad(0), good, bad(2)]);
        let appended = writer.append(&database.pool, &batch).await.unwrap();
        let dead = Outcome::DeadLetter(Reason::Unstorable);
        let good = Outcome::Appended { run_seq: 1 };
        assert_eq!(appended.outcomes, [dead, good, dead]);
        assert_eq!(appended.truncated, cut(&[(Some("t"), 1)]));
        // The answer to the commit was lost: nothing is counted twice.
        let again = writer.append(&database.pool, &batch).await.unwrap();
        assert_eq!(again.outcomes, appended.outcomes);
        assert_eq!(again.truncated, cut(&[]));
        assert_eq!(database.number(MISCOUNTED).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_batch_without_dead_letters_does_not_look_at_the_counters() {
    with_database(|database| async move {
        let mut locked = database.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE event_log.dead_letter_usage, event_log.dead_letter")
            .execute(&mut *locked)
            .await
            .unwrap();
        let mut writer = database.writer(0).await.with_dead_letter_quota(0);
        let batch = batch(0, vec![record(0, Ok(event("t", "run", "a")))]);
        let appended = writer.append(&database.pool, &batch).await.unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 1 }]);
        locked.rollback().await.unwrap();
    })
    .await;
}
