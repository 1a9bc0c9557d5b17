//! The projection `run_last_event`: the last event of each run.

use chrono::{DateTime, Utc};
use event_log::read::StreamEvent;
use run_events::LoggedEvent;
use runlog_projectors::by_run::{self, ByRun, RunModel};
use runlog_projectors::projection::{ApplyFuture, Effects, Projection, ProjectionError, RunName};
use sqlx::PgConnection;

pub(crate) struct RunLastEvent;

/// A run, with its last event once there is a new one.
pub(crate) struct Run {
    name: RunName,
    last_event_seq: i64,
    latest: Option<(String, DateTime<Utc>)>,
}

impl Projection for RunLastEvent {
    fn name(&self) -> &'static str {
        "run_last_event"
    }

    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a> {
        Box::pin(by_run::apply::<Self>(transaction, events))
    }
}

impl RunModel for RunLastEvent {
    type Run = Run;

    async fn lock(
        connection: &mut PgConnection,
        by_run: &ByRun<'_>,
    ) -> Result<Vec<Run>, ProjectionError> {
        let tenants: Vec<&str> = by_run.keys().map(|run| run.tenant_id.as_str()).collect();
        let runs: Vec<&str> = by_run.keys().map(|run| run.run_id.as_str()).collect();
        // A row for each run, so that there is something to lock. Overwritten before the commit.
        sqlx::query(
            "INSERT INTO run_last_event (tenant_id, run_id, last_event_seq, event_type, persisted_at)
             SELECT tenant_id, run_id, 0, '', 'epoch'
             FROM unnest($1::text[], $2::text[]) AS new (tenant_id, run_id)
             ON CONFLICT DO NOTHING",
        )
        .bind(&tenants)
        .bind(&runs)
        .execute(&mut *connection)
        .await
        .map_err(ProjectionError::while_doing("cannot insert new runs"))?;
        let last: Vec<i64> = sqlx::query_scalar(
            "SELECT t.last_event_seq FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
             JOIN run_last_event t USING (tenant_id, run_id)
             ORDER BY t.tenant_id, t.run_id FOR UPDATE OF t",
        )
        .bind(tenants)
        .bind(runs)
        .fetch_all(connection)
        .await
        .map_err(ProjectionError::while_doing("cannot lock the runs"))?;
        let run = |(name, last_event_seq): (&RunName, i64)| Run {
            name: name.clone(),
            last_event_seq,
            latest: None,
        };
        Ok(by_run.keys().zip(last).map(run).collect())
    }

    fn next_seq(run: &Run) -> i64 {
        run.last_event_seq + 1
    }

    fn apply(run: &mut Run, logged: &LoggedEvent) {
        if logged.run_seq == Self::next_seq(run) {
            let event_type = logged.event.event_type.as_str().to_owned();
            run.last_event_seq = logged.run_seq;
            run.latest = Some((event_type, logged.persisted_at.to_datetime()));
        }
    }

    async fn write(
        connection: &mut PgConnection,
        runs: &[Run],
    ) -> Result<Effects, ProjectionError> {
        let changed = || {
            runs.iter()
                .filter_map(|run| Some((run, run.latest.as_ref()?)))
        };
        sqlx::query(
            "UPDATE run_last_event t
             SET last_event_seq = new.last_event_seq, event_type = new.event_type,
                 persisted_at = new.persisted_at, projected_at = clock_timestamp()
             FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[])
               AS new (tenant_id, run_id, last_event_seq, event_type, persisted_at)
             WHERE t.tenant_id = new.tenant_id AND t.run_id = new.run_id",
        )
        .bind(
            changed()
                .map(|(run, _)| run.name.tenant_id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            changed()
                .map(|(run, _)| run.name.run_id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            changed()
                .map(|(run, _)| run.last_event_seq)
                .collect::<Vec<_>>(),
        )
        .bind(
            changed()
                .map(|(_, latest)| latest.0.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(changed().map(|(_, latest)| latest.1).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map_err(ProjectionError::while_doing("cannot write the runs"))?;
        Ok(Effects::default())
    }
}
