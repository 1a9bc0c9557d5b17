//! stream: the ledger, halted partitions, and what an operator decides about them.

use std::io::Write;
use std::process::Stdio;

use event_log::stream::{self, Claimant};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::log::{append, bytes, event};
use crate::support::{Place, Ran};

const WHY: [&str; 2] = ["--reason", "INC-17, a disk died"];

/// A topic of one partition with ten events, of which the log has the first six.
async fn half_read() -> Place {
    let place = Place::with_topic(1).await;
    let events: Vec<Value> = (0..10)
        .map(|run| event("acme", &format!("run-{run}"), "RunStarted"))
        .collect();
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    place
        .runlog_with(&["publish"], lines.join("\n").as_bytes())
        .done();
    append(&place, &bytes(&events[..6])).await;
    place
}

impl Place {
    async fn halt(&self, code: &str) {
        let pool = PgPool::connect_with(self.database.clone()).await.unwrap();
        let who = Claimant {
            group_id: "cli-tests".to_owned(),
            owner: "cli-tests".to_owned(),
        };
        let claim = stream::claim(&pool, &who, &self.topic, 0).await.unwrap();
        let halted = stream::halt(&pool, &claim.unwrap(), code, "as the test wants it").await;
        assert!(halted.unwrap());
    }

    fn partition(&self) -> String {
        format!("{}/0", self.topic)
    }

    fn stream(&self, act: &str, more: &[&str]) -> Ran {
        self.runlog(&[&["stream", act, &self.partition(), "-o", "json"], more].concat())
    }

    fn generations(&self) -> Vec<Value> {
        let listed = self
            .runlog(&["stream", "list", "--all", "-o", "json"])
            .done();
        listed.json().as_array().unwrap().clone()
    }

    async fn audit_rows(&self) -> i64 {
        let count = "SELECT count(*) FROM event_log.audit";
        sqlx::query_scalar(count)
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap()
    }

    async fn run_sql(&self, statement: String) {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.connection().await)
            .await
            .unwrap();
    }

    /// Asserts that nothing has been decided.
    async fn is_untouched(&self) {
        assert_eq!(self.generations().len(), 1);
        assert_eq!(self.audit_rows().await, 0);
    }
}

