//! Compares the log with the seals of its days, where there are any. Called by [`super::verify`].

use chrono::{Datelike, NaiveDate};
use sqlx::PgConnection;

use super::Found;
use super::finding::{Finding, Kind, Place};
use crate::seal::{self, Progress, Stored};

/// The seals among themselves.
pub(super) fn chain(seals: &[Stored], found: &mut Found) {
    for (day, what) in seal::chain(seals) {
        tell(Kind::SealChain, day, Place::Day(day), what, found);
    }
}

/// One day.
pub(super) async fn day(
    connection: &mut PgConnection,
    stored: &Stored,
    progress: &Progress,
    found: &mut Found,
) -> Result<(), sqlx::Error> {
    let seal = &stored.written.seal;
    for finding in seal::day(connection, seal, progress).await? {
        let place = match (finding.name, finding.run_no) {
            (Some((tenant_id, run_id)), _) => Place::Run { tenant_id, run_id },
            (None, Some(run_no)) => Place::RunNo(run_no),
            (None, None) => Place::Day(seal.day),
        };
        let what = match place {
            Place::Day(_) => finding.what,
            _ => format!("seal of {}: {}", seal.day, finding.what),
        };
        tell(Kind::SealDiffers, seal.day, place, what, found);
    }
    found.seals += 1;
    Ok(())
}

fn tell(kind: Kind, day: NaiveDate, place: Place, what: String, found: &mut Found) {
    found.findings.push(Finding {
        kind,
        place,
        at: None,
        what,
        number: day.num_days_from_ce().into(),
    });
}
