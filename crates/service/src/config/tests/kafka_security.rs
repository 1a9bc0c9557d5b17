//! `kafka.security`: what may be set together, and the message for what may not.

use super::*;

const KEY_PAIR: [&str; 2] = [
    "kafka.security.certificate_file=/c",
    "kafka.security.key_file=/k",
];
const SCRAM: [&str; 4] = [
    "kafka.security.protocol=sasl_ssl",
    "kafka.security.mechanism=SCRAM-SHA-512",
    "kafka.security.username=ingest",
    "kafka.security.password_file=/p",
];

fn load(set: &[&str]) -> Result<LoadedConfig, ConfigError> {
    Layers {
        set,
        ..Layers::default()
    }
    .load()
}

#[test]
fn every_way_to_log_in_loads_without_its_files() {
    let tls = "kafka.security.protocol=ssl";
    for set in [
        &[][..],
        &[tls],
        &[tls, "kafka.security.ca_file=/ca"],
        &[
            tls,
            KEY_PAIR[0],
            KEY_PAIR[1],
            "kafka.security.key_password=x",
        ],
        &SCRAM,
        &[
            "kafka.security.protocol=SASL_PLAINTEXT",
            SCRAM[1],
            SCRAM[2],
            SCRAM[3],
        ],
        &[
            SCRAM[0],
            "kafka.security.mechanism=OAUTHBEARER",
            "kafka.security.token_file=/t",
        ],
        // The other way, by librdkafka's own names.
        &[
            "kafka.properties.security.protocol=SASL_SSL",
            "kafka.properties.sasl.mechanism=PLAIN",
        ],
    ] {
        load(set).unwrap();
    }
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_key_and_the_way_out() {
    let plus = |more: &[&'static str]| [&SCRAM[..], more].concat();
    let without = |at: usize| [&SCRAM[..at], &SCRAM[at + 1..]].concat();
    let tls = "kafka.security.protocol=ssl";
    for (set, texts) in [
        (
            vec!["kafka.security.ca_file=/ca"],
            [
                "kafka.security.ca_file (set by flag",
                "plaintext, which has no TLS",
            ],
        ),
        (
            vec!["kafka.security.password=hunter2"],
            [
                "kafka.security.password (set by",
                "plaintext, which has no login",
            ],
        ),
        (
            vec![tls, "kafka.security.username=x"],
            ["kafka.security.username", "ssl, which has no login"],
        ),
        (
            vec![tls, KEY_PAIR[0]],
            [
                "kafka.security.certificate_file",
                "set kafka.security.key_file",
            ],
        ),
        (
            vec![tls, KEY_PAIR[1]],
            [
                "kafka.security.key_file",
                "set kafka.security.certificate_file",
            ],
        ),
        (
            vec![tls, "kafka.security.key_password=hunter2"],
            [
                "kafka.security.key_password",
                "without kafka.security.key_file",
            ],
        ),
        (
            [
                &[tls][..],
                &KEY_PAIR,
                &[
                    "kafka.security.key_password=hunter2",
                    "kafka.security.key_password_file=/x",
                ],
            ]
            .concat(),
            ["kafka.security.key_password_file", "keep one"],
        ),
        (
            vec![SCRAM[0]],
            [
                "kafka.security.protocol",
                "needs kafka.security.mechanism: PLAIN",
            ],
        ),
        (
            without(2),
            ["kafka.security.mechanism", "needs kafka.security.username"],
        ),
        (
            without(3),
            [
                "kafka.security.mechanism",
                "needs kafka.security.password_file",
            ],
        ),
        (
            plus(&["kafka.security.password=hunter2"]),
            ["kafka.security.password_file", "keep one"],
        ),
        (
            plus(&["kafka.security.token_file=/t"]),
            [
                "kafka.security.token_file",
                "does not go with kafka.security.mechanism = SCRAM-SHA-512",
            ],
        ),
        (
            vec![SCRAM[0], "kafka.security.mechanism=OAUTHBEARER"],
            [
                "kafka.security.mechanism",
                "needs kafka.security.token_file",
            ],
        ),
        (
            vec![SCRAM[0], SCRAM[2], "kafka.security.mechanism=OAUTHBEARER"],
            [
                "kafka.security.username",
                "which takes kafka.security.token_file",
            ],
        ),
        (
            vec![SCRAM[0], "kafka.security.mechanism=GSSAPI"],
            ["kafka.security.mechanism", "SCRAM-SHA-512"],
        ),
        (
            vec!["kafka.security.protocol=tls"],
            ["kafka.security.protocol", "sasl_ssl"],
        ),
        (
            plus(&["kafka.properties.sasl.password=hunter2"]),
            [
                "kafka.properties.sasl.password (set by",
                "kafka.security.protocol = sasl_ssl are both set",
            ],
        ),
        (
            plus(&["kafka.properties.enable.ssl.certificate.verification=false"]),
            [
                "kafka.properties.enable.ssl.certificate.verification",
                "are both set",
            ],
        ),
    ] {
        let error = load(&set).expect_err(&format!("{set:?}"));
        let message = format!("{:#}", anyhow::Error::from(error));
        says(&message, &texts);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_secret_of_the_wrong_type_is_not_quoted() {
    let message = Layers {
        file: "[kafka.security]\nprotocol = 'sasl_ssl'\npassword = 424242",
        ..Layers::default()
    }
    .refusal();
    says(&message, &["kafka.security.password", "text"]);
    assert!(!message.contains("424242"), "{message}");
}

#[test]
fn the_files_know_who_named_them() {
    let loaded = load(&SCRAM).unwrap();
    let sources = &loaded.config.kafka.security.sources;
    let flag = Source::Flag("kafka.security.password_file".to_owned());
    assert_eq!(sources["kafka.security.password_file"], flag);
    let message = crate::kafka::client_config(&KafkaConfig {
        bootstrap_servers: "b:1".to_owned(),
        ..loaded.config.kafka
    });
    let message = message.err().unwrap().to_string();
    says(
        &message,
        &["/p", "kafka.security.password_file", "flag --set"],
    );
}
