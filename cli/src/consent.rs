//! Asking before something is given up for ever. Called by the commands that destroy.

use std::io::{IsTerminal, Write};

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::Cli;

/// Whether somebody at a terminal says yes to `what`, a clause. Without a terminal nobody can be asked.
///
/// # Errors
/// A usage error that names --yes, where nobody can be asked.
pub(crate) fn agreed(what: &str) -> anyhow::Result<bool> {
    if !can_be_asked() {
        let message =
            format!("{what}: look at it with --dry-run, and say --yes if it is what you want");
        return Err(Cli::command()
            .error(ErrorKind::MissingRequiredArgument, message)
            .into());
    }
    let _ = write!(std::io::stderr(), "{what}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether somebody sits at a terminal.
pub(crate) fn can_be_asked() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
