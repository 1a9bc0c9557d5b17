//! Wrong settings are refused, soon and in words that name the setting.

use std::process::Command;
use std::time::{Duration, Instant};

use runlog_tests::environment::{run_to_end, said};

use super::deployment::{Deployment, Security, scram_password, with_events};
use super::rights::{oauth, token};

/// How long a refusal may take: librdkafka tries each address of the host.
const QUICK: Duration = Duration::from_secs(8);

/// Runs a command that must end with this code, and say these texts.
async fn refused(command: Command, code: i32, texts: &[&str]) {
    let (shown, began) = (format!("{command:?}"), Instant::now());
    let output = run_to_end(command).await.unwrap();
    let (words, took) = (said(&output), began.elapsed());
    assert_eq!(output.status.code(), Some(code), "{shown}: {words}");
    for text in texts {
        assert!(
            words.contains(text),
            "{shown} does not say {text:?}: {words}"
        );
    }
    assert!(took < QUICK, "{shown} took {took:?}: {words}");
    assert!(!words.contains("password-1"), "{shown}: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_not_reached_with_wrong_settings_and_the_setting_is_named() {
    let deployment = Deployment::fresh().await;
    let (servers, kafka) = (deployment.servers, &deployment.servers.kafka);
    let url = &deployment.database.url;
    let file = scram_password(&deployment);
    let right = Security::scram(servers, "ingest", &file);
    let but = |from: &str, to: &str| {
        assert!(right.0.contains(from), "{from} is not in {}", right.0);
        Security(right.0.replace(from, to))
    };
    let status = |port: u16, security: &Security| {
        let mut program = deployment.program("runlog", port, security, url);
        program.arg("status");
        program
    };
    let ca = servers.authority.certificate.display().to_string();
    let stranger = servers.stranger.certificate.display().to_string();

    let wrong_ca = but(&ca, &stranger);
    let named = format!("an authority of kafka.security.ca_file = {stranger}");
    refused(
        status(kafka.sasl_port, &wrong_ca),
        3,
        &["not trusted", &named],
    )
    .await;
    let no_ca = Security(right.0.replace(&format!("ca_file = \"{ca}\"\n"), ""));
    refused(
        status(kafka.sasl_port, &no_ca),
        3,
        &["kafka.security.ca_file is not set"],
    )
    .await;

    let mut wrong_name = deployment.program_at(
        "runlog",
        &format!("127.0.0.1:{}", kafka.sasl_port),
        &right,
        url,
    );
    wrong_name.arg("status");
    let texts = [
        "certificate is not trusted",
        "host name in kafka.bootstrap_servers",
    ];
    refused(wrong_name, 3, &texts).await;

    let wrong = deployment.file("wrong", "not-the-password");
    let wrong_password = but(&file.display().to_string(), &wrong.display().to_string());
    let named = format!("kafka.security.password_file = {}", wrong.display());
    let texts = ["refuses the login", "kafka.security.username", &named];
    refused(status(kafka.sasl_port, &wrong_password), 3, &texts).await;
    let publish = deployment.program("runlog", kafka.sasl_port, &wrong_password, url);
    refused(with_events(publish, &deployment, 1), 3, &texts).await;
    let ingest_url = deployment.url("runlog-ingest");
    let ingest = deployment.program(
        "runlog-ingest",
        kafka.sasl_port,
        &wrong_password,
        &ingest_url,
    );
    refused(ingest, 3, &texts).await;
    let mut doctor = deployment.program("runlog", kafka.sasl_port, &wrong_password, url);
    doctor.args(["doctor", "-o", "json"]);
    refused(doctor, 1, &texts).await;

    let mechanism = but("SCRAM-SHA-512", "SCRAM-SHA-256");
    let texts = ["does not offer this mechanism", "kafka.security.mechanism"];
    refused(status(kafka.sasl_port, &mechanism), 3, &texts).await;

    let spent = deployment.file("spent", &token("ingest", -5));
    let texts = ["kafka.security.token_file", "run out"];
    refused(
        status(kafka.sasl_port, &oauth(&deployment, &spent)),
        3,
        &texts,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_and_tls_do_not_meet_and_the_protocol_is_named() {
    let deployment = Deployment::fresh().await;
    let (servers, kafka) = (deployment.servers, &deployment.servers.kafka);
    let url = &deployment.database.url;
    let status = |port: u16, security: &Security| {
        let mut program = deployment.program("runlog", port, security, url);
        program.arg("status");
        program
    };
    // Waited out: so do brokers that are starting.
    let waited = async |command: Command, texts: &[&str]| {
        let output = run_to_end(command).await.unwrap();
        let words = said(&output);
        assert_eq!(output.status.code(), Some(3), "{words}");
        for text in texts {
            assert!(words.contains(text), "{text}: {words}");
        }
    };
    let file = scram_password(&deployment);
    let plaintext = status(kafka.sasl_port, &Security(String::new()));
    let scram = Security::scram(servers, "ingest", &file);
    let open = status(kafka.open_port, &scram);
    let no_tls = ["no TLS", "kafka.security.protocol (now sasl_ssl)"];
    let plain = [
        "wants TLS or a login",
        "kafka.security.protocol (now plaintext)",
    ];
    tokio::join!(waited(plaintext, &plain), waited(open, &no_tls));

    let none = Security(format!(
        "protocol = \"ssl\"\nca_file = \"{}\"\n",
        servers.authority.certificate.display()
    ));
    let texts = [
        "wants a client certificate",
        "kafka.security.certificate_file",
    ];
    refused(status(kafka.mutual_port, &none), 3, &texts).await;
    let foreign = servers
        .stranger
        .issue("foreigner", "DNS:foreigner")
        .unwrap();
    let foreign = Security::mutual(servers, &foreign.certificate, &foreign.key);
    refused(status(kafka.mutual_port, &foreign), 3, &texts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_keys_that_cannot_serve_are_errors_of_the_configuration() {
    let deployment = Deployment::fresh().await;
    let (servers, kafka) = (deployment.servers, &deployment.servers.kafka);
    let file = scram_password(&deployment);
    let right = Security::scram(servers, "ingest", &file).0;
    let empty = deployment.file("empty", "\n");
    let with = |from: &str, to: &str| Security(right.replace(from, to));
    let password = file.display().to_string();
    for (security, texts) in [
        (
            with(&password, "/nonexistent/password"),
            ["kafka.security.password_file", "/nonexistent/password"],
        ),
        (
            with(&password, &empty.display().to_string()),
            ["kafka.security.password_file", "is empty"],
        ),
        (
            with("ca_file = \"", "ca_file = \"/nonexistent"),
            ["kafka.security.ca_file", "No such file"],
        ),
        (
            with("SCRAM-SHA-512", "GSSAPI"),
            ["kafka.security.mechanism", "one of PLAIN, SCRAM-SHA-256"],
        ),
    ] {
        let url = &deployment.database.url;
        for name in ["runlog-ingest", "runlog"] {
            let mut program = deployment.program(name, kafka.sasl_port, &security, url);
            if name == "runlog" {
                program.arg("status");
            }
            refused(program, 2, &texts).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_not_reached_with_wrong_settings_and_the_setting_is_named() {
    let deployment = Deployment::fresh().await;
    let postgres = &deployment.servers.postgres;
    postgres
        .sql("CREATE ROLE refused LOGIN PASSWORD 'planted-refused-password-1'")
        .await
        .unwrap();
    let password = "planted-refused-password-1";
    let verified = postgres.verified();
    let stranger = deployment.servers.stranger.certificate.display();
    let url = |host: &str, password: &str, parameters: &str| {
        postgres.url_with(host, "refused", password, parameters)
    };
    let shared = std::env::var("RUNLOG_TEST_DATABASE_URL").unwrap();
    for (url, code, texts) in [
        (
            url(
                "localhost",
                password,
                &format!("sslmode=verify-full&sslrootcert={stranger}"),
            ),
            3,
            ["certificate is not trusted", "sslrootcert"],
        ),
        (
            url("127.0.0.1", password, &verified),
            3,
            ["for another host than the one in the URL", "verify-full"],
        ),
        (
            url("localhost", "wrong", &verified),
            3,
            ["refuses the connection", "user and password"],
        ),
        (
            url("localhost", password, "sslmode=disable"),
            3,
            ["no connection without TLS", "sslmode=verify-full"],
        ),
        (
            format!("{shared}?{verified}"),
            3,
            ["speaks no TLS", "sslmode"],
        ),
        (
            url(
                "localhost",
                password,
                "sslmode=verify-full&sslrootcert=/nonexistent/ca",
            ),
            2,
            ["database.url", "/nonexistent/ca as sslrootcert"],
        ),
        (
            url(
                "localhost",
                password,
                "sslmode=verify-full&sslpassword=planted-password-1",
            ),
            2,
            [
                "database.url",
                "parameter sslpassword, which is not supported",
            ],
        ),
    ] {
        for name in ["runlog", "runlog-projectors"] {
            let port = deployment.servers.kafka.open_port;
            let mut program = deployment.program(name, port, &Security(String::new()), &url);
            if name == "runlog" {
                program.args(["runs", "list", "--all-tenants"]);
            }
            refused(program, code, &texts).await;
        }
    }
}
