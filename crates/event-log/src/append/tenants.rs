//! Which tenants are known to have something in a writer's stream, so that only the first record of each costs a
//! statement. Pure; used by [`super::once`].

use std::collections::HashSet;

use crate::decide::Prepared;
use crate::quota::storable;

/// Above this number it is forgotten and learned anew, so that a million tenants take no memory for ever.
const MOST: usize = 10_000;

/// The tenants that this claim has noted in `event_log.stream_tenant`.
#[derive(Debug, Default)]
pub(super) struct NotedTenants(HashSet<String>);

impl NotedTenants {
    /// The tenants of the batch's events and dead letters that are not noted yet, each once and in order.
    pub(super) fn new_in<'b>(&self, prepared: &Prepared<'b>) -> Vec<&'b str> {
        let of_events = prepared.runs.iter().map(|(tenant, _)| *tenant);
        let of_refused = prepared.records.iter().filter_map(|r| {
            let rejection = r.record.verdict.as_ref().err()?;
            storable(&rejection.tenant_id)
        });
        let mut new: Vec<_> = of_events
            .chain(of_refused)
            .filter(|tenant| !self.0.contains(*tenant))
            .collect();
        new.sort_unstable();
        new.dedup();
        new
    }

    /// Takes note of tenants, once that is committed.
    pub(super) fn note(&mut self, tenants: Vec<&str>) {
        if self.0.len() + tenants.len() > MOST {
            self.0.clear();
        }
        self.0.extend(tenants.into_iter().map(str::to_owned));
    }
}
