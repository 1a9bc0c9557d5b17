//! `runlog retire`: retention. Takes runs that ended before a time out of the log and the read models, a few at a time,
//! each few an audited act of its own ([`acts`]). Ended in the middle, the same command goes on with what is left.

mod acts;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use event_log::generation::Operator;
use runlog_projectors::retention::Ended;
use serde::Serialize;
use service::exit::Exit;
use sqlx::PgConnection;

use crate::app::App;
use crate::consent::agreed;
use crate::database::{connect, failed};
use crate::format::count;
use crate::output::{Output, note, text};
use crate::reason::reason;
use crate::scope::{Scope, ScopeArgs};

/// Retention: take runs that ended long ago out of the log and the read models, for ever
///
/// Of each run a tombstone stays: its name, how many events it had and the end of its chain. The sums
/// over many runs (run_hourly, run_daily, step_daily) keep what they have counted.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("when").required(true),
    after_help = "\
Examples:
  runlog retire --older-than 400d --all-tenants --dry-run
  runlog retire --older-than 400d --all-tenants --reason 'retention, policy 7' --yes
  runlog retire --ended-before 2025-01-01 --tenant acme --reason 'contract ended' --limit 10000 --yes

Whole runs only, that have ended and have had no event since the time; runs that a projection has not applied to
their end or has parked stay, and so do all while a rebuild or `runlog verify --chain` is under way. A later event of
a retired run becomes a dead letter (run_retired): the run never begins again.

Ingest goes on: a few thousand events at a time are retired, in a fraction of a second each, with a pause after each.
It may be ended at any moment and started again. Kafka and backups still have the records, for as long as they keep them.

Exit codes: 0 done (or shown, with --dry-run), 1 something kept it from its end, 2 usage (also: --yes is missing),
3 PostgreSQL does not answer."
)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,

    /// Runs that ended before this day (UTC) or time
    #[arg(long, value_name = "DATE", group = "when", value_parser = date)]
    ended_before: Option<DateTime<Utc>>,

    /// Runs that ended longer ago than this, e.g. 400d
    #[arg(long, value_name = "DURATION", group = "when", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,

    /// No more runs than this
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = reason, required_unless_present = "dry_run")]
    reason: Option<String>,

    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Report {
    ended_before: DateTime<Utc>,
    /// Null = every tenant's.
    tenant: Option<String>,
    dry_run: bool,
    runs: u64,
    events: u64,
    /// Runs that ended before the time and stay, by what keeps them.
    kept: BTreeMap<String, u64>,
    /// The first and the last act's row of event_log.audit; null where there was none.
    first_audit_id: Option<i64>,
    last_audit_id: Option<i64>,
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "connect"))?;
    // It makes temporary tables, and a signal may end it in a transaction.
    connection.close_on_drop();
    let before = before(args, &mut connection).await?;
    let ended = Ended {
        tenant: scope.tenant(),
        before,
    };
    let (runs, events) = ended
        .count(&mut connection)
        .await
        .map_err(|error| failed(error, "count the runs"))?;
    if !args.dry_run && !args.yes && !asked(&scope, before, runs, events, args.limit)? {
        note("Nothing was changed.");
        return Ok(Exit::Problem);
    }
    let mut report = Report {
        ended_before: before,
        tenant: scope.tenant().map(str::to_owned),
        dry_run: args.dry_run,
        ..Report::default()
    };
    let (name, why) = (service::operator_name(), args.reason.clone());
    let by = Operator {
        name: &name,
        reason: why.as_deref().unwrap_or_default(),
    };
    let limit = args.limit.unwrap_or(u64::MAX);
    let done = acts::run(&mut connection, &ended, limit, by, runs, &mut report).await;
    app.output
        .document(&report, |output| table(&report, output))?;
    done?;
    note(
        match (
            report.dry_run,
            report.first_audit_id.zip(report.last_audit_id),
        ) {
            (true, _) => "A dry run: nothing was changed.".to_owned(),
            (false, None) => "There was nothing to retire.".to_owned(),
            (false, Some((first, last))) => {
                let and_last = match first == last {
                    true => String::new(),
                    false => format!(" to {last}"),
                };
                format!(
                    "Done, and kept as {first}{and_last} in event_log.audit. Kafka and backups still have the records, for \
                     as long as they keep them."
                )
            }
        },
    );
    Ok(Exit::Done)
}

/// The time that is meant, by the database's clock.
async fn before(args: &Args, connection: &mut PgConnection) -> anyhow::Result<DateTime<Utc>> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(connection)
        .await
        .map_err(|error| failed(error, "read the time"))?;
    let ago = args
        .older_than
        .and_then(|age| now.checked_sub_signed(chrono::TimeDelta::from_std(age).ok()?));
    Ok(args.ended_before.or(ago).unwrap_or(DateTime::UNIX_EPOCH))
}

fn asked(
    scope: &Scope,
    before: DateTime<Utc>,
    runs: i64,
    events: i64,
    limit: Option<u64>,
) -> anyhow::Result<bool> {
    let at_most = limit.map_or_else(String::new, |limit| format!(", {limit} of them at most"));
    agreed(&format!(
        "{} runs {} that ended before {}, with {} events{at_most}, leave the log for ever",
        count(runs),
        scope.phrase(),
        before.format("%Y-%m-%d %H:%M:%SZ"),
        count(events)
    ))
}

fn table(report: &Report, output: &Output) -> String {
    let mut table = output.table(&["ENDED BEFORE", "TENANT", "RUNS", "EVENTS", "KEPT"]);
    table.add_row(vec![
        report.ended_before.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        report.tenant.clone().unwrap_or_else(|| "(all)".to_owned()),
        report.runs.to_string(),
        report.events.to_string(),
        report.kept.values().sum::<u64>().to_string(),
    ]);
    let mut lines = vec![text(&table)];
    let kept = report.kept.iter();
    lines.extend(kept.map(|(why, runs)| format!("kept {runs}: {why}")));
    lines.join("\n")
}

/// A day, which begins at midnight UTC, or a time as RFC 3339 has it.
fn date(text: &str) -> Result<DateTime<Utc>, String> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let time = || DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    day.or_else(|_| time())
        .map_err(|_| "must be a day, as 2025-12-31, or a time, as 2025-12-31T22:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn a_date_is_a_day_or_a_time() {
        let at = |text| date(text).map(|time| time.to_rfc3339());
        assert_eq!(at("2025-12-31").as_deref(), Ok("2025-12-31T00:00:00+00:00"));
        let time = at("2025-12-31T23:00:00+01:00");
        assert_eq!(time.as_deref(), Ok("2025-12-31T22:00:00+00:00"));
        for text in ["", "yesterday", "2025-13-01", "2025-12-31T23:00:00", "400d"] {
            assert!(date(text).is_err(), "{text}");
        }
    }
}
