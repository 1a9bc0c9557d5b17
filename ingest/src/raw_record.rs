//! A record as Kafka delivers it, copied out of the client library's memory.

use event_log::{Header, Record};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use run_events::{Reason, Rejection, RunEvent};

/// A record's bytes, not yet looked at.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// The first [`MAX_HEADERS`] of them.
    pub(crate) headers: Vec<Header>,
    /// Why it cannot hold an event, where that is known already.
    pub(crate) refused: Option<Rejection>,
}

/// Headers that are copied. A header costs two bytes in Kafka and a hundred here.
pub(crate) const MAX_HEADERS: usize = 1_000;
/// What the memory's administration adds to a piece of it, about.
const PIECE: usize = 16;
/// An object of JSON, in memory: a node of its map has room for eleven members, whatever it holds.
const OBJECT: usize = 11 * (size_of::<String>() + VALUE) + 4 * PIECE;
/// Any other value; a list has up to twice the room that it needs.
const ITEM: usize = 2 * VALUE + PIECE;
/// What `serde_json` makes of a value.
const VALUE: usize = 32;
/// The event's texts, the statement's columns, its arguments, and the message to the server.
const COPIES: usize = 4;

impl RawRecord {
    pub(crate) fn copied(message: &BorrowedMessage<'_>) -> Self {
        let (headers, count) = headers::copied(message, MAX_HEADERS);
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            refused: (count > MAX_HEADERS).then(|| too_many_headers(count)),
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

    /// The bytes of a record whose event is dropped; a rejection stays.
    pub(crate) fn unjudged(record: Record) -> Self {
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            headers: record.headers,
            refused: record.verdict.err(),
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
        self.bytes() + size_of::<Self>() + self.headers.len() * (size_of::<Header>() + 2 * PIECE)
    }

    /// What the record costs at most, about, while its batch is judged and written: itself, the event
    /// in it, and its texts on their way to the database. Counts what opens or parts values in JSON,
    /// wherever it stands, so that it errs on the large side.
    pub(crate) fn memory_judged(&self) -> usize {
        let value = self.value.as_deref().unwrap_or_default();
        let (items, objects) = items_and_objects(value);
        self.memory() + COPIES * self.bytes() + items * ITEM + objects * OBJECT
    }
}

/// How many bytes open or part values in JSON, and how many of these open an object. Counted in bytes, of
/// which the processor adds many at once: this looks at every byte that is read from Kafka.
fn items_and_objects(value: &[u8]) -> (usize, usize) {
    let (mut items, mut objects) = (0, 0);
    for chunk in value.chunks(usize::from(u8::MAX)) {
        let (mut items_here, mut objects_here) = (0_u8, 0_u8);
        for byte in chunk {
            items_here += u8::from(matches!(byte, b',' | b'[' | b'{'));
            objects_here += u8::from(*byte == b'{');
        }
        items += usize::from(items_here);
        objects += usize::from(objects_here);
    }
    (items, objects)
}

fn too_many_headers(count: usize) -> Rejection {
    let detail =
        format!("{count} headers; the first {MAX_HEADERS} are kept, and more are not read");
    Rejection::new(Reason::TooLarge, detail)
}

/// Reads header names as bytes. The safe binding panics on a name that is not UTF-8, and a producer
/// can send one.
#[allow(unsafe_code)]
mod headers {
    use std::ffi::CStr;
    use std::ptr;

    use event_log::Header;
    use rdkafka::bindings::{
        rd_kafka_header_cnt, rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_resp_err_t,
    };
    use rdkafka::message::BorrowedMessage;

    /// The first `max` headers, and how many there are.
    pub(super) fn copied(message: &BorrowedMessage<'_>, max: usize) -> (Vec<Header>, usize) {
        let mut native = ptr::null_mut();
        // SAFETY: the message is alive for the whole call and owns its headers; the list is only
        // read, and only on this thread.
        let found = unsafe { rd_kafka_message_headers(message.ptr(), &mut native) };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return (Vec::new(), 0);
        }
        // SAFETY: as above.
        let count = unsafe { rd_kafka_header_cnt(native) };
        let mut headers = Vec::new();
        while headers.len() < max {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `native` came from the living message above; the pointers it fills stay valid
            // as long as the message, and an index past the end is an error code.
            let found = unsafe {
                rd_kafka_header_get_all(native, headers.len(), &mut name, &mut value, &mut size)
            };
            if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            // SAFETY: the library ends every name with a NUL.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes().to_vec();
            let value = (!value.is_null()).then(|| {
                // SAFETY: the library gives `size` readable bytes at a value that is not null.
                unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) }.to_vec()
            });
            headers.push(Header { name, value });
        }
        (headers, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_objects_are_counted_in_values_of_any_length() {
        for length in [0, 1, 254, 255, 256, 511, 70_000] {
            assert_eq!(items_and_objects(&vec![b'{'; length]), (length, length));
            assert_eq!(items_and_objects(&vec![b','; length]), (length, 0));
            assert_eq!(items_and_objects(&vec![b'x'; length]), (0, 0));
        }
        let value = br#"{"a":[1,2,{"b":"}]"}]}"#;
        assert_eq!(items_and_objects(value), (5, 2));
    }
}
