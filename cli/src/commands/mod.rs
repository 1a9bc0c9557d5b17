//! The commands, one module each. Each has its arguments, and a `run` that returns the exit code.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config_show;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod erase;
pub(crate) mod events;
pub(crate) mod migrate;
pub(crate) mod publish;
pub(crate) mod rebuild;
pub(crate) mod retire;
pub(crate) mod runs;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod tenant;
pub(crate) mod verify;
pub(crate) mod wait_schema;
