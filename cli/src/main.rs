//! `runlog`, the operator's command. Everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    runlog::main()
}
