//! A record batch written byte by byte, for what a Kafka client library does not let through, or not as
//! it is: a header whose name is not UTF-8, a hundred thousand headers. Kafka's protocol calls names
//! strings, and the broker takes any bytes.
//!
//! Called by the suite of poisonous records. Protocol: Produce version 8, record batch version 2.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A record's parts, as bytes; `None` = null.
#[derive(Clone, Debug, Default)]
pub struct RawRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Names and values of the headers, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Sends one record to a partition whose leader is the first bootstrap server. Answers the record's
/// offset.
///
/// # Errors
/// Where the broker cannot be reached or refuses.
pub fn send(bootstrap: &str, topic: &str, partition: i32, record: &RawRecord) -> Result<i64> {
    let address = bootstrap.split(',').next().unwrap_or(bootstrap);
    let mut stream = TcpStream::connect(address).with_context(|| format!("Kafka at {address}"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    let request = request(topic, partition, &batch(record));
    stream.write_all(&(u32::try_from(request.len())?).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    // Correlation id, one topic, its name, one partition, its number; then the error and the offset.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let error = i16::from_be_bytes(
        answer
            .get(at..at + 2)
            .context("answer too short")?
            .try_into()?,
    );
    ensure!(error == 0, "Kafka answers error code {error}");
    Ok(i64::from_be_bytes(
        answer
            .get(at + 2..at + 10)
            .context("answer too short")?
            .try_into()?,
    ))
}

fn request(topic: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0_i16.to_be_bytes()); // Produce
    bytes.extend(8_i16.to_be_bytes()); // version
    bytes.extend(1_i32.to_be_bytes()); // correlation id
    string(&mut bytes, b"runlog-tests"); // client id
    bytes.extend((-1_i16).to_be_bytes()); // no transactional id
    bytes.extend((-1_i16).to_be_bytes()); // acknowledged by all
    bytes.extend(30_000_i32.to_be_bytes()); // timeout, milliseconds
    bytes.extend(1_i32.to_be_bytes());
    string(&mut bytes, topic.as_bytes());
    bytes.extend(1_i32.to_be_bytes());
    bytes.extend(partition.to_be_bytes());
    bytes.extend(length(batch).to_be_bytes());
    bytes.extend(batch);
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend(i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
    bytes.extend(text);
}

fn length(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).unwrap_or(i32::MAX)
}

/// Record batch version 2 with one record.
fn batch(parts: &RawRecord) -> Vec<u8> {
    let mut record = vec![0]; // attributes
    varint(&mut record, 0); // timestamp delta
    varint(&mut record, 0); // offset delta
    nullable(&mut record, parts.key.as_deref());
    nullable(&mut record, parts.value.as_deref());
    varint(
        &mut record,
        i64::try_from(parts.headers.len()).unwrap_or(i64::MAX),
    );
    for (name, value) in &parts.headers {
        nullable(&mut record, Some(name));
        nullable(&mut record, value.as_deref());
    }
    let now = chrono::Utc::now().timestamp_millis();
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes()); // attributes: no compression
    checked.extend(0_i32.to_be_bytes()); // last offset delta
    checked.extend(now.to_be_bytes());
    checked.extend(now.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes()); // no producer id
    checked.extend((-1_i16).to_be_bytes()); // no producer epoch
    checked.extend((-1_i32).to_be_bytes()); // no sequence
    checked.extend(1_i32.to_be_bytes()); // one record
    varint(&mut checked, i64::from(length(&record)));
    checked.extend(record);
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes()); // base offset, set by the broker
    batch.extend((length(&checked) + 4 + 1 + 4).to_be_bytes()); // what follows
    batch.extend((-1_i32).to_be_bytes()); // leader epoch
    batch.push(2); // version
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

fn nullable(record: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        None => varint(record, -1),
        Some(bytes) => {
            varint(record, i64::from(length(bytes)));
            record.extend(bytes);
        }
    }
}

/// Zigzag, seven bits at a time.
fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest > 0x7f {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::{crc32c, varint};

    #[test]
    fn known_values_of_the_checksum_and_of_varints() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        for (value, expected) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[127]),
            (64, &[0x80, 1]),
            (300, &[0xd8, 4]),
        ] {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
        }
    }
}
