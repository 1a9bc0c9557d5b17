//! The canonical log in PostgreSQL. The only owner of the schema `event_log` and its SQL.
//!
//! - Ingest claims partitions ([`stream`]) and appends batches to them ([`append`]).
//! - Operators look at generations and open new ones ([`generation`]), say who sees which tenants ([`tenants`]), retire
//!   runs ([`retention`]) and erase payloads ([`erasure`]).
//! - Projectors and the CLI read ([`read`]), always below the horizon.
//! - The CLI looks for what was changed by hand ([`verify`]), seals days ([`seal`]), and looks whether what protects the
//!   log stands ([`protection`]).
//! - Every process checks the schema ([`schema`]), ingest and the projectors their login too ([`start`]), and classes faults
//!   ([`fault`]) the same way.
//!
//! How an append works: the stream row is locked, what to do with each record is decided by a pure
//! function ([`decide`]) from what is known of the records' runs, and events, dead letters and the
//! stream row are written in one transaction. What is known comes from a cache ([`run_cache`]) on
//! the fast path and from the database on the checked one; the database's constraints are the law.

pub mod append;
mod checked;
mod committed;
mod decide;
pub mod erasure;
pub mod fault;
mod fence;
pub mod generation;
mod insert;
pub mod inspect;
mod known;
#[doc(hidden)]
pub mod measured;
pub mod protection;
#[cfg(test)]
mod protocol_model;
mod quota;
pub mod read;
pub mod record;
pub mod retention;
mod run_cache;
pub mod schema;
pub mod seal;
mod server_time;
mod staging;
pub mod start;
pub mod stream;
pub mod tenants;
pub mod transaction;
pub mod verify;

pub use append::{AppendError, Appended, StreamWriter, Truncated};
pub use fault::{FaultClass, classify};
pub use record::{Batch, Header, Original, Outcome, Record, record_digest};
pub use stream::{Claim, ClaimError, Halt, LastRecord};
pub use transaction::Transaction;
