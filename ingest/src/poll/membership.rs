//! One membership in the consumer group after the other: a new Kafka client takes part where the one
//! before can do nothing more, though Kafka could be reached. Called by [`crate::run`], on a thread of
//! its own; calls the [`Poller`].

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use service::exit::Unreachable;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Poller, reach};
use crate::group::Group;
use crate::settings::Settings;
use crate::{CLOSE_TIMEOUT, Shared, condition};

/// A static member that is fenced more often than [`FENCES`] within this time shares its name with
/// another process.
const FENCED_AGAIN: Duration = Duration::from_secs(60);
/// How often one may fence itself while its connection comes and goes.
const FENCES: usize = 4;
/// A static member's name that is taken for so long is another process's: the broker forgets a member
/// that is gone after 60 s at most, unless it was told otherwise (group.consumer.max.session.timeout.ms).
const RELEASED: Duration = Duration::from_secs(90);
/// How often a name that is taken is asked for.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Why a client can do nothing more, and a new one may.
#[derive(Debug)]
pub(super) enum ClientEnd {
    /// The broker takes its requests for another process's (KIP-345). A static member can do that to
    /// itself: it joins again after a lost connection, and a request from before is still on its way.
    Fenced(String),
    /// The broker takes its name for another process's (KIP-848). It may be its own from before it was
    /// killed.
    Taken(String),
    /// The broker refuses the group (KIP-848). It may be allowed again.
    Refused(String),
    /// It has forgotten every broker and looks for none, which librdkafka does where a broker that is
    /// starting names none (its issue 5301).
    Stranded(String),
    /// It was made from files of `kafka.security` that hold something else now.
    Renewed(&'static str),
}

impl ClientEnd {
    pub(super) fn renewed() -> anyhow::Error {
        Self::Renewed("the files of kafka.security have changed").into()
    }
}

impl fmt::Display for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced(words)
            | Self::Taken(words)
            | Self::Refused(words)
            | Self::Stranded(words) => f.write_str(words),
            Self::Renewed(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for ClientEnd {}

/// Runs consumers until `stop`, then lets the batches under way finish and leaves the group.
pub(crate) fn run(
    settings: &Settings,
    shared: &Arc<Shared>,
    runtime: &Handle,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut fenced: Vec<Instant> = Vec::new();
    let mut taken: Option<Instant> = None;
    let mut is_first = true;
    loop {
        let began = Instant::now();
        let error = match take_part(settings, shared, runtime.clone(), is_first, stop) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if began.elapsed() > FENCED_AGAIN {
            taken = None;
        }
        match error.downcast_ref() {
            Some(ClientEnd::Taken(words))
                if taken.get_or_insert_with(Instant::now).elapsed() < RELEASED =>
            {
                shared.health.set_unready(condition::KAFKA, words.clone());
                let _ = runtime.block_on(async { timeout(ASK_AGAIN, stop.cancelled()).await });
            }
            Some(ClientEnd::Fenced(_)) => {
                fenced.retain(|at| at.elapsed() < FENCED_AGAIN);
                fenced.push(Instant::now());
                if fenced.len() > FENCES {
                    return Err(error);
                }
            }
            Some(ClientEnd::Refused(_)) => {
                let _ = runtime.block_on(async { timeout(ASK_AGAIN, stop.cancelled()).await });
            }
            Some(ClientEnd::Stranded(_) | ClientEnd::Renewed(_)) => {}
            // Kafka went away again. Once it has worked, that may last.
            None if !is_first && error.is::<Unreachable>() => {}
            _ => return Err(error),
        }
        tracing::warn!("{error}; joining the group again with a new client");
        shared.metrics.renewed_clients.inc();
        is_first = false;
    }
}

/// One membership, from the first question to Kafka to the last answer.
fn take_part(
    settings: &Settings,
    shared: &Arc<Shared>,
    runtime: Handle,
    is_first: bool,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (config, renewal) = settings.current();
    let (notify, notices) = channel();
    let (tell, news) = channel();
    let group = Group::new(Arc::clone(shared), runtime, notify, tell);
    let consumer: BaseConsumer<Group> = config
        .create_with_context(group)
        .context("cannot make a Kafka consumer")?;
    let settings = (settings, renewal);
    if !reach::at_the_start(&consumer, shared, settings, is_first, stop)? {
        return Ok(());
    }
    let poller = Poller::new(&consumer, shared, &config, settings, notices, news);
    let result = poller.and_then(|poller| poller.run(stop));
    // Leaves the group, so that its other members take over at once. A client that can do nothing more
    // may not be able to do that either, and nobody waits for it.
    let within = match &result {
        Err(error) => match error.downcast_ref() {
            Some(ClientEnd::Renewed(_)) | None => CLOSE_TIMEOUT,
            Some(_) => Duration::ZERO,
        },
        Ok(()) => CLOSE_TIMEOUT,
    };
    close(consumer, within);
    result
}

/// Closes a client, and goes on without it when that takes longer than `within`: its partitions are
/// drained, and it takes part in nothing any more.
fn close(consumer: BaseConsumer<Group>, within: Duration) {
    consumer.context().retire();
    let (closed, closing) = channel();
    std::thread::spawn(move || {
        drop(consumer);
        // Nobody may be waiting any more.
        let _ = closed.send(());
    });
    if closing.recv_timeout(within).is_err() && !within.is_zero() {
        tracing::warn!("the Kafka client does not close in time; going on without it");
    }
}
