//! Secrets that change under a running ingest, which goes on.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use runlog_tests::{Process, Role, wait_until};

use super::deployment::{Deployment, SOON, Security, scram_password, swap};

/// Waits until the process has made so many new Kafka clients.
async fn wait_renewed(ingest: &Process, clients: u64) {
    let line = format!("runlog_ingest_renewed_clients_total {clients}\n");
    wait_until("a new Kafka client", SOON, async || {
        let metrics = ingest.get("/metrics").await?;
        ensure!(metrics.contains(&line), "not yet");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_goes_on_with_a_new_scram_password_whichever_side_has_it_first() {
    let deployment = Deployment::fresh().await;
    let kafka = &deployment.servers.kafka;
    deployment.allow_reading("rotated").await;
    let file = scram_password(&deployment);
    let mut ingest = deployment.ingest("rotated", &file, |_| {});
    ingest.wait_ready().await.unwrap();
    deployment.publish(10).await;
    deployment.wait_logged(10).await;

    // The file first: the new password is refused, and the old connection goes on.
    swap(&file, "planted-scram-password-2");
    wait_until("the refusal of the new password", SOON, async || {
        let log = ingest.written()?;
        ensure!(log.contains("going on with them as they were"), "not told");
        ensure!(log.contains("kafka.security.password_file"), "not named");
        Ok(())
    })
    .await
    .unwrap();
    deployment.publish(10).await;
    deployment.wait_logged(20).await;
    kafka
        .set_password("rotated", "planted-scram-password-2")
        .await
        .unwrap();
    wait_renewed(&ingest, 1).await;
    deployment.publish(10).await;
    deployment.wait_logged(30).await;

    // Kafka first: connections that exist stay.
    kafka
        .set_password("rotated", "planted-scram-password-3")
        .await
        .unwrap();
    deployment.publish(10).await;
    deployment.wait_logged(40).await;
    swap(&file, "planted-scram-password-3\n");
    wait_renewed(&ingest, 2).await;
    deployment.publish(10).await;
    deployment.wait_logged(50).await;
    ingest.wait_ready().await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_goes_on_with_a_new_certificate_once_its_key_is_there() {
    let deployment = Deployment::fresh().await;
    let (servers, kafka) = (deployment.servers, &deployment.servers.kafka);
    let old = servers.authority.issue("member-old", "DNS:member").unwrap();
    let new = servers.authority.issue("member-new", "DNS:member").unwrap();
    deployment.allow_reading("CN=member-old").await;
    deployment.allow_reading("CN=member-new").await;
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let certificate = deployment.file("member.crt", &read(&old.certificate));
    let key = deployment.file("member.key", &read(&old.key));
    let security = Security::mutual(servers, &certificate, &key);
    let url = &deployment.url("runlog-ingest");
    let program = deployment.program("runlog-ingest", kafka.mutual_port, &security, url);
    let mut ingest = Process::spawn(deployment.environment(), "runlog-ingest", program).unwrap();
    ingest.wait_ready().await.unwrap();
    deployment.publish(5).await;
    deployment.wait_logged(5).await;

    swap(&certificate, &read(&new.certificate));
    wait_until("the half of a pair to be refused", SOON, async || {
        ensure!(
            ingest
                .written()?
                .contains("going on with them as they were"),
            "not told"
        );
        Ok(())
    })
    .await
    .unwrap();
    deployment.publish(5).await;
    deployment.wait_logged(10).await;
    swap(&key, &read(&new.key));
    wait_renewed(&ingest, 1).await;
    deployment.publish(5).await;
    deployment.wait_logged(15).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_and_projectors_outlive_a_new_password_of_the_database() {
    let deployment = Deployment::fresh().await;
    let postgres = &deployment.servers.postgres;
    // The two logins have one password here, so that one file turns for both.
    for (login, role) in [
        ("turning_runlog_ingest", Role::Ingest),
        ("turning_runlog_projectors", Role::Projector),
    ] {
        let create = format!(
            "CREATE ROLE {login} LOGIN PASSWORD 'planted-database-password-1' IN ROLE {}",
            role.name()
        );
        postgres.sql(&create).await.unwrap();
    }
    let file = deployment.file("database-password", "planted-database-password-1\n");
    let superuser = format!("postgres:{}@", postgres.password);
    let url = |name: &str| {
        let login = format!("turning_{}@", name.replace('-', "_"));
        let url = deployment.database.url.replace(&superuser, &login);
        assert_ne!(url, deployment.database.url);
        url
    };
    let start = |name: &str| {
        let open = Security(String::new());
        let port = &deployment.environment().kafka;
        let mut program = deployment.program_at(name, port, &open, &url(name));
        program.env("RUNLOG_DATABASE__PASSWORD_FILE", &file);
        Process::spawn(deployment.environment(), name, program).unwrap()
    };
    let (mut ingest, mut projectors) = (start("runlog-ingest"), start("runlog-projectors"));
    ingest.wait_ready().await.unwrap();
    projectors.wait_ready().await.unwrap();
    deployment.publish(10).await;
    deployment.wait_logged(10).await;

    for login in ["turning_runlog_ingest", "turning_runlog_projectors"] {
        let alter = format!("ALTER ROLE {login} PASSWORD 'planted-database-password-2'");
        postgres.sql(&alter).await.unwrap();
    }
    let cut =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'turning%'";
    postgres.sql(cut).await.unwrap();
    deployment.publish(10).await;
    // Not the process's end: what the file holds is out of date, for the time being.
    for process in [&ingest, &projectors] {
        process
            .wait_unready(&["password authentication failed"], SOON)
            .await
            .unwrap();
    }
    swap(&file, "planted-database-password-2");
    deployment.wait_logged(20).await;
    ingest.wait_ready().await.unwrap();
    projectors.wait_ready().await.unwrap();
    // Also the connections that are made now.
    postgres.sql(cut).await.unwrap();
    deployment.publish(10).await;
    deployment.wait_logged(30).await;
    wait_until(
        "the projectors to go on",
        Duration::from_secs(30),
        async || {
            let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM read_model.run_current")
                .fetch_one(&deployment.database.pool)
                .await?;
            ensure!(runs == 30, "{runs}");
            Ok(())
        },
    )
    .await
    .unwrap();
    for process in [ingest, projectors] {
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
}
