//! Lines that say what is going on, on standard error. Called by the measurements.

use std::io::Write as _;

/// Says something to whoever waits.
pub(crate) fn note(text: &str) {
    // Whoever does not want to read it may close standard error.
    let _ = writeln!(std::io::stderr(), "    {text}");
}

/// Begins a part.
pub(crate) fn step(text: &str) {
    let _ = writeln!(std::io::stderr(), "==> {text}");
}

/// Says why nothing came of it.
pub(crate) fn failure(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "runlog-bench: {error:#}");
}
