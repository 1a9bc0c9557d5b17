//! Right settings, with no more rights in Kafka than docs/operations.md gives.

use runlog_tests::environment::{run_to_end, said};

use super::deployment::{Deployment, Security, scram_password, succeeds, with_events};

#[tokio::test(flavor = "multi_thread")]
async fn events_go_from_a_login_by_plain_to_the_log_by_scram_and_verified_tls() {
    let deployment = Deployment::fresh().await;
    let kafka = &deployment.servers.kafka;
    let plain = Security::plain(deployment.servers);
    let publish = deployment.program("runlog", kafka.sasl_port, &plain, &deployment.url("runlog"));
    let refused = run_to_end(with_events(publish, &deployment, 1))
        .await
        .unwrap();
    assert_eq!(
        refused.status.code(),
        Some(1),
        "no rights yet: {}",
        said(&refused)
    );

    deployment.allow_writing("producer").await;
    deployment.allow_reading("ingest").await;
    let publish = deployment.program("runlog", kafka.sasl_port, &plain, &deployment.url("runlog"));
    let words = succeeds(with_events(publish, &deployment, 20)).await;
    assert!(words.contains("20 published"), "{words}");
    let mut ingest = deployment.ingest("ingest", &scram_password(&deployment), |_| {});
    ingest.wait_ready().await.unwrap();
    deployment.wait_logged(20).await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE application_name = 'runlog-ingest' AND NOT ssl";
    let open: i64 = sqlx::query_scalar(encrypted)
        .fetch_one(&deployment.database.pool)
        .await
        .unwrap();
    assert_eq!(open, 0);
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_looks_by_a_certificate_with_an_encrypted_key() {
    let deployment = Deployment::fresh().await;
    let (servers, kafka) = (deployment.servers, &deployment.servers.kafka);
    let issued = servers.authority.issue("operator", "DNS:operator").unwrap();
    let key = issued.encrypted_key("planted-key-password").unwrap();
    let password = deployment.file("key-password", "planted-key-password");
    let mut security = Security::mutual(servers, &issued.certificate, &key);
    security.0 += &format!("key_password_file = \"{}\"\n", password.display());
    let who = [
        "--allow-principal",
        "User:CN=operator",
        "--operation",
        "Describe",
    ];
    let topic = [
        "--operation",
        "DescribeConfigs",
        "--topic",
        &deployment.topic.name,
    ];
    let group = ["--group", &deployment.group];
    kafka.allow(&[&who[..], &topic].concat()).await.unwrap();
    kafka.allow(&[&who[..], &group].concat()).await.unwrap();

    let url = &deployment.url("runlog");
    let program = || deployment.program("runlog", kafka.mutual_port, &security, url);
    let mut doctor = program();
    doctor.args(["doctor", "-o", "json"]);
    // Its exit code is 1: this PostgreSQL runs without fsync.
    let said_by_doctor = said(&run_to_end(doctor).await.unwrap());
    for words in [
        "answers at localhost",
        "1 partitions",
        "retention",
        "has no members",
    ] {
        assert!(said_by_doctor.contains(words), "{words}: {said_by_doctor}");
    }
    assert!(
        !said_by_doctor.contains("may not be read"),
        "{said_by_doctor}"
    );
    let mut status = program();
    status.arg("status");
    succeeds(status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_a_file_is_a_login() {
    let deployment = Deployment::fresh().await;
    deployment.allow_writing("tokenbearer").await;
    let token = deployment.file("token", &token("tokenbearer", 3600));
    let security = oauth(&deployment, &token);
    let port = deployment.servers.kafka.sasl_port;
    let program = deployment.program("runlog", port, &security, &deployment.url("runlog"));
    succeeds(with_events(program, &deployment, 3)).await;
    let configs = [
        "--allow-principal",
        "User:tokenbearer",
        "--operation",
        "DescribeConfigs",
    ];
    let topic = ["--topic", &deployment.topic.name];
    let kafka = &deployment.servers.kafka;
    kafka.allow(&[&configs[..], &topic].concat()).await.unwrap();
    let mut doctor = deployment.program("runlog", port, &security, &deployment.url("runlog"));
    doctor.args(["doctor", "-o", "json"]);
    let words = said(&run_to_end(doctor).await.unwrap());
    assert!(words.contains("answers at localhost"), "{words}");
    assert!(words.contains("cleanup.policy"), "{words}");

    // Ingest's own client logs in with it too.
    deployment.allow_reading("tokenbearer").await;
    let url = &deployment.url("runlog-ingest");
    let program = deployment.program("runlog-ingest", port, &security, url);
    let mut ingest =
        runlog_tests::Process::spawn(deployment.environment(), "runlog-ingest", program).unwrap();
    ingest.wait_ready().await.unwrap();
    deployment.wait_logged(3).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// OAUTHBEARER over TLS.
pub(crate) fn oauth(deployment: &Deployment, token: &std::path::Path) -> Security {
    Security(format!(
        "protocol = \"sasl_ssl\"\nca_file = \"{}\"\nmechanism = \"OAUTHBEARER\"\ntoken_file = \"{}\"\n",
        deployment.servers.authority.certificate.display(),
        token.display()
    ))
}

/// An unsigned JSON Web Token, as Kafka takes it for tests, that runs out after so many seconds.
pub(crate) fn token(subject: &str, seconds: i64) -> String {
    use std::time::{SystemTime, UNIX_EPOCH};
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let now = i64::try_from(now).unwrap();
    let claims = format!(
        "{{\"sub\":\"{subject}\",\"iat\":{},\"exp\":{},\"jti\":\"planted-token-claim\"}}",
        now - 60,
        now + seconds
    );
    format!(
        "{}.{}.",
        base64url(b"{\"alg\":\"none\"}"),
        base64url(claims.as_bytes())
    )
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = [
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}
