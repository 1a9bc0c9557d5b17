//! The documents say what the code does: docs/configuration.md names every key with its default, and
//! runlog.example.toml sets every key to it.

use super::*;

const MANUAL: &str = include_str!("../../../../../docs/configuration.md");
const EXAMPLE: &str = include_str!("../../../../../runlog.example.toml");

/// Keys that are not set by the example: some stand in the place of others, some need others beside
/// them, and one has a default per program.
const COMMENTED_OUT: [&str; 13] = [
    "database.url_file",
    "database.password_file",
    "kafka.security.ca_file",
    "kafka.security.certificate_file",
    "kafka.security.key_file",
    "kafka.security.key_password",
    "kafka.security.key_password_file",
    "kafka.security.mechanism",
    "kafka.security.username",
    "kafka.security.password",
    "kafka.security.password_file",
    "kafka.security.token_file",
    "telemetry.listen",
];
/// Keys without a default, which the example has to give some value.
const REQUIRED: [&str; 2] = ["database.url", "kafka.bootstrap_servers"];

#[test]
fn the_manual_has_a_row_for_every_key_with_its_default_and_for_no_other() {
    let mut keys = Vec::new();
    for ConfigEntry { key, value, .. } in Layers::default().load().unwrap().entries() {
        let default = if value.is_empty() {
            "none".to_owned()
        } else {
            format!("`{value}`")
        };
        let start = format!("| `{key}` |");
        let row = MANUAL.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row for {key}"));
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[3], default, "the default of {key}");
        keys.push(key);
    }
    for row in MANUAL.lines().filter(|line| line.starts_with("| `")) {
        let key = row.split('`').nth(1).unwrap_or_default();
        assert!(
            keys.iter().any(|known| known == key),
            "{key} is no key any more"
        );
    }
}

#[test]
fn the_example_loads_and_sets_every_key_to_its_default() {
    let example = Layers {
        file: EXAMPLE,
        ..Layers::default()
    };
    let example = example.load().unwrap();
    for ConfigEntry { key, value, .. } in Layers::default().load().unwrap().entries() {
        let (shown, source) = entry(&example, &key);
        if COMMENTED_OUT.contains(&key.as_str()) {
            let name = key.rsplit('.').next().unwrap_or_default();
            assert!(EXAMPLE.contains(&format!("# {name} = ")), "{key}");
            continue;
        }
        assert!(source.starts_with("file "), "{key} is set by {source}");
        if !REQUIRED.contains(&key.as_str()) {
            assert_eq!(shown, value, "{key}");
        }
    }
}
