//! Kafka's part of `doctor`. Blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use service::config::Config;

use super::Check;
use crate::kafka::probe::Probe;
use crate::kafka::topics;

/// An outage of ingest that lasts longer than the topic keeps records loses them, so a topic that
/// keeps less than this is worth a look.
const SHORT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let probe = match Probe::new(&config.kafka) {
        Ok(probe) => probe,
        Err(error) => return vec![Check::failed("Kafka", &error)],
    };
    let mut checks = Vec::new();
    for topic in &config.ingest.topics {
        match probe.partitions(&topic.name) {
            // What cannot be reached for one topic cannot be reached for the next.
            Err(error) => {
                checks.push(Check::failed("Kafka", &error));
                return checks;
            }
            Ok(found) => checks.extend(topic_checks(config, &topic.name, found)),
        }
    }
    checks.insert(
        0,
        Check::ok(
            "Kafka",
            format!("answers at {}", config.kafka.bootstrap_servers),
        ),
    );
    checks.push(group(&probe, &config.ingest.group_id));
    checks
}

fn topic_checks(config: &Config, topic: &str, partitions: Option<i32>) -> Vec<Check> {
    let check = format!("topic {topic}");
    let Some(partitions) = partitions else {
        let way_out = "create it, or correct ingest.topics";
        return vec![Check::problem(&check, "is not there", way_out)];
    };
    let found = format!("{partitions} partitions");
    let mut checks = vec![if partitions == 1 {
        Check::warning(
            &check,
            found,
            "one partition is read by one process: create more to grow",
        )
    } else {
        Check::ok(&check, found)
    }];
    match topics::settings(&config.kafka, topic) {
        Ok(settings) => checks.extend(setting_checks(&check, &settings)),
        Err(error) => checks.push(Check::warning(
            &format!("{check} settings"),
            format!("{error:#}"),
            "allow DescribeConfigs on the topic, or look at its settings by other means",
        )),
    }
    checks
}

fn setting_checks(topic: &str, settings: &BTreeMap<String, String>) -> Vec<Check> {
    let get = |name: &str| settings.get(name).map(String::as_str);
    let mut checks = Vec::new();
    let policy = get("cleanup.policy").unwrap_or("delete");
    let check = format!("{topic} cleanup.policy");
    checks.push(if policy.contains("compact") {
        let way_out = "set cleanup.policy=delete: compaction removes a run's events, the later ones \
                       of the same key excepted, before they are read";
        Check::warning(&check, policy, way_out)
    } else {
        Check::ok(&check, policy)
    });
    let check = format!("{topic} retention");
    checks.push(
        match get("retention.ms").and_then(|text| text.parse::<i64>().ok()) {
            Some(ms) if ms >= 0 && Duration::from_millis(ms.unsigned_abs()) < SHORT_RETENTION => {
                Check::warning(
                    &check,
                    crate::format::duration(ms),
                    "raise retention.ms: an outage of ingest that lasts longer loses records",
                )
            }
            Some(ms) if ms >= 0 => Check::ok(&check, crate::format::duration(ms)),
            _ => Check::ok(&check, "no limit of time"),
        },
    );
    if let Some(bytes) = get("retention.bytes").filter(|bytes| *bytes != "-1") {
        checks.push(Check::warning(
            &format!("{topic} retention.bytes"),
            bytes,
            "a partition that outgrows it loses records that were not read; a limit of time is safer",
        ));
    }
    if let Some(kind) = get("message.timestamp.type") {
        checks.push(Check::ok(&format!("{topic} message.timestamp.type"), kind));
    }
    checks
}

fn group(probe: &Probe, group_id: &str) -> Check {
    let check = format!("consumer group {group_id}");
    match probe.group(group_id) {
        Ok(Some((state, members))) if members > 0 => {
            Check::ok(&check, format!("{members} members, {state}"))
        }
        Ok(_) => Check::warning(&check, "has no members", "start runlog-ingest"),
        Err(error) => Check::warning(
            &check,
            format!("{error:#}"),
            "allow DescribeGroup on it, or look at the group by other means",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Verdict;
    use super::setting_checks;

    fn worst(settings: &[(&str, &str)]) -> Vec<String> {
        let settings: BTreeMap<_, _> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let checks = setting_checks("topic t", &settings);
        let bad = checks
            .into_iter()
            .filter(|check| check.verdict != Verdict::Ok);
        bad.map(|check| check.check).collect()
    }

    #[test]
    fn usual_settings_pass() {
        let week = [("cleanup.policy", "delete"), ("retention.ms", "604800000")];
        assert!(worst(&week).is_empty());
        assert!(worst(&[("retention.ms", "-1"), ("retention.bytes", "-1")]).is_empty());
    }

    #[test]
    fn what_can_take_records_away_unread_is_a_warning() {
        assert_eq!(
            worst(&[("cleanup.policy", "compact,delete")]),
            ["topic t cleanup.policy"]
        );
        assert_eq!(worst(&[("retention.ms", "3600000")]), ["topic t retention"]);
        assert_eq!(
            worst(&[("retention.bytes", "1048576")]),
            ["topic t retention.bytes"]
        );
    }
}
