//! What the end-to-end suite is made of: real processes, a real Kafka, a real PostgreSQL, a
//! generator of hostile records, and an oracle that recomputes from the bytes that were sent what
//! the log and the read models must hold.
//!
//! Called by the suites in `tests/` and by the program `runlog-chaos`. It depends on none of the product's crates, on purpose: the
//! oracle would otherwise agree with the product's mistakes. The views that docs name and the
//! command line are all that it knows of the product.

pub mod chaos;
pub mod database;
pub mod environment;
pub mod flow;
pub mod generator;
pub mod observe;
pub mod oracle;
pub mod pipeline;
pub mod process;
pub mod roles;
pub mod stack;
pub mod threads;
pub mod topic;
pub mod wait;
pub mod wire;

pub use database::Database;
pub use environment::Environment;
pub use pipeline::Pipeline;
pub use process::Process;
pub use roles::Role;
pub use stack::Stack;
pub use topic::Topic;
pub use wait::wait_until;
