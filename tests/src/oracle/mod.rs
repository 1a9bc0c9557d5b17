//! The oracle: what must be in the log and in the read models, computed from what was sent.
//!
//! Called by the end-to-end suite. It restates the contract a second time, in the plainest code
//! that works (maps and loops over one run), so that an error in the product and the same error
//! here are unlikely to meet.
//!
//! * [`json`]: a JSON reader of its own, strict about the things that the contract is strict about
//! * [`envelope`]: bytes to an event, or to the reason why it must be a dead letter
//! * [`key`]: the derivation of the idempotency key
//! * [`log`]: appended, duplicate, conflict or reused event id, and the resulting rows
//! * [`witness`]: the same where timing had a say, explained by the rows that are there
//! * [`fold`]: rows of one run to the read models
//! * [`timeline`]: rows of one run to its intervals
//! * [`stats`]: rows of all runs to the counts by hour and day
//! * [`expect`]: the expected rows, view by view
//! * [`table`]: comparison of expected with actual rows

pub mod envelope;
pub mod expect;
pub mod fold;
pub mod json;
pub mod key;
pub mod log;
pub mod stats;
pub mod table;
pub mod timeline;
pub mod witness;

/// A record that Kafka acknowledged, with the place it was given.
#[derive(Clone, Debug)]
pub struct Produced {
    /// Kafka partition.
    pub partition: i32,
    /// Kafka offset, as the delivery report named it.
    pub offset: i64,
    /// The record's key bytes.
    pub key: Option<Vec<u8>>,
    /// The record's value bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The `content-type` header, where the record carried one.
    pub content_type: Option<String>,
}
