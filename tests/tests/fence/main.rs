//! The fence between tenants and around history: ways over it, tried as every role, and what the catalogue says of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod analyst;
mod attempt;
mod catalogue;
mod commands;
mod migrate;
mod programs;
mod session;
mod start;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use attempt::Attempt;
use runlog_tests::Role;
use session::Session;
use world::{Who, World};

/// Characters of what is said of one attempt that got over.
const LONGEST: usize = 1500;

/// A line that is seen whether or not the test fails.
fn say(line: &str) {
    let written = writeln!(std::io::stderr(), "{line}");
    assert!(written.is_ok(), "{written:?}");
}

/// What the attempts may not change.
async fn state(world: &World) -> BTreeMap<String, Option<String>> {
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(include_str!("state.sql"))
        .fetch_all(&world.pipeline.database.pool)
        .await
        .unwrap();
    rows.into_iter().collect()
}

/// Where every tenant has rows.
const OWN_ROWS: [&str; 5] = [
    "event_log.run_events WHERE topic IS NOT NULL",
    "event_log.dead_letters WHERE topic IS NOT NULL",
    "read_model.run_current WHERE true",
    "read_model.run_snapshot WHERE true",
    "read_model.run_hourly WHERE true",
];

/// A fence that shuts everybody out would pass, too: an analyst sees every row of its own.
async fn own_rows_are_all_there(world: &World) -> anyhow::Result<()> {
    for who in [Who::Analyst, Who::AnalystOfTwo, Who::AnalystOfNone] {
        let tenants = who.tenants().join("', '");
        let counts = OWN_ROWS
            .map(|from| format!("SELECT count(*) FROM {from} AND tenant_id IN ('{tenants}')"));
        let count = counts.join(" UNION ALL ");
        let mut answers = Vec::new();
        for url in [world.url_of(who), world.pipeline.database.url.clone()] {
            answers.push(
                Session::open(&url)
                    .await?
                    .run(std::slice::from_ref(&count))
                    .await
                    .said,
            );
        }
        anyhow::ensure!(answers[0] == answers[1], "{}: {answers:?}", who.name());
        anyhow::ensure!(
            who.tenants().is_empty() || !answers[0].contains("\n0 |"),
            "{}: {answers:?}",
            who.name()
        );
    }
    Ok(())
}

/// What is not a statement of the attacker's own.
async fn beside_sql(world: &World, over: &mut Vec<String>) {
    for (name, done) in [
        ("commands of runlog", commands::commands(world).await),
        (
            "pg_dump by the backup's login",
            commands::backup(world).await,
        ),
        (
            "pg_dump by an analyst",
            commands::dump_of_an_analyst(world).await,
        ),
        ("own rows", own_rows_are_all_there(world).await),
    ] {
        let verdict = if done.is_ok() {
            "as it should be"
        } else {
            "NOT SO"
        };
        say(&format!("{name}: {verdict}"));
        over.extend(done.err().map(|error| format!("{name}: {error:#}")));
    }
}

/// The suite's own test: with one policy that lets everything through, and with the triggers of one table gone, it fails.
async fn holes_are_found(world: &World) {
    let pool = &world.pipeline.database.pool;
    let superuser = world.pipeline.database.url.clone();
    let holes = [
        (
            "ALTER POLICY own_tenants ON event_log.run USING (true)",
            "ALTER POLICY own_tenants ON event_log.run USING (tenant_id = ANY ((SELECT event_log.my_tenants())::text[]))",
        ),
        (
            "ALTER TABLE run_status_1.run_current DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE run_status_1.run_current ENABLE ROW LEVEL SECURITY",
        ),
        (
            "ALTER VIEW event_log.run_events SET (security_invoker = false); ALTER VIEW event_log.run_events OWNER TO CURRENT_USER",
            "ALTER VIEW event_log.run_events SET (security_invoker = true)",
        ),
    ];
    for (hole, mended) in holes {
        sqlx::raw_sql(hole).execute(pool).await.unwrap();
        let mut over = Vec::new();
        try_all(
            world,
            Who::Analyst,
            &world.url_of(Who::Analyst),
            "with a hole",
            analyst::reading(),
            &mut over,
        )
        .await;
        assert!(!over.is_empty(), "not found: {hole}");
        sqlx::raw_sql(mended).execute(pool).await.unwrap();
    }
    sqlx::raw_sql("DROP TRIGGER event_is_append_only ON event_log.event; DROP TRIGGER event_row_is_immutable ON event_log.event").execute(pool).await.unwrap();
    let mut over = Vec::new();
    try_all(
        world,
        Who::Nobody,
        &superuser,
        "without triggers",
        programs::immutable("SET LOCAL ROLE runlog_owner"),
        &mut over,
    )
    .await;
    assert!(over.len() >= 4, "{over:?}");
}

