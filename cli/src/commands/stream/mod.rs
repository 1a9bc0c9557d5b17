//! `runlog stream`: the ledger of the partitions, and what an operator decides about them.

mod act;
mod advice;
mod halted;
mod list;
mod plan;
mod resume;
mod rewind;

use std::fmt;

use anyhow::anyhow;
use clap::Subcommand;
use event_log::generation::{Generation, GenerationFilter, generations};
use service::exit::Exit;
use sqlx::PgPool;

use crate::app::App;
use crate::database::failed;

/// Look at the ledger of the partitions; decide where a halted one goes on; read one again
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Halted(halted::Args),
    Resume(resume::Args),
    Rewind(rewind::Args),
}

pub(crate) async fn run(command: &Command, app: &App) -> anyhow::Result<Exit> {
    match command {
        Command::List(args) => list::run(args, app).await,
        Command::Halted(args) => halted::run(args, app).await,
        Command::Resume(args) => resume::run(args, app).await,
        Command::Rewind(args) => rewind::run(args, app).await,
    }
}

/// A partition, as it is named on the command line and in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    topic: String,
    partition: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// TOPIC/PARTITION. A topic's name has no slash.
fn place(text: &str) -> Result<Place, String> {
    let parsed = text.split_once('/').and_then(|(topic, partition)| {
        let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
        (!topic.is_empty()).then(|| Place {
            topic: topic.to_owned(),
            partition,
        })
    });
    parsed
        .ok_or_else(|| "must be a topic and the number of a partition, as run-events/1".to_owned())
}

/// The open generation of a partition.
async fn open_generation(pool: &PgPool, place: &Place) -> anyhow::Result<Generation> {
    let filter = GenerationFilter {
        topic: Some(&place.topic),
        partition: Some(place.partition),
        closed: false,
    };
    let found = read(pool, filter).await?.into_iter().next();
    found.ok_or_else(|| {
        anyhow!("the log has never read {place}: `runlog stream list` shows what it reads")
    })
}

async fn read(pool: &PgPool, filter: GenerationFilter<'_>) -> anyhow::Result<Vec<Generation>> {
    let what = "read the ledger";
    let mut connection = pool.acquire().await.map_err(|error| failed(error, what))?;
    let found = generations(&mut connection, filter).await;
    found.map_err(|error| failed(error, what))
}

#[cfg(test)]
mod tests {
    use super::{Place, place};

    #[test]
    fn a_partition_is_a_topic_and_a_number() {
        let run_events = Place {
            topic: "run-events".to_owned(),
            partition: 12,
        };
        assert_eq!(place("run-events/12"), Ok(run_events));
        for text in [
            "run-events",
            "/1",
            "run-events/",
            "run-events/-1",
            "run-events/x",
            "a/b/1",
            "",
        ] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
