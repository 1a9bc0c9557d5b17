//! The tenants, projects and plans of the simulated orchestrator. Called by `script` and
//! `generator`; everything here is data.

use rand::RngExt;
use rand::rngs::StdRng;

/// A plan: steps and what each waits for.
#[derive(Debug)]
pub(super) struct Plan {
    /// planId.
    pub(super) id: &'static str,
    /// projectId.
    pub(super) project: &'static str,
    /// The steps; a step waits only for earlier ones.
    pub(super) steps: &'static [PlannedStep],
}

/// One step of a plan.
#[derive(Debug)]
pub(super) struct PlannedStep {
    /// stepId.
    pub(super) id: &'static str,
    /// The places, in the plan, of the steps that must be done first.
    pub(super) after: &'static [usize],
}

const fn step(id: &'static str, after: &'static [usize]) -> PlannedStep {
    PlannedStep { id, after }
}

/// Plans of 3 to 8 steps, with parts that run side by side.
const PLANS: &[Plan] = &[
    Plan {
        id: "nightly_revenue",
        project: "finance-warehouse",
        steps: &[
            step("seed.currencies", &[]),
            step("stage.orders", &[]),
            step("stage.refunds", &[]),
            step("model.orders", &[0, 1]),
            step("model.revenue_daily", &[2, 3]),
            step("test.revenue_not_null", &[4]),
            step("publish.revenue_mart", &[5]),
        ],
    },
    Plan {
        id: "hourly_clickstream",
        project: "web-analytics",
        steps: &[
            step("load.raw_clicks", &[]),
            step("model.sessions", &[0]),
            step("model.funnels", &[1]),
        ],
    },
    Plan {
        id: "customer_360",
        project: "crm-sync",
        steps: &[
            step("seed.customers", &[]),
            step("stage.crm_accounts", &[]),
            step("stage.support_tickets", &[]),
            step("stage.web_events", &[]),
            step("model.identity_graph", &[0, 1, 3]),
            step("model.customer_360", &[2, 4]),
            step("test.customer_unique", &[5]),
            step("export.crm", &[6]),
        ],
    },
    Plan {
        id: "churn_training",
        project: "ml-platform",
        steps: &[
            step("features.usage", &[]),
            step("features.billing", &[]),
            step("train.churn", &[0, 1]),
            step("evaluate.churn", &[2]),
            step("register.churn", &[3]),
        ],
    },
    Plan {
        id: "inventory_snapshot",
        project: "supply-chain",
        steps: &[
            step("extract.warehouses", &[]),
            step("extract.purchase_orders", &[]),
            step("snapshot.inventory", &[0, 1]),
            step("notify.low_stock", &[2]),
        ],
    },
    Plan {
        id: "ads_attribution",
        project: "marketing",
        steps: &[
            step("load.ad_spend", &[]),
            step("load.conversions", &[]),
            step("model.touchpoints", &[1]),
            step("model.attribution", &[0, 2]),
            step("test.attribution_sums", &[3]),
            step("publish.attribution", &[4]),
        ],
    },
];

const TENANTS: &[&str] = &[
    "acme-retail",
    "northwind-foods",
    "globex-energy",
    "initech-payments",
    "umbra-logistics",
    "wayfarer-travel",
    "stark-materials",
    "hooli-media",
];

/// Weighted by how often each occurs.
const ENVIRONMENTS: &[&str] = &[
    "production",
    "production",
    "production",
    "staging",
    "development",
];

/// The name of a tenant by its number, from 0.
pub(super) fn tenant(number: usize) -> String {
    let name = TENANTS[number % TENANTS.len()];
    match number / TENANTS.len() {
        0 => name.to_owned(),
        round => format!("{name}-{}", round + 1),
    }
}

/// A plan, one of all.
pub(super) fn plan(rng: &mut StdRng) -> &'static Plan {
    &PLANS[rng.random_range(0..PLANS.len())]
}

/// One of a list's texts.
pub(super) fn pick(rng: &mut StdRng, among: &[&'static str]) -> &'static str {
    among[rng.random_range(0..among.len())]
}

/// An environment.
pub(super) fn environment(rng: &mut StdRng) -> &'static str {
    pick(rng, ENVIRONMENTS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PLANS, tenant};

    #[test]
    fn plans_have_3_to_8_steps_that_wait_only_for_earlier_ones() {
        for plan in PLANS {
            assert!((3..=8).contains(&plan.steps.len()), "{}", plan.id);
            for (place, step) in plan.steps.iter().enumerate() {
                assert!(step.after.iter().all(|&other| other < place), "{}", step.id);
            }
            let names: BTreeSet<_> = plan.steps.iter().map(|step| step.id).collect();
            assert_eq!(names.len(), plan.steps.len(), "{}", plan.id);
        }
    }

    #[test]
    fn tenants_have_names_of_their_own() {
        let names: BTreeSet<_> = (0..100).map(tenant).collect();
        assert_eq!(names.len(), 100);
    }
}
