//! What [`crate::hit`] does in a program for tests.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

const VARIABLE: &str = "RUNLOG_FAILPOINTS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Hang,
}

#[derive(Debug)]
struct Armed {
    action: Action,
    at: u64,
    passed: AtomicU64,
}

pub(crate) fn hit(name: &str) {
    static ARMED: OnceLock<HashMap<String, Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        parse(&text).unwrap_or_else(|error| {
            eprintln!("{VARIABLE}: {error}");
            std::process::exit(2)
        })
    });
    let Some(place) = armed.get(name) else { return };
    if place.passed.fetch_add(1, Ordering::Relaxed) + 1 == place.at {
        act(place.action);
    }
}

fn act(action: Action) {
    match action {
        // Neither can fail for the process itself.
        Action::Kill => drop(kill_process(getpid(), Signal::KILL)),
        Action::Stop => drop(kill_process(getpid(), Signal::STOP)),
        Action::Hang => loop {
            std::thread::park();
        },
    }
}

fn parse(text: &str) -> Result<HashMap<String, Armed>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(parse_one).collect()
}

fn parse_one(part: &str) -> Result<(String, Armed), String> {
    let wrong = || format!("{part:?} is not NAME=kill@N, NAME=stop@N or NAME=hang@N");
    let (name, rest) = part.split_once('=').ok_or_else(wrong)?;
    let (action, at) = rest.split_once('@').ok_or_else(wrong)?;
    let action = match action {
        "kill" => Action::Kill,
        "stop" => Action::Stop,
        "hang" => Action::Hang,
        _ => return Err(wrong()),
    };
    let at = at.parse().ok().filter(|at| *at > 0).ok_or_else(wrong)?;
    let passed = AtomicU64::new(0);
    Ok((name.to_owned(), Armed { action, at, passed }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Action, parse};

    #[test]
    fn places_actions_and_counts_are_read() {
        let armed = parse("a.b=kill@1, c=stop@20,d=hang@3").unwrap();
        let of = |name: &str| (armed[name].action, armed[name].at);
        assert_eq!(armed.len(), 3);
        assert_eq!(of("a.b"), (Action::Kill, 1));
        assert_eq!(of("c"), (Action::Stop, 20));
        assert_eq!(of("d"), (Action::Hang, 3));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["a", "a=kill", "a=kill@0", "a=kill@x", "a=explode@1"] {
            assert!(parse(text).unwrap_err().contains(text), "{text}");
        }
    }
}
