//! Secrets that can be told from anything else, planted wherever a secret can be; then all that the
//! programs write and answer is searched for them.

use std::process::Command;

use runlog_tests::environment::{run_to_end, said};
use runlog_tests::secure::kafka::{PLAIN_PASSWORD, SCRAM_PASSWORD};
use runlog_tests::{Process, wait_until};

use super::deployment::{Deployment, SOON, Security, scram_password, with_events};
use super::rights::{oauth, token};

const DATABASE: &str = "planted-database/secret?4";
const DATABASE_IN_URL: &str = "planted-database%2Fsecret%3F4";
const KEY: &str = "planted-key-secret-5";
const WRONG: &str = "planted-wrong-secret-6";
const PROPERTY: &str = "planted-property-secret-7";

/// All that was written and answered, with where.
#[derive(Default)]
struct Seen(Vec<(String, String)>);

impl Seen {
    async fn run(&mut self, command: Command) {
        let shown = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let output = run_to_end(command).await.unwrap();
        self.0.push((shown, said(&output)));
    }

    async fn answers(&mut self, process: &Process) {
        for path in ["/metrics", "/readyz", "/healthz"] {
            let answer = process.get(path).await.unwrap();
            self.0.push((format!("{} {path}", process.name), answer));
        }
    }

    fn never_holds(&self, secret: &str) {
        use std::fmt::Write as _;
        let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        for (place, text) in &self.0 {
            for form in [secret, &hex, &hex.to_uppercase()] {
                if let Some(at) = text.find(form) {
                    let around = &text[at.saturating_sub(200)..at];
                    panic!("{place} shows {secret:?} after {around:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_answer_error_or_listing() {
    let deployment = Deployment::fresh().await;
    let (servers, kafka) = (deployment.servers, &deployment.servers.kafka);
    let role = format!("CREATE ROLE secretive LOGIN SUPERUSER PASSWORD '{DATABASE}'");
    servers.postgres.sql(&role).await.unwrap();
    let url = deployment.database.url.replace(
        &format!("postgres:{}@", servers.postgres.password),
        &format!("secretive:{DATABASE_IN_URL}@"),
    );
    deployment.allow_reading("secretive").await;
    deployment.allow_writing("producer").await;
    let token = token("secretive", 3600);
    let issued = servers.authority.issue("secretive", "DNS:x").unwrap();
    let key_pem = std::fs::read_to_string(&issued.key).unwrap();
    let key_line = key_pem.lines().nth(1).unwrap().to_owned();
    let encrypted = issued.encrypted_key(KEY).unwrap();
    let mut mutual = Security::mutual(servers, &issued.certificate, &encrypted);
    mutual.0 += &format!("key_password = \"{KEY}\"\n");
    let wrong = deployment.file("wrong", WRONG);
    let token_file = deployment.file("token", &token);
    let securities = [
        (
            kafka.sasl_port,
            Security::scram(servers, "secretive", &scram_password(&deployment)),
        ),
        (
            kafka.sasl_port,
            Security::scram(servers, "secretive", &wrong),
        ),
        (kafka.sasl_port, Security::plain(servers)),
        (kafka.sasl_port, oauth(&deployment, &token_file)),
        (kafka.mutual_port, mutual),
        // What is refused, and how it is said: secrets where they do not belong.
        (
            kafka.open_port,
            Security(format!("password = \"{WRONG}\"\n")),
        ),
        (
            kafka.open_port,
            Security(format!("protocol = \"sasl_ssl\"\npasswort = \"{WRONG}\"\n")),
        ),
        (
            kafka.open_port,
            Security("protocol = \"sasl_ssl\"\npassword = 424242424242\n".to_owned()),
        ),
        (kafka.open_port, Security(format!("password = {WRONG}\n"))),
        (
            kafka.open_port,
            Security(format!(
                "[kafka.properties.sasl]\npassword = \"{PROPERTY}\"\njaas.config = \"{PROPERTY}\"\n"
            )),
        ),
    ];
    let mut seen = Seen::default();
    for (port, security) in &securities {
        let program = |name: &str| {
            let mut program = deployment.program(name, *port, security, &url);
            program.env("RUNLOG_TELEMETRY__LOG_LEVEL", "trace");
            program.env("RUNLOG_DATABASE__ALLOW_POWERFUL_LOGIN", "true");
            program.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
            program.env("RUNLOG_KAFKA__PROPERTIES__DEBUG", "all");
            program
        };
        for format in ["table", "json", "yaml"] {
            let mut show = program("runlog");
            show.args(["config", "show", "-o", format]);
            seen.run(show).await;
        }
        for arguments in [&["doctor"][..], &["status"], &["stream", "list"]] {
            let mut command = program("runlog");
            command.args(arguments);
            seen.run(command).await;
        }
        seen.run(with_events(program("runlog"), &deployment, 2))
            .await;
    }
    for bad in [
        format!(
            "postgres://secretive:{WRONG}@localhost:{}/postgres",
            servers.postgres.port
        ),
        format!("postgres://secretive:{WRONG}@localhost:1/postgres?sslpassword={WRONG}"),
        format!("postgres://secretive:{WRONG}@local host/{WRONG}"),
        format!("mysql://secretive:{WRONG}@localhost/x"),
        format!("host=localhost password={WRONG}"),
    ] {
        for arguments in [
            &["config", "show"][..],
            &["doctor"],
            &["runs", "list", "--all-tenants"],
        ] {
            let mut command =
                deployment.program("runlog", kafka.open_port, &Security(String::new()), &bad);
            command
                .args(arguments)
                .env("RUNLOG_TELEMETRY__LOG_LEVEL", "trace");
            seen.run(command).await;
        }
    }

    // Running processes, at work and in trouble.
    let traced = |command: &mut Command| {
        command.env("RUNLOG_TELEMETRY__LOG_LEVEL", "trace");
        command.env("RUNLOG_KAFKA__PROPERTIES__DEBUG", "all");
        command.env("RUNLOG_DATABASE__URL", &url);
        command.env("RUNLOG_DATABASE__ALLOW_POWERFUL_LOGIN", "true");
    };
    let mut refused = deployment.ingest("secretive", &wrong, traced);
    refused.wait_exit(SOON).await.unwrap();
    seen.0.push((
        "ingest that is refused".to_owned(),
        refused.written().unwrap(),
    ));

    deployment.publish(5).await;
    let mut ingest = deployment.ingest("secretive", &scram_password(&deployment), traced);
    ingest.wait_ready().await.unwrap();
    let mut program = deployment.program(
        "runlog-projectors",
        kafka.open_port,
        &Security(String::new()),
        &url,
    );
    traced(&mut program);
    let mut projectors =
        Process::spawn(deployment.environment(), "runlog-projectors", program).unwrap();
    projectors.wait_ready().await.unwrap();
    seen.answers(&ingest).await;
    let alter = format!("ALTER ROLE secretive PASSWORD '{WRONG}-not'");
    servers.postgres.sql(&alter).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secretive'";
    servers.postgres.sql(cut).await.unwrap();
    deployment.publish(5).await;
    wait_until("trouble", SOON, async || {
        ingest.wait_unready(&["password"], SOON).await
    })
    .await
    .unwrap();
    seen.answers(&ingest).await;
    seen.answers(&projectors).await;
    for process in [&ingest, &projectors] {
        seen.0
            .push((process.name.clone(), process.written().unwrap()));
    }
    // The search would find something: names that are no secrets are there.
    let all: String = seen.0.iter().map(|(_, text)| text.as_str()).collect();
    for shown in [
        "secretive",
        "SCRAM-SHA-512",
        "SASL",
        "kafka.security.password_file",
        "***",
    ] {
        assert!(all.contains(shown), "{shown} is not in what was seen");
    }
    for secret in [
        DATABASE,
        DATABASE_IN_URL,
        KEY,
        WRONG,
        PROPERTY,
        SCRAM_PASSWORD,
        PLAIN_PASSWORD,
        "424242424242",
        &token,
        token.split('.').nth(1).unwrap(),
        &key_line,
    ] {
        seen.never_holds(secret);
    }
}
