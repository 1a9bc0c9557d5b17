//! What a projection is: a name, and a way to apply events inside a transaction it does not own.
//! The runner ([`crate::runner`]) calls it; a new read model is one module that implements it and
//! one line in [`by_name`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use event_log::read::{Payloads, StreamEvent};
use run_events::RunEvent;
use sqlx::PgConnection;

use crate::run_stats::RunStatsProjection;
use crate::run_status::RunStatusProjection;
use crate::run_timeline::RunTimelineProjection;

/// What [`Projection::apply`] returns.
pub type ApplyFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Effects, ProjectionError>> + Send + 'a>>;

/// One read model.
pub trait Projection: Send + Sync {
    /// Its name in the configuration, the checkpoints and the metrics.
    fn name(&self) -> &'static str;

    /// Which events' payloads it reads. Another one may be there all the same (where a run's events are read
    /// by themselves), and must make no difference.
    fn payloads(&self) -> Payloads {
        Payloads::All
    }

    /// Writes what the events change. They come from one stream, in offset order, inside the
    /// transaction that will also move the checkpoint; the caller commits. They may have been
    /// applied before (by this stream's checkpoint being set back, or through another stream that
    /// had a gap to fill): applying them again changes nothing.
    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a>;
}

/// What applying a batch did beside its rows; counted once it is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    /// Alerts written for invalid transitions; one that was there already does not count.
    pub inconsistencies: u64,
}

/// Why a batch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The database's error.
    #[error("{doing}")]
    Database {
        /// What was being done, for people.
        doing: &'static str,
        /// What it answered.
        #[source]
        cause: sqlx::Error,
    },
    /// The log has a hole where events must be: it was changed by hand, or restored in part.
    #[error(
        "{run}: the log holds an event with runSeq {seen}, but not the one with runSeq {missing}; \
         restore the log"
    )]
    MissingEvent {
        /// Which run.
        run: RunName,
        /// The runSeq that is not there.
        missing: i64,
        /// The later one that is.
        seen: i64,
    },
    /// The database has a projection that this build does not know.
    #[error(
        "this build does not know the projection {projection}, of which there is version {version}: use one \
         that does, or remove the version"
    )]
    Unknown {
        /// Its name.
        projection: String,
        /// Its version.
        version: i32,
    },
    /// Another worker made the row of a run that had none when this batch began. Nothing is wrong: the
    /// batch is tried again at once.
    #[error("another worker began with one of these runs meanwhile")]
    Met,
    /// The projection panicked.
    #[error("the projection panicked, which is a bug: its log has the message; please report it")]
    Panicked,
    /// A row of the read model says what this build cannot have written.
    #[error("{run}: the read model holds {what}; rebuild the projection")]
    Corrupt {
        /// Which run.
        run: RunName,
        /// What is wrong.
        what: String,
    },
}

/// A run as messages name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunName {
    /// The tenant that owns it.
    pub tenant_id: String,
    /// Its id within the tenant.
    pub run_id: String,
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {:?} of tenant {:?}", self.run_id, self.tenant_id)
    }
}

impl RunName {
    /// The run of an event.
    pub(crate) fn of(event: &RunEvent) -> Self {
        Self {
            tenant_id: event.tenant_id.clone(),
            run_id: event.run_id.clone(),
        }
    }
}

impl ProjectionError {
    /// For `map_err`: the database's error, with what was being done.
    pub fn while_doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |cause| Self::Database { doing, cause }
    }
}

/// Every projection of this build, by name.
pub const NAMES: &[&str] = &[
    RunStatusProjection::NAME,
    RunTimelineProjection::NAME,
    RunStatsProjection::NAME,
];

/// The projection of that name; `None` where there is none.
pub fn by_name(name: &str) -> Option<Arc<dyn Projection>> {
    match name {
        RunStatusProjection::NAME => Some(Arc::new(RunStatusProjection)),
        RunTimelineProjection::NAME => Some(Arc::new(RunTimelineProjection)),
        RunStatsProjection::NAME => Some(Arc::new(RunStatsProjection)),
        _ => None,
    }
}
