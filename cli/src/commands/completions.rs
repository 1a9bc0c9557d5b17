//! `runlog completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;
use service::exit::Exit;

use crate::Cli;
use crate::output::write_bytes;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog completions bash > /etc/bash_completion.d/runlog
  runlog completions zsh > \"${fpath[1]}/_runlog\"
  runlog completions fish > ~/.config/fish/completions/runlog.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "runlog", &mut script);
    write_bytes(&script)?;
    Ok(Exit::Done)
}
