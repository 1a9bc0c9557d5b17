//! `runlog` as its users run it: the built program, a real Kafka and a real PostgreSQL. Each test has
//! a database and topics of its own.

#![allow(clippy::unwrap_used, clippy::panic)]

mod dead_letters;
mod exit_codes;
mod log;
mod protection;
mod publish;
mod rebuild;
mod runs;
mod runs_at;
mod schema;
mod simulate;
mod status;
mod streams;
mod support;
mod tenants;
mod verify;
