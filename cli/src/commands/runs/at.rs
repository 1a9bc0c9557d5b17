//! `runlog runs show --at-seq` and `--at-time`: a run as it was after one of its events. The nearest
//! snapshot at or below it, and the events from there on, folded as the projectors fold them. Without a
//! snapshot it is all events from the first on. Called by `show`, in its transaction.

use event_log::{inspect, read};
use run_events::snapshot::Snapshot;
use run_events::{Applied, EventType, LoggedEvent, Micros, RunState, StepAttempt};
use serde::Serialize;
use sqlx::PgConnection;

use super::list::Run;
use super::show::{Inconsistency, Shown, Step, inconsistencies};
use crate::database::failed;
use crate::format::Time;

/// Events that are read at once.
const PAGE: i64 = 1_000;

/// The event that is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// The one with this runSeq.
    Seq(i64),
    /// The last one that was persisted at this time or before.
    Time(Micros),
}

/// Which state is shown, and what it was made from.
#[derive(Debug, Serialize)]
pub(super) struct At {
    pub(super) run_seq: i64,
    pub(super) persisted_at: Micros,
    /// The runSeq of the run's last event in the log.
    pub(super) last_run_seq: i64,
    /// Of the state that is shown, as `read_model.run_snapshot` has it.
    pub(super) digest: String,
    /// Where the fold began; null = before the run's first event.
    pub(super) snapshot: Option<Used>,
    pub(super) events_folded: i64,
}

/// The snapshot that the fold began with.
#[derive(Debug, Serialize)]
pub(super) struct Used {
    pub(super) run_seq: i64,
    pub(super) digest: String,
}

/// A run while it is folded.
struct Fold {
    state: Option<RunState>,
    persisted_at: Micros,
    /// Those after the snapshot.
    inconsistencies: Vec<Inconsistency>,
}

/// For the parser of `--at-seq`.
pub(super) fn run_seq(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| "a run's events count from 1: its first one has runSeq 1".to_owned())
}

/// For the parser of `--at-time`.
pub(super) fn time(text: &str) -> Result<Micros, String> {
    Micros::parse_rfc3339(text).ok_or_else(|| {
        "must be an RFC 3339 time with its offset, e.g. 2026-01-02T03:04:05Z".to_owned()
    })
}

/// The run as it was then.
///
/// # Errors
/// The database's; that the run had no such event; or that a snapshot or the log is damaged.
pub(super) async fn read(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: &str,
    moment: Moment,
) -> anyhow::Result<Shown> {
    let unread = |error| failed(error, "read the run");
    let run_no = read::run_no(&mut *connection, tenant_id, run_id).await;
    let run_no = run_no.map_err(unread)?.unwrap_or_default();
    let head = inspect::run_head(&mut *connection, run_no, None).await;
    let head = head.map_err(unread)?.unwrap_or(0);
    let run_seq = match moment {
        Moment::Seq(seq) if seq > head => anyhow::bail!(
            "the run {run_id} has {head} events so far: --at-seq must be from 1 to {head}"
        ),
        Moment::Seq(seq) => seq,
        Moment::Time(time) => {
            let by_then = inspect::run_head(&mut *connection, run_no, Some(time)).await;
            match by_then.map_err(unread)? {
                Some(seq) => seq,
                None => return too_early(connection, run_no, run_id, time).await,
            }
        }
    };
    let (used, mut fold) = nearest_snapshot(connection, tenant_id, run_id, run_seq).await?;
    let begins = used.as_ref().map_or(0, |used| used.run_seq);
    fold_up_to(connection, run_no, run_id, run_seq, begins, &mut fold).await?;
    let state = fold.state.as_ref();
    let state = state.ok_or_else(|| anyhow::anyhow!("the run {run_id} has no events"))?;
    let digest = Snapshot::from(state).digest();
    // What is in the read model with the snapshot, and what was found since.
    let mut inconsistencies = inconsistencies(connection, tenant_id, run_id, begins)
        .await
        .map_err(unread)?;
    inconsistencies.append(&mut fold.inconsistencies);
    Ok(Shown {
        run: Run::from(state),
        steps: steps(state),
        inconsistencies,
        at: Some(At {
            run_seq,
            persisted_at: fold.persisted_at,
            last_run_seq: head,
            digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
            snapshot: used,
            events_folded: run_seq - begins,
        }),
    })
}

async fn too_early<T>(
    connection: &mut PgConnection,
    run_no: i64,
    run_id: &str,
    time: Micros,
) -> anyhow::Result<T> {
    let first = read::run_events(connection, run_no, 1, 1, 1)
        .await
        .map_err(|error| failed(error, "read the run"))?;
    let first = first.first().map(|first| first.logged.persisted_at);
    let since = first.map_or_else(|| "-".to_owned(), |first| first.to_string());
    anyhow::bail!(
        "the run {run_id} had no event by {time}: its first one was persisted at {since} (the log's clock; \
         emittedAt may be earlier)"
    )
}

