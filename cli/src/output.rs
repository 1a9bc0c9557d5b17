//! Results on stdout: as tables for people, as JSON or YAML for programs. Notes on stderr.
//!
//! Called by every command. A table has colour only on a terminal and without NO_COLOR; a reader
//! that closes the pipe ends the program quietly.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use serde::Serialize;

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people
    Table,
    /// JSON, one document
    Json,
    /// YAML, one document
    Yaml,
}

/// Nobody reads stdout any more. Not a failure: `runlog runs list | head` ends this way.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub(crate) struct StdoutClosed;

/// How results are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// The chosen form.
    pub(crate) format: Format,
    terminal: bool,
    colour: bool,
}

impl Output {
    /// For this process's stdout.
    pub(crate) fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            format,
            terminal,
            colour: terminal && colour_wanted(std::env::var_os("NO_COLOR").as_deref()),
        }
    }

    /// Writes one document: `value` as JSON or YAML, or the text that `table` makes.
    ///
    /// # Errors
    /// [`StdoutClosed`], or why stdout cannot be written.
    pub(crate) fn document<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&Self) -> String,
    ) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table => table(self),
            // One line for programs, readable for people.
            Format::Json if self.terminal => serde_json::to_string_pretty(value)?,
            Format::Json => serde_json::to_string(value)?,
            Format::Yaml => serde_yaml_ng::to_string(value)?,
        };
        print(text.trim_end())
    }

    /// An empty table with these column names.
    pub(crate) fn table(&self, columns: &[&str]) -> Table {
        let mut table = Table::new();
        if self.terminal {
            table.load_style(UTF8_FULL_CONDENSED);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            // A line stays a line, however long, so that it can be searched.
            table.load_style(NOTHING);
            table.force_no_tty();
        }
        table.set_header(
            columns
                .iter()
                .map(|name| self.cell(name, Some(Look::Header))),
        );
        if !self.terminal {
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
        }
        table
    }

    /// A cell that shows a status in its colour.
    pub(crate) fn status(&self, text: &str) -> Cell {
        let look = match text {
            "COMPLETED" | "SUCCESS" | "ok" => Look::Good,
            "FAILED" | "INCONSISTENT" | "problem" => Look::Bad,
            "PAUSED" | "CANCELLED" | "SKIPPED" | "warning" | "pending" => Look::Doubtful,
            "RUNNING" => Look::Active,
            _ => return Cell::new(text),
        };
        self.cell(text, Some(look))
    }

    fn cell(&self, text: &str, look: Option<Look>) -> Cell {
        let cell = Cell::new(text);
        match look.filter(|_| self.colour) {
            None => cell,
            Some(Look::Header) => cell.add_attribute(Attribute::Bold),
            Some(Look::Good) => cell.fg(Color::Green),
            Some(Look::Bad) => cell.fg(Color::Red),
            Some(Look::Doubtful) => cell.fg(Color::Yellow),
            Some(Look::Active) => cell.fg(Color::Cyan),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Look {
    Header,
    Good,
    Bad,
    Doubtful,
    Active,
}

/// <https://no-color.org>: set to anything but empty, the variable turns colour off.
fn colour_wanted(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// A table as text without blanks at the ends of its lines.
pub(crate) fn text(table: &Table) -> String {
    table.trim_fmt()
}

/// Writes a text and a line end to stdout.
///
/// # Errors
/// [`StdoutClosed`], or why stdout cannot be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write_bytes(text.as_bytes()).and_then(|()| write_bytes(b"\n"))
}

/// Writes bytes to stdout as they are.
///
/// # Errors
/// [`StdoutClosed`], or why stdout cannot be written.
pub(crate) fn write_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        other => other.context("cannot write to stdout"),
    }
}

/// Writes a note for people to stderr. That nobody listens there is no reason to stop.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::{Format, Output, colour_wanted, text};

    fn output(terminal: bool, colour: bool) -> Output {
        Output {
            format: Format::Table,
            terminal,
            colour,
        }
    }

    fn sample(output: &Output) -> String {
        let mut table = output.table(&["RUN", "STATUS"]);
        table.add_row(vec!["r1".into(), output.status("FAILED")]);
        text(&table)
    }

    #[test]
    fn a_pipe_gets_plain_lines() {
        assert_eq!(sample(&output(false, false)), "RUN  STATUS\nr1   FAILED");
    }

    #[test]
    fn a_long_cell_stays_on_its_line_in_a_pipe() {
        let output = output(false, false);
        let mut table = output.table(&["DETAIL"]);
        table.add_row(vec!["word ".repeat(200)]);
        assert_eq!(text(&table).lines().count(), 2);
    }

    #[test]
    fn no_color_turns_colour_off() {
        assert!(colour_wanted(None));
        assert!(colour_wanted(Some(OsStr::new(""))));
        assert!(!colour_wanted(Some(OsStr::new("1"))));
        assert!(!sample(&output(true, false)).contains('\u{1b}'));
    }
}
