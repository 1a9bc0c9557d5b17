//! `runlog tenant`: which tenants' rows the logins of analysts see.

use clap::Subcommand;
use event_log::generation::Operator;
use event_log::tenants::{self, Member, TenantError};
use serde::Serialize;
use service::exit::Exit;

use crate::app::App;
use crate::database::{connect, failed};
use crate::format::Time;
use crate::output::{Output, note, text};
use crate::reason::reason;

/// Decide which tenants' rows an analyst's login sees
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Grant(GrantArgs),
    Revoke(RevokeArgs),
    List(ListArgs),
}

/// Let a login see a tenant's rows
///
/// The login must be there and be a member of runlog_analyst. What it sees is decided by the database, by the login
/// itself, in every table and view; from its next statement on. Kept in event_log.audit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  psql -c \"CREATE ROLE alice LOGIN PASSWORD '...' IN ROLE runlog_analyst\"
  runlog tenant grant alice acme-retail --reason 'analyst of acme, OPS-7'
  runlog tenant list --login alice

Exit codes: 0 done, or it was so already; 1 refused: no such login, or it is no analyst's.")]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

/// No longer let a login see a tenant's rows
///
/// From its next statement on. Do it before you drop a login: a new one of the same name would see what the old one saw.
/// Kept in event_log.audit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog tenant revoke alice acme-retail --reason 'left the team'

Exit codes: 0 done, or it was so already.")]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// The login
    #[arg(value_name = "LOGIN")]
    login: String,

    /// The tenant; one that has no events yet may be named too
    #[arg(value_name = "TENANT", value_parser = tenant)]
    tenant: String,

    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

/// List which logins see which tenants' rows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog tenant list
  runlog tenant list --tenant acme-retail -o json

A login that is not there, or is no member of runlog_analyst, is marked: its row has no effect until there is such a
login again. Operators see all tenants and are not listed.")]
pub(crate) struct ListArgs {
    /// Only this login
    #[arg(long)]
    login: Option<String>,

    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report<'a> {
    login: &'a str,
    tenant_id: &'a str,
    /// false = it was so already.
    changed: bool,
}

/// A row of the list.
#[derive(Debug, Serialize)]
struct Row {
    login: String,
    tenant_id: String,
    granted_at: Time,
    granted_by: String,
    is_analyst: bool,
}

impl From<Member> for Row {
    fn from(member: Member) -> Self {
        Self {
            login: member.login,
            tenant_id: member.tenant_id,
            granted_at: Time(member.granted_at),
            granted_by: member.granted_by,
            is_analyst: member.is_analyst,
        }
    }
}

/// A tenant's id, as the contract has it.
fn tenant(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
        return Err("must be 1 to 256 bytes without control characters".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) async fn run(command: &Command, app: &App) -> anyhow::Result<Exit> {
    match command {
        Command::Grant(args) => change(&args.change, app, true, "now sees", "already sees").await,
        Command::Revoke(args) => {
            change(&args.change, app, false, "no longer sees", "did not see").await
        }
        Command::List(args) => list(args, app).await,
    }
}

async fn change(
    args: &ChangeArgs,
    app: &App,
    grants: bool,
    done: &str,
    before: &str,
) -> anyhow::Result<Exit> {
    let pool = connect(&app.config().database).await?;
    let name = service::operator_name();
    let by = Operator {
        name: &name,
        reason: &args.reason,
    };
    let (login, tenant_id) = (args.login.as_str(), args.tenant.as_str());
    let changed = if grants {
        tenants::grant(&pool, login, tenant_id, by).await
    } else {
        tenants::revoke(&pool, login, tenant_id, by).await
    };
    let changed = changed.map_err(|error| match error {
        TenantError::Database(error) => failed(error, "change who sees the tenant's rows"),
        refused => refused.into(),
    })?;
    let report = Report {
        login,
        tenant_id,
        changed,
    };
    app.output.document(&report, |_| {
        let words = if changed { done } else { before };
        format!("{login} {words} the rows of {tenant_id}.")
    })?;
    Ok(Exit::Done)
}

async fn list(args: &ListArgs, app: &App) -> anyhow::Result<Exit> {
    let pool = connect(&app.config().database).await?;
    let members = tenants::members(&pool, args.login.as_deref(), args.tenant.as_deref())
        .await
        .map_err(|error| failed(error, "list who sees which tenants' rows"))?;
    let rows: Vec<Row> = members.into_iter().map(Row::from).collect();
    app.output.document(&rows, |output| table(&rows, output))?;
    if let Some(row) = rows.iter().find(|row| !row.is_analyst) {
        note(format!(
            "{} is no analyst's login now; revoke what it had, unless it comes back.",
            row.login
        ));
    }
    Ok(Exit::Done)
}

fn table(rows: &[Row], output: &Output) -> String {
    if rows.is_empty() {
        return "No login sees any tenant's rows; `runlog tenant grant` lets one.".to_owned();
    }
    let mut table = output.table(&["LOGIN", "TENANT", "GRANTED", "BY", "ANALYST"]);
    for row in rows {
        table.add_row(vec![
            row.login.clone(),
            row.tenant_id.clone(),
            row.granted_at.to_string(),
            row.granted_by.clone(),
            if row.is_analyst { "yes" } else { "no" }.to_owned(),
        ]);
    }
    text(&table)
}
