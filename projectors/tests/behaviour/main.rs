//! What runlog-projectors does, on a real PostgreSQL. Needs RUNLOG_TEST_DATABASE_URL (`make test`
//! sets it). Each test has a database of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bulk;
mod catalogue;
mod fold;
mod gaps;
mod leases;
mod process;
mod snapshots;
mod support;
mod trouble;
mod went_back;
