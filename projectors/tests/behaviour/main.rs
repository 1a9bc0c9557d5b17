//! What runlog-projectors does, on a real PostgreSQL. Needs RUNLOG_TEST_DATABASE_URL (`make test`
//! sets it). Each test has a database of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bulk;
mod by_hand;
mod catalogue;
mod determinism;
mod each;
mod erasure;
mod fold;
mod gaps;
mod guide;
mod histograms;
mod ingested;
mod leases;
mod logs;
mod long_runs;
mod pages;
mod process;
mod recount;
mod redelivery;
mod retention;
mod runs_in_state;
mod snapshots;
mod stats;
mod support;
mod tables;
mod timeline;
mod trouble;
mod verify;
mod versions;
mod went_back;
mod whole_fold;
