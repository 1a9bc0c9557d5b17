//! Secrets: where they may come from, and that nothing shows them.

use super::*;

#[test]
fn no_secret_is_shown_by_entries_or_debug() {
    let loaded = Layers {
        env: &[(
            "RUNLOG_DATABASE__URL",
            "postgres://app:hunter2@db:5433/runs?sslmode=require",
        )],
        set: &[
            "kafka.properties.sasl.password=hunter2",
            "kafka.properties.ssl.key.pem=hunter2",
        ],
        ..Layers::default()
    }
    .load()
    .unwrap();
    assert_eq!(
        entry(&loaded, "database.url").0,
        "postgres://app:***@db:5433/runs?sslmode=require"
    );
    assert_eq!(
        loaded
            .config
            .database
            .url
            .as_ref()
            .unwrap()
            .expose()
            .matches("hunter2")
            .count(),
        1
    );
    for shown in [
        format!("{:?}", loaded.config),
        format!("{:?}", loaded.entries()),
        serde_json::to_string(&loaded.entries()).unwrap(),
        serde_json::to_string(&loaded.config).unwrap(),
        format!("{loaded:?}"),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_secret_shows_a_url_without_its_passwords_and_nothing_of_other_texts() {
    let masked = |text: &str| {
        let secret = Secret::new(text);
        assert_eq!(format!("{secret}"), format!("{secret:?}"));
        secret.to_string()
    };
    assert_eq!(masked("postgres://u:p@h/d"), "postgres://u:***@h/d");
    assert_eq!(
        masked("postgres://u@h/d?password=p&a=b"),
        "postgres://u@h/d?password=***&a=b"
    );
    assert_eq!(masked("postgres://h/d"), "postgres://h/d");
    assert_eq!(masked("hunter2"), "***");
    assert_eq!(masked("user:hunter2"), "***");
    assert_eq!(masked("postgres://u:hunter2@h:port/d"), "***");
}

#[test]
fn names_of_secrets_are_known_and_paths_are_not_taken_for_them() {
    for name in [
        "sasl.password",
        "ssl.key.pem",
        "ssl_key",
        "ssl.key.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
    ] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in [
        "ssl.key.location",
        "client.id",
        "sasl.username",
        "ssl.ca.location",
    ] {
        assert!(!is_secret_name(name), "{name}");
    }
}

#[test]
fn the_url_can_come_from_a_file() {
    let secret = File::holding("\n  postgres://app:hunter2@db/runs \n");
    let path = secret.path().to_str().unwrap();
    let env = &[("RUNLOG_DATABASE__URL_FILE", path)];
    let loaded = Layers {
        env,
        ..Layers::default()
    }
    .load()
    .unwrap();
    let database = &loaded.config.database;
    assert_eq!(
        database.require_url().unwrap().expose(),
        "postgres://app:hunter2@db/runs"
    );
    assert_eq!(
        database.url_source,
        Source::SecretFile(secret.path().to_owned())
    );
    let shown = entry(&loaded, "database.url");
    assert_eq!(
        shown,
        (
            "postgres://app:***@db/runs".to_owned(),
            format!("secret file {path}")
        )
    );
    let shown = entry(&loaded, "database.url_file");
    let variable = "environment variable RUNLOG_DATABASE__URL_FILE".to_owned();
    assert_eq!(shown, (path.to_owned(), variable));
}

#[test]
fn a_secret_file_that_cannot_serve_is_named_with_its_key() {
    let message = env_refusal("RUNLOG_DATABASE__URL_FILE", "/nonexistent/url");
    let variable = "environment variable RUNLOG_DATABASE__URL_FILE";
    says(
        &message,
        &[
            "/nonexistent/url",
            "database.url_file",
            variable,
            "No such file",
        ],
    );
    let empty = File::holding(" \n");
    let message = env_refusal("RUNLOG_DATABASE__URL_FILE", empty.path().to_str().unwrap());
    says(&message, &["database.url_file", "is empty", variable]);
    let env = &[
        ("RUNLOG_DATABASE__URL_FILE", "/some/file"),
        ("RUNLOG_DATABASE__URL", "postgres://db"),
    ];
    let message = Layers {
        env,
        ..Layers::default()
    }
    .refusal();
    says(
        &message,
        &["both database.url (set by environment variable RUNLOG_DATABASE__URL)"],
    );
    says(
        &message,
        &["database.url_file (set by environment variable RUNLOG_DATABASE__URL_FILE)"],
    );
}

#[test]
fn the_password_can_be_a_file_of_its_own_beside_a_url_without_one() {
    let secret = File::holding(" hunter2/?# \n");
    let path = secret.path().to_str().unwrap();
    let load = |url: &str| {
        let env = &[
            ("RUNLOG_DATABASE__PASSWORD_FILE", path),
            ("RUNLOG_DATABASE__URL", url),
        ];
        let layers = Layers {
            env,
            ..Layers::default()
        };
        layers.load()
    };
    let database = load("postgres://app@db/runs").unwrap().config.database;
    let (url, password) = database.read_secrets().unwrap();
    assert_eq!(url.expose(), "postgres://app@db/runs");
    assert_eq!(password.unwrap().expose(), "hunter2/?#");
    for two in [
        "postgres://app:other@db/runs",
        "postgres://app@db/runs?password=other",
    ] {
        let error = load(two).unwrap_err().to_string();
        says(
            &error,
            &["database.password_file", "take it out of the URL"],
        );
        assert!(!error.contains("other"), "{error}");
    }
}
