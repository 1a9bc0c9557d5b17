//! Records that only the database refuses: found one by one, their neighbours commit.

use event_log::{AppendError, Batch, FaultClass, Outcome};
use run_events::{Reason, Rejection, RunEvent};

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event, event_with, record};

const REFUSED: Outcome = Outcome::DeadLetter(Reason::Unstorable);

async fn dead_letters(database: &Database) -> Vec<(i64, String, Option<String>, String)> {
    sqlx::query_as("SELECT source_offset, reason, tenant_id, detail FROM event_log.dead_letters ORDER BY source_offset")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

/// Makes the database refuse events of the type `Poison` with this SQLSTATE.
async fn refuse_poison(database: &Database, sqlstate: &str) {
    let function = format!(
        "CREATE OR REPLACE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.event_type = 'Poison' THEN RAISE EXCEPTION 'poison' USING ERRCODE = '{sqlstate}'; END IF;
           RETURN NEW;
         END $$;
         CREATE OR REPLACE TRIGGER refuse_poison BEFORE INSERT ON event_log.event
           FOR EACH ROW EXECUTE FUNCTION refuse_poison()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(function))
        .execute(&database.pool)
        .await
        .unwrap();
}

fn poison(tenant: &str, run: &str, step: &str) -> RunEvent {
    let event_type = run_events::EventType::from_name("Poison".to_owned());
    RunEvent {
        event_type,
        ..event(tenant, run, step)
    }
}

#[tokio::test]
async fn three_bad_records_of_a_hundred_are_found_and_their_neighbours_commit() {
    with_database(|database| async move {
        let nul = r#"{"a": ["x\u0000y"]}"#;
        let events = (0..100).map(|n| match n {
            13 => event_with("t", "even", "13", nul),
            14 => event_with("t", "odd", "14", r#"{"x\u0000y": 1}"#),
            99 => event("t", "odd", "99\0"),
            n => event("t", if n % 2 == 0 { "even" } else { "odd" }, &n.to_string()),
        });
        let events: Vec<_> = events.collect();
        let mut writer = database.writer(0).await;
        let appended = writer
            .append(&database.pool, &batch(0, events.clone()))
            .await
            .unwrap();
        let (mut even, mut odd) = (0, 0);
        for (n, outcome) in appended.outcomes.iter().enumerate() {
            let seq = if events[n].run_id == "even" {
                &mut even
            } else {
                &mut odd
            };
            if [13, 14, 99].contains(&n) {
                assert_eq!(*outcome, REFUSED, "{n}");
            } else {
                *seq += 1;
                assert_eq!(*outcome, Outcome::Appended { run_seq: *seq }, "{n}");
            }
        }
        let letters = dead_letters(&database).await;
        let found: Vec<_> = letters
            .iter()
            .map(|l| (l.0, l.1.as_str(), l.2.as_deref()))
            .collect();
        assert_eq!(found, [13, 14, 99].map(|n| (n, "unstorable", Some("t"))));
        assert!(
            letters
                .iter()
                .all(|l| l.3.contains("the database refuses the event")),
            "{letters:?}"
        );
        let ledger = "SELECT appended * 1000 + dead_lettered FROM event_log.stream";
        assert_eq!(database.number(ledger).await, 97_003);
        // Their keys stay free: a corrected record is appended.
        let corrected = batch(100, [event("t", "even", "13")]);
        let appended = writer.append(&database.pool, &corrected).await.unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: even + 1 }]);
    })
    .await;
}

