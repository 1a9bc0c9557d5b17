//! The database's part of `doctor`.

use chrono::{DateTime, Utc};
use event_log::read::stream_heads;
use event_log::{protection, schema};
use service::config::DatabaseConfig;
use sqlx::PgPool;

use super::{Check, Verdict};
use crate::database::{failed, reach};

/// The oldest PostgreSQL that is supported: security_invoker views came with it.
const OLDEST_VERSION: i32 = 150_000;
/// Clocks that differ by more are worth a look, in seconds.
const SKEW: f64 = 2.0;

#[derive(sqlx::FromRow)]
struct Server {
    version_num: i32,
    version: String,
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    standby: bool,
    clock: DateTime<Utc>,
}

pub(super) async fn checks(config: &DatabaseConfig) -> Vec<Check> {
    let pool = match reach(config, config.connect_timeout).await {
        Ok(pool) => pool,
        Err(error) => return vec![Check::failed("PostgreSQL", &error)],
    };
    let before = Utc::now();
    let server = ask(&pool).await;
    let after = Utc::now();
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            return vec![Check::failed(
                "PostgreSQL",
                &failed(error, "read its settings"),
            )];
        }
    };
    let mut checks = vec![version(&server)];
    checks.extend(durability(&server));
    if server.standby {
        checks.push(Check::problem(
            "PostgreSQL role",
            "this is a standby: it takes no writes",
            "point database.url at the primary",
        ));
    }
    checks.push(skew(before, server.clock, after));
    let schema = schema_version(&pool).await;
    let has_schema = schema.verdict == Verdict::Ok;
    checks.push(schema);
    if has_schema {
        checks.extend(protection(&pool).await);
    }
    checks.extend(halted(&pool).await);
    checks
}

async fn ask(pool: &PgPool) -> Result<Server, sqlx::Error> {
    sqlx::query_as(
        "SELECT current_setting('server_version_num')::int AS version_num,
                current_setting('server_version') AS version,
                current_setting('fsync') AS fsync,
                current_setting('full_page_writes') AS full_page_writes,
                current_setting('synchronous_commit') AS synchronous_commit,
                pg_is_in_recovery() AS standby,
                clock_timestamp() AS clock",
    )
    .fetch_one(pool)
    .await
}

fn version(server: &Server) -> Check {
    let found = format!("version {}", server.version);
    if server.version_num < OLDEST_VERSION {
        return Check::problem("PostgreSQL", found, "use PostgreSQL 15 or newer");
    }
    Check::ok("PostgreSQL", found)
}

/// Without these an acknowledged event can be lost when the server or its machine dies.
fn durability(server: &Server) -> Vec<Check> {
    let settings = [
        ("fsync", &server.fsync),
        ("full_page_writes", &server.full_page_writes),
        ("synchronous_commit", &server.synchronous_commit),
    ];
    let mut checks = Vec::new();
    for (name, value) in settings {
        let check = format!("PostgreSQL {name}");
        checks.push(if value == "off" {
            let way_out = format!("set {name} = on; without it a crash can lose committed events");
            Check::problem(&check, "off", way_out)
        } else {
            Check::ok(&check, value)
        });
    }
    checks
}

/// The database's clock is the authority for time; a host whose clock differs misleads its people.
fn skew(before: DateTime<Utc>, clock: DateTime<Utc>, after: DateTime<Utc>) -> Check {
    // The answer was made somewhere between question and receipt: only what lies outside counts.
    let early = (before - clock).as_seconds_f64();
    let late = (clock - after).as_seconds_f64();
    let off = early.max(late).max(0.0);
    if off > SKEW {
        return Check::warning(
            "clock of PostgreSQL",
            format!("differs from this host's by {off:.1} s"),
            "synchronise both clocks (chrony, systemd-timesyncd)",
        );
    }
    Check::ok("clock of PostgreSQL", "agrees with this host's")
}

async fn schema_version(pool: &PgPool) -> Check {
    match schema::check(pool).await {
        Ok(()) => Check::ok("schema", "has every migration of this build"),
        Err(error) => Check::failed("schema", &error.into()),
    }
}

/// What a superuser took down, or a restore did not bring back.
async fn protection(pool: &PgPool) -> Vec<Check> {
    const NAME: &str = "row-level security and triggers";
    let missing = match protection::missing(pool).await {
        Ok(missing) => missing,
        Err(error) => return vec![Check::failed(NAME, &failed(error, "look at them"))],
    };
    if missing.is_empty() {
        return vec![Check::ok(NAME, "stand as the migrations made them")];
    }
    let way_out = "make it again as migrations/ has it, find out who took it down, and run `runlog verify --chain`";
    missing
        .into_iter()
        .map(|what| Check::problem(NAME, what, way_out))
        .collect()
}

async fn halted(pool: &PgPool) -> Vec<Check> {
    // Without a schema there is nothing to look at, and its own check says so.
    let Ok(mut connection) = pool.acquire().await else {
        return Vec::new();
    };
    let Ok(heads) = stream_heads(&mut connection).await else {
        return Vec::new();
    };
    let open = heads.iter().filter(|head| head.closed_at.is_none());
    open.filter_map(|head| {
        let reason = head.halted_reason.as_ref()?;
        let check = format!("partition {}/{}", head.topic, head.partition);
        let way_out = "`runlog stream halted` says what it means and how it goes on";
        Some(Check::problem(&check, format!("halted: {reason}"), way_out))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::{Verdict, skew};

    #[test]
    fn only_what_the_round_trip_does_not_explain_is_skew() {
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        assert_eq!(skew(at(0), at(5), at(10)).verdict, Verdict::Ok);
        assert_eq!(skew(at(0), at(11), at(10)).verdict, Verdict::Ok);
        assert_eq!(skew(at(0), at(13), at(10)).verdict, Verdict::Warning);
        assert_eq!(skew(at(0), at(-3), at(10)).verdict, Verdict::Warning);
    }
}
