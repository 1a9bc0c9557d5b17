//! The chaos harness: producers, several ingest and projector processes, and a seeded schedule of
//! faults on a Kafka and a PostgreSQL of its own; afterwards everything is compared with the oracle.
//!
//! Called by the program `runlog-chaos` (`make chaos`). A run is a row of rounds. Each round has a
//! topic, a database and a schedule of its own, made from the run's seed and the round's number, so
//! that one round can be repeated alone.
//!
//! * [`schedule`]: the seeded list of faults (pure)
//! * [`servers`]: Kafka, PostgreSQL and its standby, with a [`proxy`] before each
//! * [`fleet`]: the product's processes: armed, killed, stopped, started again
//! * [`feed`]: the producers
//! * [`watch`]: how long it takes to catch up after each fault; offsets that must never fall
//! * [`round`]: one round, from its topic to its comparison
//! * [`tally`]: what happened, and the report

pub mod deployment;
pub mod feed;
pub mod fleet;
pub(crate) mod postgres;
pub mod proxy;
pub mod round;
pub mod schedule;
pub mod servers;
pub mod tally;
pub mod watch;