#[tokio::test]
async fn a_bad_record_beside_a_reused_event_id_and_duplicates_of_itself() {
    with_database(|database| async move {
        let bad = event_with("t", "run", "bad", r#"{"a": "\u0000"}"#);
        let held = event("t", "run", "held");
        let reused = RunEvent {
            event_id: held.event_id,
            ..event("t", "other", "x")
        };
        let mut writer = database.writer(0).await;
        let events = [
            held,
            bad.clone(),
            reused,
            bad.clone(),
            event("t", "run", "last"),
        ];
        let appended = writer
            .append(&database.pool, &batch(0, events))
            .await
            .unwrap();
        let expected = [
            Outcome::Appended { run_seq: 1 },
            REFUSED,
            Outcome::DeadLetter(Reason::EventIdReused),
            REFUSED,
            Outcome::Appended { run_seq: 2 },
        ];
        assert_eq!(appended.outcomes, expected);
    })
    .await;
}

#[tokio::test]
async fn ids_that_text_cannot_hold_become_dead_letters_that_do_not_fail_themselves() {
    with_database(|database| async move {
        let owner = Rejection::new(Reason::InvalidEvent, "tenantId")
            .owned_by(Some("a\0b".to_owned()), Some("c\0d".to_owned()));
        let mut ids = batch(
            0,
            [
                event("t", "run", "a"),
                event("a\0b", "run", "a"),
                event("t", "a\0b", "a"),
                event("t", "run", "b"),
            ],
        );
        ids.records.push(record(4, Err(owner)));
        ids.end = 5;
        let mut writer = database.writer(0).await;
        let appended = writer.append(&database.pool, &ids).await.unwrap();
        let expected = [
            Outcome::Appended { run_seq: 1 },
            REFUSED,
            REFUSED,
            Outcome::Appended { run_seq: 2 },
            Outcome::DeadLetter(Reason::InvalidEvent),
        ];
        assert_eq!(appended.outcomes, expected);
        let tenants: Vec<_> = dead_letters(&database)
            .await
            .into_iter()
            .map(|l| l.2)
            .collect();
        assert_eq!(tenants, [None, Some("t".to_owned()), None]);
    })
    .await;
}

/// The caller halts the partition then; the process goes on.
#[tokio::test]
async fn a_record_that_fails_for_an_unknown_reason_is_named_and_nothing_is_written() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let events = [
            event("t", "run", "a"),
            poison("t", "run", "b"),
            event("t", "run", "c"),
        ];
        for sqlstate in ["XX001", "P0001", "23503"] {
            refuse_poison(&database, sqlstate).await;
            let result = writer
                .append(&database.pool, &batch(0, events.clone()))
                .await;
            match result {
                Err(AppendError::Fault { class, offset, .. }) => {
                    assert_eq!((class, offset), (FaultClass::Unlisted, Some(1)));
                }
                other => panic!("{sqlstate}: {other:?}"),
            }
            let written = "SELECT (SELECT count(*) FROM event_log.event)
                + (SELECT count(*) FROM event_log.dead_letter) + (SELECT next_offset FROM event_log.stream)";
            assert_eq!(database.number(written).await, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn an_event_that_a_trigger_swallows_is_named_and_nothing_is_written() {
    with_database(|database| async move {
        database
            .run(
                "CREATE FUNCTION swallow_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   IF NEW.event_type = 'Poison' THEN RETURN NULL; END IF;
                   RETURN NEW;
                 END $$;
                 CREATE TRIGGER swallow_poison BEFORE INSERT ON event_log.event
                   FOR EACH ROW EXECUTE FUNCTION swallow_poison()",
            )
            .await
            .unwrap();
        let events = [
            event("t", "run", "a"),
            poison("t", "run", "b"),
            event("t", "run", "c"),
        ];
        let mut writer = database.writer(0).await;
        match writer.append(&database.pool, &batch(0, events)).await {
            Err(AppendError::Fault { class, offset, .. }) => {
                assert_eq!((class, offset), (FaultClass::Unlisted, Some(1)));
            }
            other => panic!("{other:?}"),
        }
        let written = "SELECT (SELECT count(*) FROM event_log.event) + (SELECT next_offset FROM event_log.stream)";
        assert_eq!(database.number(written).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_unique_violation_that_comes_again_is_tried_a_few_times_and_then_left_to_the_environment()
{
    with_database(|database| async move {
        // As if another partition were always faster. Sequences do not roll back.
        database
            .run(
                "CREATE SEQUENCE tries START 1;
                 CREATE FUNCTION be_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   PERFORM nextval('tries');
                   RAISE EXCEPTION 'late' USING ERRCODE = 'unique_violation';
                 END $$;
                 CREATE TRIGGER be_late BEFORE INSERT ON event_log.event
                   FOR EACH ROW EXECUTE FUNCTION be_late()",
            )
            .await
            .unwrap();
        let mut writer = database.writer(0).await;
        let one = batch(0, [event("t", "run", "a")]);
        let result = writer.append(&database.pool, &one).await;
        match result {
            Err(AppendError::Fault { class, .. }) => assert_eq!(class, FaultClass::Environment),
            other => panic!("{other:?}"),
        }
        let tries = "SELECT last_value FROM tries";
        assert_eq!(
            database.number(tries).await,
            1 + 5,
            "one fast, five checked"
        );
        assert_eq!(dead_letters(&database).await, []);
        database
            .run("DROP TRIGGER be_late ON event_log.event")
            .await
            .unwrap();
        let appended = writer.append(&database.pool, &one).await.unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 1 }]);
    })
    .await;
}

#[tokio::test]
async fn a_fault_of_the_environment_never_makes_a_dead_letter() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let bad = event_with("t", "run", "bad", r#"{"a": "\u0000"}"#);
        // The last record's fault is met in the middle of the search for the first one's.
        let events = [bad, event("t", "run", "a"), poison("t", "run", "b")];
        for sqlstate in ["53100", "40001", "40P01", "55P03", "57P01"] {
            refuse_poison(&database, sqlstate).await;
            let result = writer
                .append(&database.pool, &batch(0, events.clone()))
                .await;
            match result {
                Err(AppendError::Fault { class, .. }) => assert_eq!(class, FaultClass::Environment),
                other => panic!("{sqlstate}: {other:?}"),
            }
            assert_eq!(dead_letters(&database).await, []);
        }
        database
            .run("DROP TRIGGER refuse_poison ON event_log.event")
            .await
            .unwrap();
        let appended = writer
            .append(&database.pool, &batch(0, events))
            .await
            .unwrap();
        let seqs = [1, 2].map(|run_seq| Outcome::Appended { run_seq });
        assert_eq!(appended.outcomes, [REFUSED, seqs[0], seqs[1]]);
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_bad_records_alone_is_a_batch_of_dead_letters() {
    with_database(|database| async move {
        let bad = |n| event_with("t", "run", &format!("{n}"), r#"{"a": "\u0000"}"#);
        let all = batch(0, (0..9).map(bad));
        let mut writer = database.writer(0).await;
        let appended = writer.append(&database.pool, &all).await.unwrap();
        assert_eq!(appended.outcomes, [REFUSED; 9]);
        let skipped = Batch {
            start: 9,
            end: 10,
            skipped: 1,
            records: Vec::new(),
        };
        writer.append(&database.pool, &skipped).await.unwrap();
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event")
                .await,
            0
        );
    })
    .await;
}

/// What the stored offset, the ledger and the letters say of a batch of which only the first records
/// were appended is what they say of a batch of just these.
#[tokio::test]
async fn a_turn_ends_within_a_batch_of_refused_records_and_the_rest_follows() {
    with_database(|database| async move {
        let bad = |n: i64| event_with("t", "run", &format!("{n}"), r#"{"a": "\u0000"}"#);
        let good = |n: i64| event("t", "run", &format!("{n}"));
        let events = (0..12).map(|n| if n % 3 == 0 { good(n) } else { bad(n) });
        let mut rest = batch(0, events);
        // Behind the last record, too.
        rest.end += 2;
        rest.skipped = 2;
        // Over at once: every append does the least that there is.
        let writer = database.writer(0).await;
        let mut writer = writer.in_turns_of(std::time::Duration::ZERO);
        let (mut outcomes, mut turns) = (Vec::new(), 0);
        loop {
            let appended = writer.append(&database.pool, &rest).await.unwrap();
            turns += 1;
            let stored = "SELECT next_offset FROM event_log.stream";
            assert_eq!(database.number(stored).await, appended.end);
            let all = "SELECT (SELECT count(*) FROM event_log.event) + (SELECT count(*) FROM event_log.dead_letter)";
            let (done, left) = rest.parted(appended.end);
            assert_eq!(done.records.len(), appended.outcomes.len());
            outcomes.extend(appended.outcomes);
            assert_eq!(database.number(all).await, outcomes.len() as i64);
            // The answer to the commit was lost: the same again is known to be done.
            let again = writer.append(&database.pool, &done).await.unwrap();
            assert_eq!(again.end, appended.end);
            rest = left;
            if rest.end == rest.start {
                break;
            }
        }
        let expected = (0..12).map(|n| match n % 3 {
            0 => Outcome::Appended { run_seq: n / 3 + 1 },
            _ => REFUSED,
        });
        assert_eq!(outcomes, expected.collect::<Vec<_>>());
        assert!(turns > 4, "{turns}");
        let ledger = "SELECT appended * 10000 + dead_lettered * 100 + skipped FROM event_log.stream";
        assert_eq!(database.number(ledger).await, 4_08_02);
    })
    .await;
}
