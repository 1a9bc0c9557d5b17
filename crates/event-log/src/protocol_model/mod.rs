//! A model of the append protocol, explored exhaustively: claims, batches, crashes, zombies, commits
//! whose answer is lost, deadlocks, rewinds and a database that goes back, in every order.
//!
//! The decisions are the product's own code: the fence ([`crate::fence::stand`]), the rules of the run
//! cache ([`crate::staging`]), what becomes of each record ([`crate::decide`]), whether a batch
//! accounts for its offsets and where it is halved ([`crate::record`]). What is modelled is the world
//! around them: Kafka ([`kafka`]), PostgreSQL ([`database`], [`state`]), the order of the statements
//! ([`worker`], [`steps`]) and what may go wrong ([`protocol`]). [`invariants`] says what must hold.
//!
//! A process that is frozen and comes back is one that is not scheduled for a while, so every schedule
//! has some. Each rule can be replaced by a wrong one ([`scenario::Rules`]): tests that see it found.
//!
//! RUNLOG_PROTOCOL_SCHEDULES = complete schedules of a larger model to draw at random beside that
//! (default 2,000); RUNLOG_PROTOCOL_SEED = the seed of an earlier run, printed by each, to repeat it.
#![allow(clippy::print_stdout, clippy::panic, clippy::unwrap_used)]

mod checker;
mod database;
mod invariants;
mod kafka;
mod protocol;
mod scenario;
mod state;
mod steps;
mod tests;
mod words;
mod worker;
