//! `runlog dlq list`: dead letters, oldest first, page by page.

use event_log::inspect::{self, DeadLetterFilter};
use service::exit::Exit;

use super::Letter;
use crate::app::App;
use crate::database::{connect, failed};
use crate::format::{or_dash, shortened};
use crate::output::{Output, note, text};
use crate::scope::ScopeArgs;

/// List dead letters, oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog dlq list --all-tenants
  runlog dlq list --tenant acme-retail --reason idempotency_conflict
  runlog dlq list --all-tenants --after 4711 --limit 500 -o json

Reasons: invalid_json, invalid_avro, unknown_schema, invalid_event, tenant_not_allowed,
idempotency_conflict, event_id_reused, too_large, unstorable, tombstone, key_mismatch,
unknown_content_type, run_retired.
A record that names no valid tenant belongs to nobody: only --all-tenants shows it.
BYTES are the value's; (cut) = only the first KiB is kept: ingest.dead_letters.max_bytes_per_tenant.
What a changed configuration would accept is read again by `runlog stream rewind`.")]
pub(crate) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,

    /// Only those with this reason
    #[arg(long)]
    reason: Option<String>,

    /// Only those from this topic
    #[arg(long)]
    topic: Option<String>,

    /// Only those with a higher number
    #[arg(long, default_value_t = 0, value_name = "ID")]
    after: i64,

    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "list dead letters"))?;
    let filter = DeadLetterFilter {
        tenant_id: scope.tenant(),
        reason: args.reason.as_deref(),
        topic: args.topic.as_deref(),
    };
    // One more than asked for tells whether there is a next page.
    let found = inspect::dead_letters(&mut connection, filter, args.after, args.limit + 1)
        .await
        .map_err(|error| failed(error, "list dead letters"))?;
    let more = found.len() as i64 > args.limit;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let letters: Vec<Letter> = found.into_iter().take(limit).map(Letter::from).collect();
    app.output.document(&letters, |output| {
        if letters.is_empty() {
            return format!("There are no such dead letters {}.", scope.phrase());
        }
        table(&letters, output)
    })?;
    if let Some(last) = letters.last().filter(|_| more) {
        note(format!("There are more: --after {}", last.dead_letter_id));
    }
    Ok(Exit::Done)
}

fn table(letters: &[Letter], output: &Output) -> String {
    let mut table = output.table(&[
        "ID", "RECEIVED", "REASON", "DETAIL", "TENANT", "RUN", "POSITION", "BYTES", "STATUS",
    ]);
    for letter in letters {
        table.add_row(vec![
            letter.dead_letter_id.into(),
            letter.received_at.into(),
            (&letter.reason).into(),
            shortened(&letter.detail, 80).into(),
            or_dash(letter.tenant_id.as_ref()).into(),
            or_dash(letter.run_id.as_ref()).into(),
            letter.position().into(),
            or_dash(letter.size()).into(),
            output.status(&letter.status),
        ]);
    }
    text(&table)
}