fn says(ran: &Ran, parts: &[&str]) {
    for part in parts {
        assert!(
            ran.stderr().contains(part),
            "lacks {part}: {}",
            ran.stderr()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_listed_by_topic_partition_and_generation() {
    let place = half_read().await;
    place
        .stream("rewind", &[&["--to", "2"], &WHY[..]].concat())
        .done();
    let all = place.generations();
    let brief = |row: &Value| {
        [
            "generation",
            "start_offset",
            "next_offset",
            "appended",
            "duplicates",
            "gap",
        ]
        .map(|column| row[column].clone())
    };
    assert_eq!(
        all.iter().map(brief).collect::<Vec<_>>(),
        [
            [
                json!(1),
                json!(0),
                json!(6),
                json!(6),
                json!(0),
                json!(null)
            ],
            [json!(2), json!(2), json!(2), json!(0), json!(0), json!(-4)],
        ]
    );
    assert!(all[0]["closed_at"].is_string() && all[1]["closed_at"].is_null());
    assert_eq!(
        (&all[1]["group_id"], &all[1]["owner"]),
        (&json!("cli-tests"), &json!(null))
    );
    let open = place
        .runlog(&["stream", "list", "-o", "json"])
        .done()
        .json();
    assert_eq!(open, json!([all[1]]));
    for filter in [["--topic", "elsewhere"], ["--partition", "7"]] {
        let none =
            place.runlog(&[&["stream", "list", "--all", "-o", "json"], &filter[..]].concat());
        assert_eq!(none.done().json(), json!([]), "{filter:?}");
    }
    let table = place.runlog(&["stream", "list", "--all"]).done().stdout();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("closed 2") && table.contains("open") && table.contains("-4"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn halted_partitions_are_named_with_their_way_out_and_end_with_1() {
    let place = half_read().await;
    let none = place.runlog(&["stream", "halted"]).done();
    assert!(
        none.stdout().contains("No partition is halted"),
        "{}",
        none.stdout()
    );
    assert_eq!(
        place
            .runlog(&["stream", "halted", "-o", "json"])
            .done()
            .json(),
        json!([])
    );
    place.halt("expired").await;
    let halted = place
        .runlog(&["stream", "halted", "-o", "json"])
        .ended(1)
        .json();
    let row = &halted[0];
    assert_eq!(
        (&row["code"], &row["reason"], &row["next_offset"]),
        (&json!("expired"), &json!("as the test wants it"), &json!(6))
    );
    assert!(row["since"].is_string(), "{row}");
    let resume = format!("runlog stream resume {}", place.partition());
    assert!(row["way_out"].as_str().unwrap().contains(&resume), "{row}");
    let table = place.runlog(&["stream", "halted"]).ended(1).stdout();
    assert!(
        table.contains("expired") && table.contains(&resume),
        "{table}"
    );
    place
        .runlog(&["stream", "halted", "--topic", "elsewhere"])
        .done();
    // Whoever looks elsewhere is sent here.
    for command in ["status", "doctor"] {
        let said = place.runlog(&[command]).stdout();
        assert!(said.contains("`runlog stream halted`"), "{command}: {said}");
    }
    // What an older version halted has neither code nor time.
    place
        .run_sql("UPDATE event_log.stream SET halted_code = NULL, halted_at = NULL".to_owned())
        .await;
    let older = place
        .runlog(&["stream", "halted", "-o", "json"])
        .ended(1)
        .json();
    assert_eq!(
        (&older[0]["code"], &older[0]["since"]),
        (&json!("stored"), &json!(null))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_partition_goes_on_at_the_oldest_record_once_somebody_agrees() {
    let place = half_read().await;
    place.delete_below(0, 8).await;
    place.halt("expired").await;
    let dry = place.stream("resume", &["--dry-run"]).done();
    says(&dry, &["nothing was changed"]);
    let plan = dry.json();
    let expected = json!({
        "topic": place.topic, "partition": 0, "closed_generation": 1, "opened_generation": 2,
        "next_offset": 6, "start_offset": 8, "kafka_low": 8, "kafka_high": 10,
        "halted_code": "expired", "halted_reason": "as the test wants it",
        "lost": 2, "left_out": 0, "read_again": 0, "to_read": 2,
        "dry_run": true, "operator": plan["operator"], "reason": null, "audit_id": null
    });
    assert_eq!(plan, expected);
    place.is_untouched().await;

    let refused = place.stream("resume", &WHY).ended(2);
    says(
        &refused,
        &["--yes", "--dry-run", "2 offsets that Kafka no longer has"],
    );
    place.is_untouched().await;

    let done = place
        .stream("resume", &[&["--yes"], &WHY[..]].concat())
        .done()
        .json();
    assert_eq!(
        (&done["dry_run"], &done["reason"]),
        (&json!(false), &json!(WHY[1]))
    );
    let rows = place.generations();
    assert_eq!(
        (&rows[1]["start_offset"], &rows[1]["gap"]),
        (&json!(8), &json!(2))
    );
    assert_eq!(rows[1]["halted_code"], json!(null));
    assert_eq!(rows[0]["halted_code"], "expired");
    let row =
        sqlx::query("SELECT audit_id, operator, action, subject, reason FROM event_log.audit")
            .fetch_one(&mut place.connection().await)
            .await
            .unwrap();
    assert_eq!(json!(row.get::<i64, _>(0)), done["audit_id"]);
    let texts = [1, 2, 3, 4].map(|column| row.get::<String, _>(column));
    let partition = place.partition();
    assert_eq!(texts[1..], ["stream.resume", &partition, WHY[1]]);
    assert!(
        texts[0].contains('@') && json!(texts[0]) == done["operator"],
        "{}",
        texts[0]
    );
    place.runlog(&["stream", "halted"]).done();
    let again = place
        .stream("resume", &[&["--yes"], &WHY[..]].concat())
        .ended(1);
    says(&again, &["is not halted", "rewind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_more_than_one_way_the_operator_must_choose() {
    let place = half_read().await;
    place.halt("recreated").await;
    let asked = place.stream("resume", &WHY).ended(2);
    says(
        &asked,
        &[
            "--at earliest  offset 0",
            "--at latest    offset 10: leaves out the 10 offsets",
        ],
    );
    assert!(!asked.stderr().contains("--at next"), "{}", asked.stderr());
    place.halt("refused").await;
    let asked = place.stream("resume", &["--dry-run"]).ended(2);
    says(
        &asked,
        &[
            "--at next      offset 6",
            "--at latest    offset 10: leaves out the 4 offsets",
        ],
    );
    place.is_untouched().await;
    let outside = place
        .stream("resume", &[&["--at", "11"], &WHY[..]].concat())
        .ended(1);
    says(&outside, &["offset 11", "10 is the next"]);
    let skipping = place
        .stream("resume", &[&["--at", "7"], &WHY[..]].concat())
        .ended(2);
    says(
        &skipping,
        &["1 offsets that Kafka has and that are left out"],
    );
    place.is_untouched().await;
    // The same offset again gives nothing up, so nobody has to agree.
    let done = place
        .stream("resume", &[&["--at", "next"], &WHY[..]].concat())
        .done()
        .json();
    assert_eq!(
        (&done["start_offset"], &done["left_out"]),
        (&json!(6), &json!(0))
    );
    assert_eq!(place.generations()[1]["gap"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_somebody_is_asked() {
    let place = half_read().await;
    place.halt("unreadable").await;
    let resume = format!(
        "{} stream resume {} --at 8 --reason because",
        env!("CARGO_BIN_EXE_runlog"),
        place.partition()
    );
    for (answer, code, generations) in [("no", 1, 1), ("y", 0, 2)] {
        // The program below is given a terminal by script(1).
        let runlog = place.command(&[]);
        let mut terminal = std::process::Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &resume, "/dev/null"]);
        let set = runlog
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        terminal
            .envs(set)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        terminal.current_dir(std::env::temp_dir());
        let mut child = terminal.spawn().unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        writeln!(keyboard, "{answer}").unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap()).ended(code);
        let screen = ran.stdout();
        assert!(
            screen.contains("Go on? [y/N]") && screen.contains("left out"),
            "{screen}"
        );
        assert_eq!(place.generations().len(), generations, "{answer}: {screen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_goes_back_to_an_offset_the_beginning_or_a_time_and_never_forward() {
    let place = half_read().await;
    place.delete_below(0, 1).await;
    let plan = |to: &str| place.stream("rewind", &["--dry-run", "--to", to]);
    let dry = plan("4").done();
    says(&dry, &["nothing was changed"]);
    let dry = dry.json();
    assert_eq!(
        (&dry["read_again"], &dry["left_out"], &dry["lost"]),
        (&json!(2), &json!(0), &json!(0))
    );
    assert_eq!(plan("earliest").done().json()["start_offset"], 1);
    assert_eq!(
        plan("2001-01-01T00:00:00Z").done().json()["start_offset"],
        1
    );
    says(
        &plan("2101-01-01T00:00:00Z").ended(1),
        &["no record of 2101"],
    );
    says(&plan("0").ended(1), &["offset 0", "from 1 on"]);
    for forward in ["6", "8", "11"] {
        says(
            &plan(forward).ended(1),
            &["has read up to offset 6", "nothing to read again"],
        );
    }
    place.is_untouched().await;
    place.stream("rewind", &["--to", "4"]).ended(2);
    place.is_untouched().await;

    let table = place.runlog(
        &[
            &["stream", "rewind", &place.partition(), "--to", "4"],
            &WHY[..],
        ]
        .concat(),
    );
    let table = table.done();
    says(&table, &["event_log.audit", "runlog status"]);
    let table = table.stdout();
    for part in [
        "REWIND",
        "generation 1 at offset 6",
        "generation 2 at offset 4",
        "2 offsets",
    ] {
        assert!(table.contains(part), "lacks {part}: {table}");
    }
    let yaml = place.runlog(
        &[
            &[
                "stream",
                "rewind",
                &place.partition(),
                "--to",
                "3",
                "-o",
                "yaml",
            ],
            &WHY[..],
        ]
        .concat(),
    );
    assert!(yaml.done().stdout().contains("opened_generation: 3"));
    assert_eq!(place.audit_rows().await, 2);
    let action: Vec<String> = sqlx::query_scalar("SELECT DISTINCT action FROM event_log.audit")
        .fetch_all(&mut place.connection().await)
        .await
        .unwrap();
    assert_eq!(action, ["stream.rewind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_cannot_be_asked_is_named() {
    let place = half_read().await;
    let rewind = |partition: &str| {
        let arguments = ["stream", "rewind", partition, "--to", "0", "--dry-run"];
        place.runlog(&arguments)
    };
    says(
        &rewind("elsewhere/0").ended(1),
        &["never read elsewhere/0", "runlog stream list"],
    );
    // In the ledger, and no longer in Kafka.
    place
        .run_sql(
            "INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset, skipped)
             VALUES ('gone', 0, 'g', 0, 5, 5)"
                .to_owned(),
        )
        .await;
    says(
        &rewind("gone/0").ended(1),
        &["no partition gone/0", &place.kafka],
    );
    let arguments = [
        "stream",
        "rewind",
        &place.partition(),
        "--to",
        "0",
        "--dry-run",
    ];
    let unreachable = place
        .command(&arguments)
        .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
        .output();
    says(&Ran::from(unreachable.unwrap()).ended(3), &["127.0.0.1:1"]);
    let unreachable = place
        .command(&["stream", "halted", "--set", "database.connect_timeout=1s"])
        .env("RUNLOG_DATABASE__URL", "postgres://u@127.0.0.1:1/x")
        .output();
    says(&Ran::from(unreachable.unwrap()).ended(3), &["127.0.0.1:1"]);
}
