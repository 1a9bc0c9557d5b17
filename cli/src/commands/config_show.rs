//! `runlog config show`: every key, its value and where it came from.

use clap::Subcommand;
use service::exit::Exit;

use crate::app::App;
use crate::output::text;

/// Look at the configuration
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print every key with its value and what set it; secrets are masked
    #[command(after_help = "\
Examples:
  runlog config show
  runlog config show --config /etc/runlog.toml
  runlog config show -o json | jq -r '.[] | select(.source != \"default\") | .key'")]
    Show,
}

pub(crate) fn run(app: &App) -> anyhow::Result<Exit> {
    let entries = app.loaded.entries();
    app.output.document(&entries, |output| {
        let mut table = output.table(&["KEY", "VALUE", "SOURCE"]);
        for entry in &entries {
            table.add_row([&entry.key, &entry.value, &entry.source.to_string()]);
        }
        text(&table)
    })?;
    Ok(Exit::Done)
}