/// The newest snapshot at or below the event, checked; without one, the beginning.
async fn nearest_snapshot(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: &str,
    run_seq: i64,
) -> anyhow::Result<(Option<Used>, Fold)> {
    let found: Option<(i64, String, Vec<u8>, Time)> = sqlx::query_as(
        "SELECT run_seq, state::text, digest, persisted_at
         FROM read_model.run_snapshot
         WHERE tenant_id = $1 AND run_id = $2 AND run_seq <= $3
         ORDER BY run_seq DESC
         LIMIT 1",
    )
    .bind(tenant_id)
    .bind(run_id)
    .bind(run_seq)
    .fetch_optional(connection)
    .await
    .map_err(|error| failed(error, "read the run's snapshots"))?;
    let Some((at, document, digest, persisted_at)) = found else {
        let beginning = Fold {
            state: None,
            persisted_at: Micros(0),
            inconsistencies: Vec::new(),
        };
        return Ok((None, beginning));
    };
    let snapshot = Snapshot::from_json(&document).ok();
    let is_whole = |snapshot: &Snapshot| {
        snapshot
            .digest()
            .is_some_and(|found| found.0.as_slice() == digest)
    };
    let Some(snapshot) = snapshot.filter(is_whole) else {
        anyhow::bail!(
            "the snapshot of the run {run_id} at runSeq {at} is not what was stored: its digest is another; \
             `runlog rebuild run_status` makes the snapshots anew from the log"
        );
    };
    let used = Used {
        run_seq: at,
        digest: hex::encode(&digest),
    };
    let fold = Fold {
        state: Some(RunState::from(snapshot)),
        persisted_at: Micros::from(persisted_at.0),
        inconsistencies: Vec::new(),
    };
    Ok((Some(used), fold))
}

/// Folds the events after `begins` up to `run_seq`.
async fn fold_up_to(
    connection: &mut PgConnection,
    run_no: i64,
    run_id: &str,
    run_seq: i64,
    begins: i64,
    fold: &mut Fold,
) -> anyhow::Result<()> {
    let mut next = begins + 1;
    while next <= run_seq {
        let page = read::run_events(&mut *connection, run_no, next, run_seq, PAGE)
            .await
            .map_err(|error| failed(error, "read the run's events"))?;
        let before = next;
        for event in &page {
            fold.apply(&event.logged);
            next += i64::from(event.logged.run_seq == next);
        }
        if next == before {
            anyhow::bail!(
                "the run {run_id} has an event with runSeq {run_seq} in the log, but none with runSeq {next}; \
                 restore the log"
            );
        }
    }
    Ok(())
}

impl Fold {
    fn apply(&mut self, logged: &LoggedEvent) {
        let state = self.state.get_or_insert_with(|| RunState::before(logged));
        self.persisted_at = logged.persisted_at;
        if let Applied::Invalid(what) = state.apply(logged) {
            self.inconsistencies.push(Inconsistency::of(logged, what));
        }
    }
}

impl Inconsistency {
    fn of(logged: &LoggedEvent, what: run_events::Inconsistency) -> Self {
        let event = &logged.event;
        let is_step = matches!(event.event_type, EventType::Step(_));
        Self {
            event_id: event.event_id,
            event_type: event.event_type.to_string(),
            run_seq: logged.run_seq,
            persisted_at: at(logged.persisted_at),
            step_id: event.step_id.clone().filter(|_| is_step),
            logical_attempt_id: is_step.then_some(event.logical_attempt_id),
            prior_state: what.prior_state.to_owned(),
            attempted_state: what.attempted_state.to_owned(),
            code: run_events::Inconsistency::CODE.to_owned(),
        }
    }
}

fn at(time: Micros) -> Time {
    Time(time.to_datetime())
}

impl From<&RunState> for Run {
    fn from(state: &RunState) -> Self {
        let count = |number| i32::try_from(number).unwrap_or(i32::MAX);
        Self {
            tenant_id: state.tenant_id.clone(),
            run_id: state.run_id.clone(),
            project_id: state.project_id.clone(),
            environment_id: state.environment_id.clone(),
            plan_id: state.plan_id.clone(),
            plan_version: state.plan_version.clone(),
            status: state.status.as_str().to_owned(),
            consistency: state.consistency().to_owned(),
            last_event_seq: state.last_event_seq,
            queued_at: state.queued_at.map(at),
            started_at: state.started_at.map(at),
            ended_at: state.ended_at.map(at),
            sort_at: at(state.sort_at()),
            emitted_started_at: state.emitted_started_at.map(at),
            emitted_ended_at: state.emitted_ended_at.map(at),
            queue_wait_ms: state.queue_wait_ms(),
            active_ms: Some(state.active_ms()),
            paused_ms: Some(state.paused_ms()),
            wall_ms: state.wall_ms(),
            emitted_wall_ms: state.emitted_wall_ms(),
            steps_running: count(state.step_counts.running),
            steps_succeeded: count(state.step_counts.succeeded),
            steps_failed: count(state.step_counts.failed),
            steps_skipped: count(state.step_counts.skipped),
            retries: count(state.retries),
            error: state.error.clone(),
            projected_at: None,
        }
    }
}

/// In the order in which `runs show` lists the rows of `read_model.step_attempt`.
fn steps(state: &RunState) -> Vec<Step> {
    let attempts = state.steps.iter().flat_map(|(step_id, attempts)| {
        attempts
            .iter()
            .map(move |(attempt_id, attempt)| (step_id, *attempt_id, attempt))
    });
    let mut attempts: Vec<(&String, i32, &StepAttempt)> = attempts.collect();
    attempts.sort_by_key(|(_, _, attempt)| attempt.started_at.or(attempt.completed_at));
    attempts
        .into_iter()
        .map(|(step_id, logical_attempt_id, attempt)| Step {
            step_id: step_id.clone(),
            logical_attempt_id,
            engine_attempt_id: attempt.engine_attempt_id,
            status: attempt.status.as_str().to_owned(),
            started_at: attempt.started_at.map(at),
            completed_at: attempt.completed_at.map(at),
            duration_ms: attempt.duration_ms(),
            emitted_started_at: attempt.emitted_started_at.map(at),
            emitted_completed_at: attempt.emitted_completed_at.map(at),
            error: attempt.error.clone(),
        })
        .collect()
}
