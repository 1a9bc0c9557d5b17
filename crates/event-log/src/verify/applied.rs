//! Compares how far a reader says it has applied runs with how far the log goes. Called by
//! `runlog verify --chain` with what the read model says.

use sqlx::PgConnection;

use super::finding::{Finding, Findings, Kind, Place};
use super::run::missing;

/// A run, as far as a reader has applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The tenant that owns it.
    pub tenant_id: String,
    /// Its id within the tenant.
    pub run_id: String,
    /// The last runSeq that was applied.
    pub run_seq: i64,
}

/// The runs that were applied further than the log goes: their tails are missing. What was applied is to
/// be read before this is called; then a log that grows makes no finding.
///
/// # Errors
/// The database's.
pub async fn beyond(
    connection: &mut PgConnection,
    applied: &[Applied],
) -> Result<Findings, sqlx::Error> {
    let tenants: Vec<&str> = applied.iter().map(|run| run.tenant_id.as_str()).collect();
    let runs: Vec<&str> = applied.iter().map(|run| run.run_id.as_str()).collect();
    let seqs: Vec<i64> = applied.iter().map(|run| run.run_seq).collect();
    let beyond: Vec<(String, String, i64, i64, bool)> =
        sqlx::query_as(include_str!("../sql/verify_applied.sql"))
            .bind(tenants)
            .bind(runs)
            .bind(seqs)
            .fetch_all(connection)
            .await?;
    let mut findings = Findings::default();
    for (tenant_id, run_id, run_seq, head, is_known) in beyond {
        let log = match (is_known, head) {
            (false, _) => "does not have the run".to_owned(),
            (true, 0) => "has no event of the run".to_owned(),
            (true, head) => format!("ends at {head}"),
        };
        findings.push(Finding {
            kind: Kind::Tail,
            place: Place::Run { tenant_id, run_id },
            at: Some(head + 1),
            what: format!(
                "{} at the end: the read model has applied runSeq {run_seq}, and the log {log}",
                missing(head + 1, run_seq)
            ),
            // They come in the order of their names, from everybody who asks.
            number: 0,
        });
    }
    Ok(findings)
}
