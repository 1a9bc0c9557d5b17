//! Reads the runs of a range of numbers and has them judged. Called by [`super::verify`].
//!
//! Each page is one statement, so one short snapshot. Runs only grow at their ends, and an event is
//! visible no earlier than the one before it in its run: what a later page shows always continues what
//! an earlier one showed.

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::finding::{Finding, Kind, Place};
use super::row;
use super::run::RunCheck;
use super::{Found, Progress};
use crate::fault::{FaultClass, classify};

/// Events of a page, at most.
const MOST: i64 = 2_000;
/// Bytes of payload that a page ought to have: what bounds the time that a statement takes. Memory is
/// bounded by one event, since rows are judged as they arrive.
const PAGE_BYTES: i64 = 8 << 20;

/// Reads ranges over one connection.
pub(super) struct LogReader<'a> {
    connection: &'a mut PgConnection,
    progress: &'a Progress,
    limit: i64,
}

/// The run that is being read.
struct Current {
    run_no: i64,
    /// Tenant and run; `None` = `event_log.run` does not have it.
    name: Option<(String, String)>,
    check: RunCheck,
}

impl<'a> LogReader<'a> {
    pub(super) fn new(connection: &'a mut PgConnection, progress: &'a Progress) -> Self {
        Self {
            connection,
            progress,
            limit: MOST / 8,
        }
    }

    /// Judges the runs with numbers above `after` and up to `to`; whether there were any.
    pub(super) async fn range(
        &mut self,
        after: i64,
        to: i64,
        found: &mut Found,
    ) -> Result<bool, sqlx::Error> {
        let mut current = None;
        let mut place = (after, i64::MAX);
        loop {
            let page = self.page(&mut place, to, &mut current, found).await;
            match page {
                Ok(true) => {}
                Ok(false) => break,
                // It takes too long: go on in smaller pages, from where it came to.
                Err(error) if classify(&error) == FaultClass::Cancelled && self.limit > 1 => {
                    self.limit = (self.limit / 8).max(1);
                }
                Err(error) => return Err(error),
            }
        }
        let any_events = current.is_some();
        if let Some(run) = current {
            run.end(found);
        }
        let empty: Vec<i64> = sqlx::query_scalar(include_str!("../sql/verify_empty_runs.sql"))
            .bind(after)
            .bind(to)
            .fetch_all(&mut *self.connection)
            .await?;
        let any_runs = any_events || !empty.is_empty();
        found.empty_runs.extend(empty);
        Ok(any_runs)
    }

    /// The lowest run number above `after` that a run or an event has.
    pub(super) async fn next_run(&mut self, after: i64) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT least((SELECT min(run_no) FROM event_log.run WHERE run_no > $1),
                          (SELECT min(run_no) FROM event_log.event WHERE run_no > $1))",
        )
        .bind(after)
        .fetch_one(&mut *self.connection)
        .await
    }

    /// Judges the events behind `place`, which moves along; whether there may be more.
    async fn page(
        &mut self,
        place: &mut (i64, i64),
        to: i64,
        current: &mut Option<Current>,
        found: &mut Found,
    ) -> Result<bool, sqlx::Error> {
        let mut rows = sqlx::query(include_str!("../sql/verify_events.sql"))
            .bind(place.0)
            .bind(place.1)
            .bind(to)
            .bind(self.limit)
            .fetch(&mut *self.connection);
        let (mut events, mut bytes) = (0_i64, 0_i64);
        while let Some(row) = rows.try_next().await? {
            *place = (row.try_get(0)?, row.try_get(1)?);
            bytes += row.try_get::<Option<&str>, _>(18)?.map_or(0, str::len) as i64;
            events += 1;
            let run = match current.take() {
                Some(run) if run.run_no == place.0 => run,
                other => {
                    if let Some(run) = other {
                        run.end(found);
                    }
                    Current::begin(place.0, &row)?
                }
            };
            current.insert(run).event(&row, found)?;
        }
        drop(rows);
        self.progress.judged(events);
        let is_full = events == self.limit;
        if is_full {
            self.limit = next_limit(events, bytes);
        }
        Ok(is_full)
    }
}

/// How many events to read next, by what a full page held: at most twice as many.
fn next_limit(events: i64, bytes: i64) -> i64 {
    let each = bytes / events.max(1) + 1;
    (PAGE_BYTES / each).min(events * 2).clamp(1, MOST)
}

impl Current {
    fn begin(run_no: i64, row: &PgRow) -> Result<Self, sqlx::Error> {
        let tenant_id: Option<String> = row.try_get(19)?;
        let run_id: Option<String> = row.try_get(20)?;
        Ok(Self {
            run_no,
            name: tenant_id.zip(run_id),
            check: RunCheck::new(),
        })
    }

    fn event(&mut self, row: &PgRow, found: &mut Found) -> Result<(), sqlx::Error> {
        found.events += 1;
        let event = row::event(row)?;
        let tenant_id: &str = row.try_get(10)?;
        if let Some((owner, _)) = &self.name
            && owner != tenant_id
        {
            let what = format!(
                "runSeq {}: its tenant_id is {tenant_id:?}, not the run's",
                event.run_seq
            );
            self.check.fault(Kind::Tenant, event.run_seq, what);
        }
        self.check.event(&event);
        self.tell(found);
        Ok(())
    }

    fn end(mut self, found: &mut Found) {
        self.check.end();
        self.tell(found);
        let (head, chain) = self.check.head();
        found.runs += 1;
        found.erased += self.check.erased;
        match (&self.name, chain) {
            (Some((tenant_id, run_id)), Some(chain)) => {
                found.heads.add(tenant_id, run_id, head, chain);
            }
            (Some(_), None) => {}
            (None, _) => found.findings.push(Finding {
                kind: Kind::Run,
                place: self.place(),
                at: None,
                what: "the log has events of it, and event_log.run does not have the run"
                    .to_owned(),
                number: self.run_no,
            }),
        }
    }

    fn tell(&mut self, found: &mut Found) {
        for fault in std::mem::take(&mut self.check.faults) {
            found.findings.push(Finding {
                kind: fault.kind,
                place: self.place(),
                at: Some(fault.run_seq),
                what: fault.what,
                number: self.run_no,
            });
        }
    }

    fn place(&self) -> Place {
        match &self.name {
            Some((tenant_id, run_id)) => Place::Run {
                tenant_id: tenant_id.clone(),
                run_id: run_id.clone(),
            },
            None => Place::RunNo(self.run_no),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_grows_to_its_bound_and_shrinks_with_the_payloads() {
        assert_eq!(next_limit(250, 250 * 500), 500);
        assert_eq!(next_limit(2_000, 2_000 * 500), MOST);
        assert_eq!(next_limit(2_000, 2_000 * 1_000_000), 8);
        assert_eq!(next_limit(1, 64 << 20), 1);
        assert_eq!(next_limit(1, 10), 2);
    }
}
