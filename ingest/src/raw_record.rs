//! A record as Kafka delivers it, copied out of the client library's memory.

use event_log::{Header, Record};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use run_events::{Rejection, RunEvent};

/// A record's bytes, not yet looked at.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<Header>,
}

impl RawRecord {
    pub(crate) fn copied(message: &BorrowedMessage<'_>) -> Self {
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers::copied(message),
        }
    }

    /// The digest of a record as Kafka delivers it, as the log keeps it of the last one it read.
    pub(crate) fn digest(message: &BorrowedMessage<'_>) -> [u8; 32] {
        let timestamp_ms = message.timestamp().to_millis();
        event_log::record_digest(timestamp_ms, message.key(), message.payload())
    }

    /// The record to append, with its verdict.
    pub(crate) fn judged(self, verdict: Result<RunEvent, Rejection>) -> Record {
        Record {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key,
            value: self.value,
            headers: self.headers,
            verdict,
        }
    }

    /// The record's size: key, value and headers.
    pub(crate) fn bytes(&self) -> usize {
        let of = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|h| h.name.len() + of(&h.value))
            .sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// What the record costs in memory, about: its bytes and the structure around them.
    pub(crate) fn memory(&self) -> usize {
        self.bytes() + size_of::<Self>() + self.headers.len() * size_of::<Header>()
    }
}

/// Reads header names as bytes. The safe binding panics on a name that is not UTF-8, and a producer
/// can send one.
#[allow(unsafe_code)]
mod headers {
    use std::ffi::CStr;
    use std::ptr;

    use event_log::Header;
    use rdkafka::bindings::{
        rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_resp_err_t,
    };
    use rdkafka::message::BorrowedMessage;

    pub(super) fn copied(message: &BorrowedMessage<'_>) -> Vec<Header> {
        let mut native = ptr::null_mut();
        // SAFETY: the message is alive for the whole call and owns its headers; the list is only
        // read, and only on this thread.
        let found = unsafe { rd_kafka_message_headers(message.ptr(), &mut native) };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Vec::new();
        }
        let mut headers = Vec::new();
        loop {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `native` came from the living message above; the pointers it fills stay valid
            // as long as the message, and an index past the end is an error code.
            let found = unsafe {
                rd_kafka_header_get_all(native, headers.len(), &mut name, &mut value, &mut size)
            };
            if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return headers;
            }
            // SAFETY: the library ends every name with a NUL.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes().to_vec();
            let value = (!value.is_null()).then(|| {
                // SAFETY: the library gives `size` readable bytes at a value that is not null.
                unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) }.to_vec()
            });
            headers.push(Header { name, value });
        }
    }
}
