//! Records that go on flowing while something happens.
//!
//! Called by the suites. The producers of a round of chaos are another thing ([`crate::chaos::feed`]): they
//! outlive faults of the broker.

use crate::generator::Record;
use crate::oracle::Produced;
use crate::topic::Topic;
use anyhow::Result;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Records that are sent at once.
const BURST: usize = 25;
/// The pause between two bursts.
const PACE: Duration = Duration::from_millis(20);

/// A sender in the background.
pub struct Flow {
    end: watch::Sender<bool>,
    task: JoinHandle<Result<Vec<Produced>>>,
}

impl Flow {
    /// Sends the records little by little, again and again from the first one, until it is told to end.
    #[must_use]
    pub fn of(topic: &Topic, records: Vec<Record>) -> Self {
        let topic = topic.clone();
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut produced = Vec::new();
            for burst in records.chunks(BURST).cycle() {
                if *ended.borrow() && produced.len() >= records.len() {
                    break;
                }
                produced.extend(topic.send(burst).await?);
                tokio::time::sleep(PACE).await;
            }
            Ok(produced)
        });
        Self { end, task }
    }

    /// Whether records flow still. They do until the end, unless one could not be sent.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it, but not before each record was sent once; what was sent.
    ///
    /// # Errors
    /// Where a record could not be sent.
    pub async fn end(self) -> Result<Vec<Produced>> {
        self.end.send_replace(true);
        self.task.await?
    }
}