/// Every relation that there is, also one of a migration to come, and every column of those that are shown in part.
async fn relations(world: &World) -> Vec<Attempt> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.oid::regclass::text, '*' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'v') AND n.nspowner = 'runlog_owner'::regrole
         UNION
         SELECT c.oid::regclass::text, quote_ident(a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE a.attnum > 0 AND c.oid IN (SELECT attrelid FROM pg_attribute WHERE attacl::text LIKE '%runlog_analyst%')
         ORDER BY 1, 2",
    )
    .fetch_all(&world.pipeline.database.pool)
    .await
    .unwrap();
    let attempt = |(relation, column): &(String, String)| {
        let statement = format!("SELECT {column} FROM {relation}");
        Attempt::own_or_error(&statement, &[&statement])
    };
    rows.iter().map(attempt).collect()
}

/// Tries a list as one login and prints each attempt; what got over is added to `over`.
async fn try_all(
    world: &World,
    who: Who,
    url: &str,
    name: &str,
    attempts: Vec<Attempt>,
    over: &mut Vec<String>,
) -> usize {
    let mut attacker = Session::open(url).await.unwrap();
    let mut admin = Session::open(&world.pipeline.database.url).await.unwrap();
    let before = over.len();
    for attempt in &attempts {
        let judged = attempt
            .carry_out(world, who, &mut attacker, &mut admin)
            .await;
        let verdict = if judged.is_ok() {
            "refused"
        } else {
            "GOT OVER"
        };
        say(&format!("{name:16} {verdict:8} {}", attempt.what));
        if let Err(error) = judged {
            let report = format!("{name}: {}: {error:#}", attempt.what);
            over.push(report.chars().take(LONGEST).collect());
        }
    }
    let refused = attempts.len() - (over.len() - before);
    say(&format!(
        "{name}: tried {}, refused {refused}",
        attempts.len()
    ));
    attempts.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_over_the_fence() {
    let world = World::new().await.unwrap();
    let superuser = world.pipeline.database.url.clone();
    let (before, mut over, mut tried) = (state(&world).await, Vec::new(), 0);
    let mut ways = BTreeSet::new();
    for (who, attempts) in [
        (Who::Analyst, analyst::attempts()),
        (Who::Analyst, relations(&world).await),
        (Who::AnalystOfTwo, analyst::attempts()),
        (Who::AnalystOfNone, analyst::attempts()),
        (Who::Of(Role::Ingest), programs::ingest()),
        (Who::Of(Role::Projector), programs::projector()),
        (Who::Of(Role::Operator), programs::operator()),
        (Who::Of(Role::Backup), programs::backup()),
        (Who::Nobody, programs::nobody()),
    ] {
        ways.extend(attempts.iter().map(|attempt| attempt.what.clone()));
        tried += try_all(
            &world,
            who,
            &world.url_of(who),
            &who.name(),
            attempts,
            &mut over,
        )
        .await;
    }
    for (name, attempts) in [
        ("owner", programs::immutable("SET LOCAL ROLE runlog_owner")),
        ("owner reads", programs::owner_sees()),
        (
            "superuser",
            programs::immutable("SET LOCAL session_replication_role = replica"),
        ),
    ] {
        // A superuser's session, in which the attempt begins by being less.
        tried += try_all(&world, Who::Nobody, &superuser, name, attempts, &mut over).await;
    }
    say(&format!(
        "all: tried {tried}, refused {}, in {} ways",
        tried - over.len(),
        ways.len()
    ));
    beside_sql(&world, &mut over).await;
    let after = state(&world).await;
    let changed = before
        .iter()
        .filter(|(what, how)| after.get(*what) != Some(how));
    over.extend(changed.map(|(what, _)| format!("something changed: {what}")));
    over.extend(
        after
            .keys()
            .filter(|what| !before.contains_key(*what))
            .map(|what| format!("something is new: {what}")),
    );
    assert!(
        over.is_empty(),
        "{} got over the fence:\n{}",
        over.len(),
        over.join("\n")
    );
    holes_are_found(&world).await;
}
