//! What an analyst gets from `runlog` and from pg_dump, with a login of its own: its own tenant's, and of anything else not
//! even whether it is there. And that a backup is whole.
//!
//! Called by the suite, on its world.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use runlog_tests::Database;
use runlog_tests::Role;
use runlog_tests::environment::{run_to_end, said};

use crate::world::{KINDS, Who, World};

/// Commands on one thing each; {some_...} is another tenant's, one that does not exist, or the login's own.
const COMMANDS: [&str; 12] = [
    "runs show {some_run} --tenant {some_tenant}",
    "runs show {some_run} --all-tenants",
    "runs show {some_run} --all-tenants -o json",
    "runs show {some_run} --tenant {some_tenant} --at-seq 2",
    "runs events {some_run} --tenant {some_tenant}",
    "runs events {some_run} --all-tenants -o json",
    "events find {some_event} --tenant {some_tenant}",
    "events find {some_event} --all-tenants",
    "events find {some_key} --all-tenants",
    "events find {some_key} --tenant {some_tenant} --run {some_run}",
    "dlq show {some_dead} --all-tenants",
    "dlq show {some_dead} --tenant {some_tenant} -o json",
];

/// The answer to a command: exit code and everything that it wrote, without what was asked for.
async fn answer(
    world: &World,
    who: Who,
    command: &str,
    whose: &str,
) -> Result<(Option<i32>, String)> {
    let mut program = world.pipeline.program("runlog");
    program.env("RUNLOG_DATABASE__URL", world.url_of(who));
    let (mut text, mut asked) = (command.to_owned(), Vec::new());
    for kind in KINDS {
        let value = &world.values[&format!("{whose}_{kind}")];
        let place = format!("{{some_{kind}}}");
        if text.contains(&place) {
            text = text.replace(&place, value);
            asked.push(value);
        }
    }
    program.args(text.split(' '));
    let output = run_to_end(program).await?;
    asked.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let said = said(&output);
    let masked = asked
        .iter()
        .fold(said, |said, value| said.replace(value.as_str(), "?"));
    Ok((output.status.code(), masked))
}

/// Every command: foreign and absent answer alike, own is shown.
pub(crate) async fn commands(world: &World) -> Result<()> {
    for command in COMMANDS {
        let foreign = answer(world, Who::Analyst, command, "foreign").await?;
        let absent = answer(world, Who::Analyst, command, "absent").await?;
        ensure!(
            foreign == absent,
            "`runlog {command}` tells what is there:\n{foreign:?}\n{absent:?}"
        );
        ensure!(foreign.0 == Some(1), "`runlog {command}`: {foreign:?}");
        let own = answer(world, Who::Analyst, command, "own").await?;
        ensure!(
            own.0 == Some(0),
            "`runlog {command}` does not show an analyst its own: {own:?}"
        );
    }
    let secrets = world.secrets(Who::Analyst);
    for command in [
        "runs list --all-tenants --limit 100",
        "dlq list --all-tenants",
        "tenant list",
        "stream list",
    ] {
        let (_, said) = answer(world, Who::Analyst, command, "own").await?;
        let leak = secrets.iter().find(|secret| said.contains(*secret));
        ensure!(leak.is_none(), "`runlog {command}` shows {leak:?}: {said}");
    }
    Ok(())
}

/// A program of PostgreSQL's, on a database.
fn postgres(name: &str, url: &str) -> Result<Command> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/stack");
    let output = Command::new(script).arg("pg-bin").output()?;
    ensure!(
        output.status.success(),
        "dev/stack pg-bin: {}",
        said(&output)
    );
    let folder = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let mut command = Command::new(folder.join(name));
    command.arg("--dbname").arg(url);
    Ok(command)
}

/// The rows of every table, as digests.
async fn rows(database: &Database) -> Result<Vec<(String, Option<String>)>> {
    let state: Vec<(String, Option<String>)> = sqlx::query_as(include_str!("state.sql"))
        .fetch_all(&database.pool)
        .await?;
    Ok(state
        .into_iter()
        .filter(|(what, _)| what.starts_with("rows of "))
        .collect())
}

/// A dump by the backup's login holds every row, of every tenant; without its flag there is none.
pub(crate) async fn backup(world: &World) -> Result<()> {
    let url = world.pipeline.database.url_of(Role::Backup);
    let output = run_to_end(postgres("pg_dump", &url)?).await?;
    let text = said(&output);
    ensure!(
        !output.status.success() && text.contains("row-level security"),
        "{text}"
    );

    let file = world.pipeline.environment.scratch_file("dump.sql");
    let mut dump = postgres("pg_dump", &url)?;
    dump.args(["--enable-row-security", "--file"]).arg(&file);
    let output = run_to_end(dump).await?;
    ensure!(output.status.success(), "{}", said(&output));
    let restored = Database::empty(&world.pipeline.environment).await?;
    let mut restore = postgres("psql", &restored.url)?;
    restore
        .args([
            "--quiet",
            "--no-psqlrc",
            "--set",
            "ON_ERROR_STOP=1",
            "--file",
        ])
        .arg(&file);
    let output = run_to_end(restore).await?;
    ensure!(output.status.success(), "{}", said(&output));
    let (all, again) = (
        rows(&world.pipeline.database).await?,
        rows(&restored).await?,
    );
    ensure!(
        all.len() > 20 && all == again,
        "{all:?}\n--- restored:\n{again:?}"
    );
    Ok(())
}

/// A dump by an analyst: refused as a whole, and of a table that it may read its own rows.
pub(crate) async fn dump_of_an_analyst(world: &World) -> Result<()> {
    let url = world.url_of(Who::Analyst);
    let mut whole = postgres("pg_dump", &url)?;
    whole.arg("--enable-row-security");
    let output = run_to_end(whole).await?;
    ensure!(
        !output.status.success() && said(&output).contains("permission denied"),
        "{}",
        said(&output)
    );
    let mut part = postgres("pg_dump", &url)?;
    part.args([
        "--enable-row-security",
        "--data-only",
        "--table=run_status_1.*",
    ]);
    let output = run_to_end(part).await?;
    let text = said(&output);
    ensure!(
        output.status.success() && text.contains("aardvark-run-1"),
        "{text}"
    );
    let secret = world
        .secrets(Who::Analyst)
        .into_iter()
        .find(|secret| text.contains(secret));
    secret
        .map_or(Ok(()), |secret| Err(anyhow::anyhow!("shows {secret}")))
        .context(text)
}
