//! The wire: TLS and logins to Kafka and PostgreSQL, on servers that take nothing else. Right settings
//! carry events from `runlog publish` to the log; wrong ones are refused in words that name the setting;
//! secrets rotate under running processes; and no secret is shown anywhere.
#![allow(clippy::unwrap_used, clippy::panic)]

mod deployment;
mod planted;
mod refusals;
mod rights;
mod rotation;
