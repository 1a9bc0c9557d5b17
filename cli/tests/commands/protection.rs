//! `runlog doctor` about what a superuser took down: policies, row-level security, triggers.

use sqlx::Executor;

use crate::support::{Place, Ran};

const CHECK: &str = "row-level security and triggers";

/// What the check says: verdict and finding of each line.
fn said(ran: &Ran) -> Vec<(String, String)> {
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    ran.json()
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["check"] == CHECK)
        .map(|row| (text(row, "verdict"), text(row, "found")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_protects_the_log_and_is_gone() {
    let place = Place::with_topic(1).await;
    let doctor = || place.runlog(&["doctor", "-o", "json"]);
    let whole = said(&doctor());
    assert_eq!(whole.len(), 1, "{whole:?}");
    assert_eq!(whole[0].0, "ok", "{whole:?}");

    let mut admin = place.connection().await;
    let mut gone = Vec::new();
    for (statement, finding) in [
        (
            "DROP POLICY own_tenants ON run_status_1.run_current",
            "run_status_1.run_current has no policy for the tenants of analysts",
        ),
        (
            "ALTER TABLE event_log.dead_letter NO FORCE ROW LEVEL SECURITY",
            "event_log.dead_letter has no row-level security that is forced",
        ),
        (
            "DROP TRIGGER event_is_append_only ON event_log.event",
            "event_log.event has no trigger that is always on and checks TRUNCATE",
        ),
        (
            "ALTER TABLE event_log.run ENABLE TRIGGER run_is_append_only",
            "event_log.run has no trigger that is always on and checks TRUNCATE",
        ),
        (
            "CREATE TABLE read_model.forgotten (tenant_id text); ALTER TABLE read_model.forgotten OWNER TO runlog_owner",
            "read_model.forgotten has no row-level security that is forced",
        ),
    ] {
        admin.execute(sqlx::raw_sql(statement)).await.unwrap();
        gone.push(finding.to_owned());
        let found = said(&doctor().ended(1));
        for finding in &gone {
            let row = ("problem".to_owned(), finding.clone());
            assert!(found.contains(&row), "{finding} is not in {found:?}");
        }
    }
}
