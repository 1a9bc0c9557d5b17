//! `runlog dlq`: the records that could not be appended.

mod list;
mod show;

use clap::Subcommand;
use event_log::inspect::DeadLetter;
use serde::Serialize;
use service::exit::Exit;

use crate::app::App;
use crate::format::{Time, count};

/// Look at dead letters: records that could not be appended
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Show(show::Args),
}

pub(crate) async fn run(command: &Command, app: &App) -> anyhow::Result<Exit> {
    match command {
        Command::List(args) => list::run(args, app).await,
        Command::Show(args) => show::run(args, app).await,
    }
}

/// A dead letter as it is shown, without its bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Letter {
    pub(crate) dead_letter_id: i64,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) source_offset: i64,
    pub(crate) tenant_id: Option<String>,
    pub(crate) run_id: Option<String>,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) received_at: Time,
    pub(crate) status: String,
    /// Whether only the first bytes of key, headers or value are kept.
    pub(crate) truncated: bool,
    /// Bytes of the whole value; none = a tombstone.
    pub(crate) value_bytes: Option<i64>,
}

impl Letter {
    /// topic/partition@offset.
    pub(crate) fn position(&self) -> String {
        format!("{}/{}@{}", self.topic, self.partition, self.source_offset)
    }

    /// The bytes of the whole value, and whether the letter was cut.
    pub(crate) fn size(&self) -> Option<String> {
        let cut = if self.truncated { " (cut)" } else { "" };
        let bytes = self.value_bytes.map(|bytes| count(bytes.unsigned_abs()));
        bytes.map(|bytes| format!("{bytes}{cut}"))
    }
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            dead_letter_id: letter.dead_letter_id,
            topic: letter.topic,
            partition: letter.partition,
            source_offset: letter.source_offset,
            tenant_id: letter.tenant_id,
            run_id: letter.run_id,
            reason: letter.reason,
            detail: letter.detail,
            received_at: Time(letter.received_at),
            status: letter.status,
            truncated: letter.truncated,
            value_bytes: letter.value_bytes,
        }
    }
}
