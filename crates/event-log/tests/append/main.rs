//! Appending, one behaviour or interleaving per test, on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod bookkeeping;
mod cancelled;
mod concurrency;
mod dead_letters;
mod deadlocks;
mod fence;
mod growth;
mod immutability;
mod interruption;
mod outcomes;
mod quotas;
mod refused_records;
#[path = "../support/mod.rs"]
mod support;
