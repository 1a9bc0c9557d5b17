//! What is wanted, beside what was measured: the medians decide. Pure; called by `report`.

use serde::Serialize;

use crate::compare::{Measured, Pair};
use crate::report::Row;
use crate::stats::Spread;

/// One goal.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// What is wanted.
    pub(crate) wanted: String,
    /// What was measured.
    pub(crate) measured: f64,
    /// Whether it is as wanted.
    pub(crate) reached: bool,
}

impl Goal {
    fn at_least(wanted: impl Into<String>, least: f64, measured: f64) -> Self {
        Self {
            wanted: wanted.into(),
            measured,
            reached: measured >= least,
        }
    }

    fn at_most(wanted: impl Into<String>, most: f64, measured: f64) -> Self {
        Self {
            wanted: wanted.into(),
            measured,
            reached: measured <= most,
        }
    }

    /// For the table.
    pub(crate) fn line(&self) -> String {
        let reached = if self.reached {
            "reached"
        } else {
            "not reached"
        };
        format!("{:<66} {:>10.2}  {reached}", self.wanted, self.measured)
    }
}

/// The goals that could be measured.
pub(crate) fn judge(measured: &Measured, rows: &[Row]) -> Vec<Goal> {
    let mut goals = of_rows(rows);
    goals.extend(cpu(&measured.pairs));
    goals.extend(memory(&measured.pairs));
    for latency in &measured.latency {
        let (rate, log, model) = (
            latency.rate,
            latency.acked_to_log,
            latency.acked_to_run_current,
        );
        if rate < 100 {
            let wanted = format!("{rate}/s: acknowledged to the log, median <= 5 ms");
            goals.push(Goal::at_most(wanted, 5.0, log.p50));
            continue;
        }
        let wanted = format!("{rate}/s: acknowledged to the log, p99 <= 50 ms");
        goals.push(Goal::at_most(wanted, 50.0, log.p99));
        let wanted = format!("{rate}/s: acknowledged to run_current, p99 <= 200 ms");
        goals.push(Goal::at_most(wanted, 200.0, model.p99));
    }
    if let Some(statements) = measured.idle.statements_per_second() {
        let wanted = "idle: statements per second <= 20";
        goals.push(Goal::at_most(wanted, 20.0, statements));
    }
    goals
}

fn of_rows(rows: &[Row]) -> Vec<Goal> {
    let goal = |row: &Row| {
        let (ratio, of) = row.ratio.as_ref()?;
        let least = match row.name.as_str() {
            "ingest: drain" => 0.75,
            "all together" => 0.5,
            _ => 1.0,
        };
        let wanted = format!("{} >= {least} x {of}", row.name);
        Some(Goal::at_least(wanted, least, ratio.median))
    };
    rows.iter().filter_map(goal).collect()
}

fn cpu(pairs: &[Pair]) -> Option<Goal> {
    let per_million = pairs.iter().filter_map(|p| {
        let cpu = p.drain.ingest.cpu_s + p.drain.servers.postgres_cpu_s?;
        Some(cpu / p.drain.events as f64 * 1e6)
    });
    let wanted = "drain: CPU of ingest and PostgreSQL <= 17 s per million events";
    Some(Goal::at_most(wanted, 17.0, Spread::of(per_million)?.median))
}

fn memory(pairs: &[Pair]) -> Vec<Goal> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let ingest = pairs.iter().map(|p| {
        mib(p
            .drain
            .ingest
            .peak_bytes
            .max(p.together.drained.ingest.peak_bytes))
    });
    let projectors = pairs.iter().map(|p| {
        let catch_up = p.projections.values().map(|c| c.projectors.peak_bytes);
        mib(catch_up.fold(p.together.projectors.peak_bytes, u64::max))
    });
    let ingest =
        Spread::of(ingest).map(|s| Goal::at_most("ingest: <= 200 MiB resident", 200.0, s.median));
    let projectors = Spread::of(projectors)
        .map(|s| Goal::at_most("projectors: <= 256 MiB resident", 256.0, s.median));
    ingest.into_iter().chain(projectors).collect()
}

#[cfg(test)]
mod tests {
    use super::{Goal, of_rows};
    use crate::report::Row;
    use crate::stats::Spread;

    fn row(name: &str, median: f64, of: &'static str) -> Row {
        let spread = Spread {
            median,
            least: 0.0,
            most: 9.0,
        };
        Row {
            name: name.to_owned(),
            rate: spread,
            ratio: Some((spread, of)),
            program_cpu: None,
            postgres_cpu: None,
            kafka_cpu: None,
            peak_bytes: None,
            wal_bytes: None,
        }
    }

    #[test]
    fn the_median_decides_and_the_limit_itself_is_reached() {
        let rows = [
            row("ingest: drain", 0.75, "the floor"),
            row("run_stats: catch-up", 0.99, "ingest"),
            row("all together", 0.5, "ingest"),
        ];
        let reached: Vec<bool> = of_rows(&rows).iter().map(|g| g.reached).collect();
        assert_eq!(reached, [true, false, true]);
        assert!(Goal::at_most("", 17.0, 17.0).reached);
        assert!(!Goal::at_most("", 17.0, 17.1).reached);
    }
}
