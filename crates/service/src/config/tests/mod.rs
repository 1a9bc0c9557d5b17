//! Loading from files, variables and flags. The environment is passed in: no test touches the
//! process's own. Refused configurations and secrets have their files beside this one.
#![allow(clippy::unwrap_used, clippy::panic)]

mod documented;
mod kafka_security;
mod refused;
mod secrets;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;

/// A file of its own for one test, removed at its end.
struct File(PathBuf);

impl File {
    fn holding(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{}-{}.toml",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(format!("runlog-config-test-{name}"));
        fs::write(&path, text).unwrap();
        File(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The layers of one test.
#[derive(Default)]
struct Layers<'a> {
    file: &'a str,
    env: &'a [(&'a str, &'a str)],
    set: &'a [&'a str],
}

impl Layers<'_> {
    fn load(&self) -> Result<LoadedConfig, ConfigError> {
        let file = (!self.file.is_empty()).then(|| File::holding(self.file));
        let args = ConfigArgs {
            config: file.as_ref().map(|file| file.path().to_owned()),
            set: self.set.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        let env = self
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        load::load(&args, env, Path::new("/nonexistent/runlog.toml"))
    }

    /// The message, with its causes, of a configuration that must be refused.
    fn refusal(&self) -> String {
        match self.load() {
            Ok(loaded) => panic!("accepted: {:?}", loaded.config),
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        }
    }
}

fn env_refusal(name: &str, value: &str) -> String {
    Layers {
        env: &[(name, value)],
        ..Layers::default()
    }
    .refusal()
}

fn flag_refusal(flag: &str) -> String {
    Layers {
        set: &[flag],
        ..Layers::default()
    }
    .refusal()
}

fn entry(loaded: &LoadedConfig, key: &str) -> (String, String) {
    let entries = loaded.entries();
    let found = entries.iter().find(|entry| entry.key == key);
    let found = found.unwrap_or_else(|| panic!("no entry {key} in {entries:#?}"));
    (found.value.clone(), found.source.to_string())
}

/// Asserts that a message holds all of these parts.
#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn without_any_layer_every_key_shows_its_documented_default() {
    let loaded = Layers::default().load().unwrap();
    let entries = loaded.entries();
    assert!(entries.iter().all(|entry| entry.source == Source::Default));
    let shown: Vec<_> = entries
        .iter()
        .map(|e| (e.key.as_str(), e.value.as_str()))
        .collect();
    let expected = [
        ("database.allow_powerful_login", "false"),
        ("database.connect_timeout", "5s"),
        ("database.idle_in_transaction_timeout", "30s"),
        ("database.lock_timeout", "10s"),
        ("database.max_connections", "10"),
        ("database.password_file", ""),
        ("database.statement_timeout", "30s"),
        ("database.url", ""),
        ("database.url_file", ""),
        ("ingest.batch.linger", "20ms"),
        ("ingest.batch.max_bytes", "4MiB"),
        ("ingest.batch.max_events", "2000"),
        ("ingest.buffer_bytes", "48MiB"),
        ("ingest.dead_letters.max_bytes_per_tenant", "1GiB"),
        ("ingest.drain_timeout", "10s"),
        ("ingest.group_id", "runlog"),
        ("ingest.stall_timeout", "5m"),
        ("ingest.strict_keys", "false"),
        ("ingest.topics", "[{ name = \"run-events\" }]"),
        ("ingest.writers", "4"),
        ("kafka.bootstrap_servers", ""),
        ("kafka.properties", "{}"),
        ("kafka.security.ca_file", ""),
        ("kafka.security.certificate_file", ""),
        ("kafka.security.key_file", ""),
        ("kafka.security.key_password", ""),
        ("kafka.security.key_password_file", ""),
        ("kafka.security.mechanism", ""),
        ("kafka.security.password", ""),
        ("kafka.security.password_file", ""),
        ("kafka.security.protocol", "plaintext"),
        ("kafka.security.token_file", ""),
        ("kafka.security.username", ""),
        ("limits.max_record_bytes", "1MiB"),
        ("projectors.batch_events", "8000"),
        ("projectors.drain_timeout", "10s"),
        ("projectors.poll_interval", "100ms"),
        (
            "projectors.projections",
            "[\"run_status\", \"run_timeline\", \"run_stats\"]",
        ),
        ("projectors.verify_interval", "5s"),
        ("telemetry.listen", ""),
        ("telemetry.log_format", "auto"),
        ("telemetry.log_level", "info"),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn flags_stand_over_variables_over_the_file_over_defaults() {
    let loaded = Layers {
        file: "[ingest]\nwriters = 5\ngroup_id = 'file'\nbatch = { linger = '7ms' }\n\
               [projectors]\nbatch_events = 11",
        env: &[
            ("RUNLOG_INGEST__WRITERS", "6"),
            ("RUNLOG_INGEST__GROUP_ID", "env"),
        ],
        set: &["ingest.writers=7", "limits.max_record_bytes = 2MiB"],
    }
    .load()
    .unwrap();
    assert_eq!(loaded.config.ingest.writers, 7);
    assert_eq!(loaded.config.ingest.group_id, "env");
    assert_eq!(loaded.config.ingest.batch.linger, Duration::from_millis(7));
    assert_eq!(loaded.config.ingest.batch.max_events, 2000);
    assert_eq!(loaded.config.projectors.batch_events, 11);
    assert_eq!(loaded.config.limits.max_record_bytes, 2 << 20);
    let shown = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(
        entry(&loaded, "ingest.writers"),
        shown("7", "flag --set ingest.writers")
    );
    let variable = "environment variable RUNLOG_INGEST__GROUP_ID";
    assert_eq!(entry(&loaded, "ingest.group_id"), shown("env", variable));
    assert!(entry(&loaded, "ingest.batch.linger").1.starts_with("file "));
    assert_eq!(
        entry(&loaded, "ingest.batch.max_events"),
        shown("2000", "default")
    );
}

#[test]
fn a_later_flag_wins_over_an_earlier_one() {
    let set = &["ingest.writers=2", "ingest.writers=3"];
    let loaded = Layers {
        set,
        ..Layers::default()
    }
    .load()
    .unwrap();
    assert_eq!(loaded.config.ingest.writers, 3);
}

#[test]
fn variables_of_others_and_empty_ones_do_not_count() {
    let env = &[
        ("RUNLOG_INGEST_SERVICE_HOST", "10.0.0.1"),
        ("RUNLOG_LOG_LEVEL", "debug"),
        ("OTHER_INGEST__WRITERS", "9"),
        ("RUNLOG_INGEST__WRITERS", ""),
    ];
    let loaded = Layers {
        env,
        ..Layers::default()
    }
    .load()
    .unwrap();
    assert!(
        loaded
            .entries()
            .iter()
            .all(|entry| entry.source == Source::Default)
    );
}

#[test]
fn lists_and_tables_are_given_as_toml_in_variables_and_flags() {
    let topics = r#"[{name="a"}, {name = "b", tenants = ["t1", "t2"]}]"#;
    let loaded = Layers {
        env: &[
            ("RUNLOG_INGEST__TOPICS", topics),
            ("RUNLOG_INGEST__STRICT_KEYS", "true"),
        ],
        set: &[
            "projectors.projections=[\"run_status\", \"run_other\"]",
            "ingest.batch={max_events=9}",
        ],
        ..Layers::default()
    }
    .load()
    .unwrap();
    let tenants = Some(vec!["t1".to_owned(), "t2".to_owned()]);
    let expected = [
        TopicConfig {
            name: "a".to_owned(),
            tenants: None,
        },
        TopicConfig {
            name: "b".to_owned(),
            tenants,
        },
    ];
    assert_eq!(loaded.config.ingest.topics, expected);
    assert!(loaded.config.ingest.strict_keys);
    assert_eq!(
        loaded.config.projectors.projections,
        ["run_status", "run_other"]
    );
    assert_eq!(loaded.config.ingest.batch.max_events, 9);
    assert_eq!(
        entry(&loaded, "ingest.topics").0,
        r#"[{ name = "a" }, { name = "b", tenants = ["t1", "t2"] }]"#
    );
}

#[test]
fn text_keys_take_texts_that_look_like_something_else() {
    let env = &[
        ("RUNLOG_INGEST__GROUP_ID", "123"),
        ("RUNLOG_LIMITS__MAX_RECORD_BYTES", "2048"),
    ];
    let loaded = Layers {
        env,
        ..Layers::default()
    }
    .load()
    .unwrap();
    assert_eq!(loaded.config.ingest.group_id, "123");
    assert_eq!(loaded.config.limits.max_record_bytes, 2048);
    let file = "[limits]\nmax_record_bytes = 4096";
    let loaded = Layers {
        file,
        ..Layers::default()
    }
    .load()
    .unwrap();
    assert_eq!(loaded.config.limits.max_record_bytes, 4096);
}

#[test]
fn kafka_properties_merge_by_name_from_every_layer() {
    let loaded = Layers {
        file: "[kafka.properties]\nsocket.timeout.ms = 6000\n\"socket.keepalive.enable\" = true\n\
               \"client.id\" = 'file'",
        env: &[("RUNLOG_KAFKA__PROPERTIES__CLIENT_ID", "env")],
        set: &["kafka.properties.sasl.password=hunter2"],
    }
    .load()
    .unwrap();
    let properties: Vec<_> = loaded
        .config
        .kafka
        .properties
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let expected = [
        ("client.id", "env"),
        ("sasl.password", "hunter2"),
        ("socket.keepalive.enable", "true"),
        ("socket.timeout.ms", "6000"),
    ];
    assert_eq!(properties, expected);
    let client = entry(&loaded, "kafka.properties.client.id");
    assert_eq!(
        client.1,
        "environment variable RUNLOG_KAFKA__PROPERTIES__CLIENT_ID"
    );
    assert!(
        entry(&loaded, "kafka.properties.socket.timeout.ms")
            .1
            .starts_with("file ")
    );
    let password = entry(&loaded, "kafka.properties.sasl.password");
    assert_eq!(
        password,
        (
            "***".to_owned(),
            "flag --set kafka.properties.sasl.password".to_owned()
        )
    );
}

#[test]
fn the_sources_that_later_messages_name_are_filled_in() {
    let loaded = Layers {
        env: &[("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", "broker:9092")],
        set: &["database.url=postgres://db", "telemetry.listen=localhost:0"],
        ..Layers::default()
    }
    .load()
    .unwrap();
    let Config {
        database,
        kafka,
        telemetry,
        ..
    } = loaded.config;
    assert_eq!(database.url_source, Source::Flag("database.url".to_owned()));
    let variable = "RUNLOG_KAFKA__BOOTSTRAP_SERVERS".to_owned();
    assert_eq!(
        kafka.bootstrap_servers_source,
        Source::Environment(variable)
    );
    assert_eq!(
        telemetry.listen_source,
        Source::Flag("telemetry.listen".to_owned())
    );
}

#[test]
fn a_file_is_read_where_present_and_required_where_named() {
    let file = File::holding("[ingest]\nwriters = 8");
    let loaded = load::load(&ConfigArgs::default(), [], file.path()).unwrap();
    assert_eq!(loaded.config.ingest.writers, 8);
    assert_eq!(
        loaded.source("ingest.writers"),
        Source::File(file.path().to_owned())
    );

    let args = ConfigArgs {
        config: Some("/nonexistent/my.toml".into()),
        set: Vec::new(),
    };
    let error = load::load(&args, [], file.path()).unwrap_err();
    says(
        &format!("{:#}", anyhow::Error::from(error)),
        &["/nonexistent/my.toml", "No such file"],
    );
}

#[test]
fn the_listen_address_is_looked_up_or_the_default() {
    let default = "127.0.0.1:9600".parse().unwrap();
    let address = |listen: &str| {
        let listen = Some(listen.to_owned()).filter(|listen| !listen.is_empty());
        TelemetryConfig {
            listen,
            ..TelemetryConfig::default()
        }
        .listen_address(default)
    };
    assert_eq!(address("").unwrap(), default);
    assert_eq!(address("0.0.0.0:0").unwrap(), "0.0.0.0:0".parse().unwrap());
    let localhost = address("localhost:9700").unwrap();
    assert!(
        localhost.ip().is_loopback() && localhost.port() == 9700,
        "{localhost}"
    );
    let error = address("no-such-host.invalid:1").unwrap_err().to_string();
    says(
        &error,
        &[
            "telemetry.listen",
            "no-such-host.invalid:1",
            "cannot be looked up",
        ],
    );
}

#[test]
fn the_flags_work_before_and_after_a_subcommand() {
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(subcommand)]
        command: Command,
    }

    #[derive(clap::Subcommand)]
    enum Command {
        Run,
    }

    for line in [
        ["x", "--config", "a", "--set", "b=1", "run"],
        ["x", "run", "--config", "a", "--set", "b=1"],
    ] {
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(matches!(cli.command, Command::Run));
        assert_eq!(cli.config.config.as_deref(), Some(Path::new("a")));
        assert_eq!(cli.config.set, ["b=1"]);
    }
}
