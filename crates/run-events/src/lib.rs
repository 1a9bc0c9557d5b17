//! What a RunEvent is and what a run's events mean. Pure: no I/O, no clock, no randomness.
//!
//! Everything that has to be the same on every machine lives here, and every other crate calls it:
//! the envelope and its validation ([`envelope`]), the wire form ([`json`]), the idempotency key
//! ([`idempotency_key`]), the digests ([`digest`]), the state machines ([`state`]) and the fold of a
//! run's events into its state ([`fold`], [`run_state`]) with its resumable [`snapshot`], and what a day is
//! sealed with ([`seal`]).

mod canonical;
pub mod digest;
pub mod envelope;
pub mod event_type;
pub mod fold;
pub mod idempotency_key;
pub mod json;
mod json_value;
pub mod rejection;
pub mod run_state;
pub mod seal;
pub mod snapshot;
pub mod state;
pub mod time;

pub use digest::Digest;
pub use envelope::RunEvent;
pub use event_type::{EventType, RunEventType, StepEventType};
pub use fold::{Applied, LoggedEvent};
pub use idempotency_key::IdempotencyKey;
pub use rejection::{Reason, Rejection};
pub use run_state::{Inconsistency, RunState, StepAttempt};
pub use state::{RunStatus, StepStatus};
pub use time::Micros;
