//! The message for every configuration that cannot be used, and the bounds that can.

use super::*;

#[test]
fn a_variable_that_is_not_utf8_is_refused_only_if_it_is_ours() {
    use std::os::unix::ffi::OsStringExt;
    let load = |name: &str| {
        let env = [(name.into(), OsString::from_vec(vec![0xff]))];
        load::load(
            &ConfigArgs::default(),
            env,
            Path::new("/nonexistent/runlog.toml"),
        )
    };
    assert!(load("OTHER").is_ok());
    let error = load("RUNLOG_INGEST__GROUP_ID").unwrap_err().to_string();
    says(
        &error,
        &["environment variable RUNLOG_INGEST__GROUP_ID", "not UTF-8"],
    );
}

#[test]
fn a_file_that_is_no_toml_is_located_without_quoting_it() {
    let message = Layers {
        file: "[database]\nurl = postgres://app:hunter2@db",
        ..Layers::default()
    }
    .refusal();
    says(&message, &["file /", "not valid TOML", "line 2"]);
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn an_unknown_key_is_named_with_its_source_and_the_nearest_known_one() {
    let message = env_refusal("RUNLOG_DATABASE__MAX_CONECTIONS", "5");
    says(
        &message,
        &["unknown configuration key database.max_conections"],
    );
    says(
        &message,
        &["(set by environment variable RUNLOG_DATABASE__MAX_CONECTIONS)"],
    );
    says(&message, &["did you mean database.max_connections?"]);

    let message = flag_refusal("kafka.group_id=x");
    says(
        &message,
        &[
            "kafka.group_id (set by flag --set kafka.group_id)",
            "mean ingest.group_id?",
        ],
    );

    let file = "[databse]\nurl = 'postgres://db'";
    let message = Layers {
        file,
        ..Layers::default()
    }
    .refusal();
    says(
        &message,
        &[
            "key databse.url (set by file /",
            "did you mean database.url?",
        ],
    );

    let file = "[ingest.batch]\nmax_size = 3";
    let message = Layers {
        file,
        ..Layers::default()
    }
    .refusal();
    says(
        &message,
        &[
            "key ingest.batch.max_size",
            "did you mean ingest.batch.max_",
        ],
    );

    says(
        &env_refusal("RUNLOG_INGST__WRITERS", "4"),
        &["did you mean ingest.writers?"],
    );
    says(
        &flag_refusal("url=x"),
        &["unknown configuration key url", "did you mean "],
    );
}

#[test]
fn an_unknown_key_inside_a_topic_is_named_too() {
    let message = env_refusal("RUNLOG_INGEST__TOPICS", r#"[{name="a", tenant=["t"]}]"#);
    says(
        &message,
        &["unknown configuration key ingest.topics.0.tenant "],
    );
    says(
        &message,
        &[
            "RUNLOG_INGEST__TOPICS",
            "did you mean ingest.topics.0.tenants?",
        ],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_source_and_what_was_expected() {
    for (flag, expected) in [
        (
            "database.max_connections=ten",
            "a whole number from 0 to 4294967295",
        ),
        (
            "database.max_connections=99999999999",
            "a whole number from 0 to 4294967295",
        ),
        ("ingest.writers=-1", "a whole number, 0 or more"),
        ("ingest.writers=1.5", "a whole number, 0 or more"),
        ("ingest.strict_keys=yes", "true or false"),
        ("ingest.topics=run-events", "a list"),
        ("projectors.projections=run_status", "a list"),
        ("ingest.batch.linger=5", "a duration with its unit"),
        ("ingest.batch.linger=soon", "a duration with its unit"),
        ("ingest.batch.max_bytes=8 megs", "a number of bytes"),
        ("telemetry.log_format=xml", "one of auto, human, json"),
        ("ingest.batch=big", "a table of keys"),
        ("ingest=big", "a table of keys"),
        ("kafka.properties=fast", "a table of librdkafka properties"),
    ] {
        let key = flag.split_once('=').unwrap().0;
        let message = flag_refusal(flag);
        says(
            &message,
            &[&format!("{key} is "), &format!("(set by flag --set {key})")],
        );
        says(&message, &[&format!("must be {expected}")]);
    }
    for (file, key, expected) in [
        ("[ingest]\ngroup_id = 5", "ingest.group_id", "text"),
        (
            "[ingest]\nwriters = 'four'",
            "ingest.writers",
            "a whole number",
        ),
        (
            "[ingest.batch]\nlinger = 5",
            "ingest.batch.linger",
            "a duration with its unit",
        ),
        (
            "[ingest.batch]\nmax_bytes = -5",
            "ingest.batch.max_bytes",
            "a number of bytes",
        ),
        (
            "[database]\nurl_file = 5",
            "database.url_file",
            "the path of a file",
        ),
        ("database = 5", "database", "a table of keys"),
        (
            "[kafka.properties]\n\"client.id\" = [1]",
            "kafka.properties.client.id",
            "text, a number",
        ),
    ] {
        let message = Layers {
            file,
            ..Layers::default()
        }
        .refusal();
        says(
            &message,
            &[
                &format!("{key} is "),
                "(set by file /",
                &format!("must be {expected}"),
            ],
        );
    }
}

#[test]
fn a_topic_without_a_name_is_refused() {
    let message = env_refusal("RUNLOG_INGEST__TOPICS", "[{tenants=[\"a\"]}]");
    says(
        &message,
        &["ingest.topics.0", "RUNLOG_INGEST__TOPICS", "lacks \"name\""],
    );
}

#[test]
fn a_value_out_of_bounds_is_named_with_its_source_and_the_bounds() {
    for (flag, detail) in [
        (
            "database.max_connections=0",
            "is 0; it must lie between 1 and 1000",
        ),
        ("database.max_connections=1001", "between 1 and 1000"),
        (
            "database.connect_timeout=0s",
            "is 0s; it must lie between 1ms and 10m",
        ),
        ("database.statement_timeout=25h", "between 1ms and 1day"),
        ("database.lock_timeout=0s", "between 1ms and 1day"),
        (
            "database.idle_in_transaction_timeout=0s",
            "between 1ms and 1day",
        ),
        ("ingest.writers=0", "between 1 and 64"),
        ("ingest.writers=65", "between 1 and 64"),
        ("ingest.buffer_bytes=0", "between 1 and 64GiB"),
        (
            "ingest.dead_letters.max_bytes_per_tenant=65537GiB",
            "between 0 and 65536GiB",
        ),
        ("ingest.drain_timeout=11m", "between 0s and 2m"),
        ("ingest.stall_timeout=9s", "between 10s and 1day"),
        ("ingest.group_id= ", "is empty"),
        ("ingest.batch.max_events=0", "between 1 and 50000"),
        ("ingest.batch.max_events=50001", "between 1 and 50000"),
        ("ingest.batch.max_bytes=0", "between 1 and 256MiB"),
        ("ingest.batch.linger=11s", "between 0s and 10s"),
        ("ingest.topics=[]", "is empty"),
        (
            "ingest.topics=[{name=\"a\"},{name=\"a\"}]",
            "names the topic \"a\" twice",
        ),
        ("ingest.topics=[{name=\"a b\"}]", "1 to 249 characters"),
        ("ingest.topics=[{name=\"\"}]", "1 to 249 characters"),
        (
            "ingest.topics=[{name=\"a\",tenants=[]}]",
            "lets no tenant use the topic \"a\"",
        ),
        (
            "ingest.topics=[{name=\"a\",tenants=[\"\"]}]",
            "has an empty tenant",
        ),
        ("projectors.projections=[]", "is empty"),
        ("projectors.projections=[\"a\",\"a\"]", "names \"a\" twice"),
        ("projectors.batch_events=0", "between 1 and 50000"),
        ("projectors.poll_interval=0ms", "between 1ms and 1m"),
        ("projectors.drain_timeout=11m", "between 0s and 10m"),
        ("limits.max_record_bytes=0", "between 1 and 64MiB"),
        ("limits.max_record_bytes=65MiB", "between 1 and 64MiB"),
        ("telemetry.log_level=debgu", "must be a level"),
        ("telemetry.log_level=info,sqlx", "must be a level"),
        ("telemetry.log_level=sqlx=loud", "cannot be read"),
        ("telemetry.listen=9600", "must be host:port"),
        ("telemetry.listen=:9600", "must be host:port"),
        ("telemetry.listen=localhost:99999", "must be host:port"),
        (
            "kafka.bootstrap_servers=broker",
            "each broker must be host:port",
        ),
        ("kafka.bootstrap_servers=a:1,b:0", "holds \"b:0\""),
        (
            "kafka.properties.bootstrap.servers=a:1",
            "set kafka.bootstrap_servers for that",
        ),
        (
            "kafka.properties.enable.auto.commit=true",
            "exactly-once rests on",
        ),
        (
            "kafka.properties.sockte.timeout.ms=1",
            "No such configuration property",
        ),
        (
            "kafka.properties.socket.timeout.ms=soon",
            "refused by librdkafka",
        ),
    ] {
        let key = flag.split_once('=').unwrap().0;
        let named = match key {
            "kafka.properties.bootstrap.servers" => "kafka.properties",
            key => key,
        };
        let message = flag_refusal(flag);
        says(
            &message,
            &[&format!("{named} (set by flag --set {key})"), detail],
        );
    }
}

#[test]
fn values_at_their_bounds_are_accepted() {
    let set = &[
        "database.max_connections=1000",
        "database.statement_timeout=1day",
        "ingest.batch.max_events=50000",
        "ingest.batch.max_bytes=1",
        "ingest.batch.linger=0s",
        "ingest.drain_timeout=0s",
        "ingest.writers=64",
        "limits.max_record_bytes=64MiB",
        "projectors.batch_events=1",
        "telemetry.log_level=WARN,sqlx=off,runlog_ingest[batch]=trace",
        "telemetry.listen=[::1]:0",
        "kafka.bootstrap_servers=a:1, SASL_SSL://[::1]:65535",
    ];
    Layers {
        set,
        ..Layers::default()
    }
    .load()
    .unwrap();
}

#[test]
fn a_flag_without_a_value_is_refused() {
    says(
        &flag_refusal("ingest.writers"),
        &["flag --set ingest.writers", "KEY=VALUE"],
    );
}

#[test]
fn keys_without_a_default_say_how_to_set_them_when_they_are_asked_for() {
    let config = Layers::default().load().unwrap().config;
    let error = config.database.require_url().unwrap_err().to_string();
    says(
        &error,
        &[
            "database.url is not set",
            "RUNLOG_DATABASE__URL",
            "database.url_file",
        ],
    );
    let error = config
        .kafka
        .require_bootstrap_servers()
        .unwrap_err()
        .to_string();
    says(
        &error,
        &[
            "kafka.bootstrap_servers is not set",
            "RUNLOG_KAFKA__BOOTSTRAP_SERVERS",
        ],
    );
}
