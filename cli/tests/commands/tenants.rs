//! `runlog tenant`: what an analyst's login sees, and who decided that.

use serde_json::json;
use sqlx::{ConnectOptions as _, Executor};

use crate::log::{append, bytes, event, project};
use crate::support::{Place, unique};

/// A log of two tenants, and the login of an analyst who sees neither.
async fn place() -> (Place, String) {
    let place = Place::migrated().await;
    let events = ["acme", "globex"].map(|tenant| event(tenant, "r1", "RunStarted"));
    append(&place, &bytes(&events)).await;
    for tenant in ["acme", "globex"] {
        project(&place, tenant, "r1", "RUNNING").await;
    }
    let login = unique("analyst");
    let create = format!("CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE runlog_analyst");
    let mut admin = place.connection().await;
    admin.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
    (place, login)
}

/// The tenants that a login sees in the log and in a read model.
async fn sees(place: &Place, login: &str) -> (Vec<String>, Vec<String>) {
    let options = place.database.clone().username(login).password("x");
    let mut connection = options.connect().await.unwrap();
    let log = "SELECT tenant_id FROM event_log.run_events ORDER BY 1";
    let model = "SELECT tenant_id FROM read_model.run_current ORDER BY 1";
    let log = sqlx::query_scalar(log).fetch_all(&mut connection).await;
    let model = sqlx::query_scalar(model).fetch_all(&mut connection).await;
    (log.unwrap(), model.unwrap())
}

fn both(tenants: &[&str]) -> (Vec<String>, Vec<String>) {
    let tenants: Vec<_> = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
    (tenants.clone(), tenants)
}

async fn drop_login(place: &Place, login: &str) {
    let drop = sqlx::AssertSqlSafe(format!("DROP ROLE {login}"));
    place.connection().await.execute(drop).await.unwrap();
}

#[tokio::test]
async fn a_login_sees_the_tenants_that_it_was_granted_and_the_audit_says_by_whom() {
    let (place, login) = place().await;
    assert_eq!(sees(&place, &login).await, both(&[]));
    let change = |act, tenant| {
        let arguments = [
            "tenant", act, &login, tenant, "--reason", "OPS-7", "-o", "json",
        ];
        place.runlog(&arguments).done().json()
    };
    let report = |tenant, changed| json!({"login": login, "tenant_id": tenant, "changed": changed});
    assert_eq!(change("grant", "acme"), report("acme", true));
    assert_eq!(change("grant", "acme"), report("acme", false));
    assert_eq!(sees(&place, &login).await, both(&["acme"]));
    assert_eq!(change("grant", "globex"), report("globex", true));
    assert_eq!(sees(&place, &login).await, both(&["acme", "globex"]));
    assert_eq!(change("revoke", "acme"), report("acme", true));
    assert_eq!(change("revoke", "acme"), report("acme", false));
    assert_eq!(sees(&place, &login).await, both(&["globex"]));

    let list = ["tenant", "list", "--login", &login, "-o", "json"];
    let listed = place.runlog(&list).done().json();
    let row = &listed.as_array().unwrap()[..];
    assert_eq!(row.len(), 1, "{listed}");
    assert_eq!(row[0]["tenant_id"], "globex");
    assert_eq!(row[0]["is_analyst"], true);

    let audit: Vec<(String, serde_json::Value, Option<String>)> = sqlx::query_as(
        "SELECT action, detail, reason FROM event_log.audit WHERE subject = $1 ORDER BY audit_id",
    )
    .bind(&login)
    .fetch_all(&mut place.connection().await)
    .await
    .unwrap();
    let row = |action: &str, tenant| {
        let why = Some("OPS-7".to_owned());
        (action.to_owned(), json!({"tenant_id": tenant}), why)
    };
    let expected = [
        row("tenant.grant", "acme"),
        row("tenant.grant", "globex"),
        row("tenant.revoke", "acme"),
    ];
    assert_eq!(audit, expected);

    drop_login(&place, &login).await;
    let listed = place.runlog(&list).done();
    assert_eq!(listed.json()[0]["is_analyst"], false);
    assert!(
        listed.stderr().contains("no analyst's login now"),
        "{}",
        listed.stderr()
    );
}

#[tokio::test]
async fn what_is_no_analysts_login_is_refused_with_the_way_out() {
    let (place, login) = place().await;
    let grant = |login: &str| {
        let arguments = ["tenant", "grant", login, "acme", "--reason", "OPS-7"];
        place.runlog(&arguments).ended(1).stderr()
    };
    let unknown = grant("nobody_at_all");
    assert!(
        unknown.contains("there is no login nobody_at_all"),
        "{unknown}"
    );
    assert!(unknown.contains("IN ROLE runlog_analyst"), "{unknown}");
    let revoke = format!("REVOKE runlog_analyst FROM {login}");
    let mut admin = place.connection().await;
    admin.execute(sqlx::AssertSqlSafe(revoke)).await.unwrap();
    let stranger = grant(&login);
    assert!(
        stranger.contains("is not a member of runlog_analyst"),
        "{stranger}"
    );
    assert!(stranger.contains("GRANT runlog_analyst TO"), "{stranger}");
    let members: i64 = sqlx::query_scalar("SELECT count(*) FROM event_log.tenant_member")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(members, 0);
    drop_login(&place, &login).await;
}
