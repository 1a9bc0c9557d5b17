//! What runlog-projectors does, on a real PostgreSQL. Needs RUNLOG_TEST_DATABASE_URL (`make test`
//! sets it). Each test has a database of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bulk;
mod catalogue;
mod fold;
mod gaps;
mod guide;
mod histograms;
mod leases;
mod process;
mod runs_in_state;
mod snapshots;
mod stats;
mod support;
mod timeline;
mod trouble;
mod verify;
mod went_back;
