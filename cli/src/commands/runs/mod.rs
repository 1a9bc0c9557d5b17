//! `runlog runs`: the runs as the read model has them, or as they were after one of their events, and
//! their events as the log has them.

mod at;
mod events;
mod list;
mod parked;
mod show;
mod summary;

use clap::Subcommand;
use event_log::inspect;
use service::exit::Exit;
use sqlx::PgConnection;

use crate::app::App;
use crate::database::failed;
use crate::scope::Scope;

/// Look at runs
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Show(show::Args),
    Summary(summary::Args),
    Events(events::Args),
    Parked(parked::ParkedArgs),
    Release(parked::ReleaseArgs),
}

pub(crate) async fn run(command: Command, app: &App) -> anyhow::Result<Exit> {
    match command {
        Command::List(args) => list::run(&args, app).await,
        Command::Show(args) => show::run(&args, app).await,
        Command::Summary(args) => summary::run(&args, app).await,
        Command::Events(args) => events::run(&args, app).await,
        Command::Parked(args) => parked::list(&args, app).await,
        Command::Release(args) => parked::release(&args, app).await,
    }
}

/// The tenant of the run that is meant.
///
/// # Errors
/// That there is no such run in the scope, in the same words whether it is absent or another
/// tenant's; or that several tenants have one.
pub(crate) async fn tenant_of(
    connection: &mut PgConnection,
    scope: &Scope,
    run_id: &str,
) -> anyhow::Result<String> {
    let mut tenants = inspect::tenants_of_run(connection, scope.tenant(), run_id)
        .await
        .map_err(|error| failed(error, "look for the run"))?;
    match tenants.len() {
        0 => anyhow::bail!(
            "there is no run {run_id} {}; `runlog runs list` shows those there are",
            scope.phrase()
        ),
        1 => Ok(tenants.remove(0)),
        _ => anyhow::bail!(
            "{} tenants have a run {run_id} ({}); name one with --tenant",
            tenants.len(),
            tenants.join(", ")
        ),
    }
}
