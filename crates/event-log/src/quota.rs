//! What is kept of a dead letter's bytes: all of them while its tenant is below its quota, the first
//! ones above it. Where no tenant is known, the topic's own quota counts, so that garbage has one too.
//! Pure; called by [`crate::insert`] with what [`crate::insert::usage`] has read.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::decide::{NewDeadLetter, is_storable};
use crate::record::{Header, Record};

/// Bytes of the value that are always kept; of the key, too, and of the headers' text.
pub(crate) const FIRST_BYTES: usize = 1024;

/// Bytes of pending dead letters by tenant; `None` = of the topic's records without a known tenant.
pub(crate) type Usage = HashMap<Option<String>, i64>;

/// A dead letter as its row is to hold it.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept<'b> {
    pub(crate) tenant_id: Option<&'b str>,
    pub(crate) run_id: Option<&'b str>,
    pub(crate) key: Option<&'b [u8]>,
    pub(crate) value: Option<&'b [u8]>,
    /// As the text of a `jsonb` that the database makes of it, so that both count the same bytes.
    pub(crate) headers: String,
    /// Of the whole value.
    pub(crate) value_bytes: Option<i64>,
    /// Of the whole value.
    pub(crate) value_digest: Option<[u8; 32]>,
    pub(crate) truncated: bool,
}

/// What is kept of each letter, in order, where `used` bytes are kept already.
pub(crate) fn keep<'b>(
    letters: &'b [NewDeadLetter<'_>],
    mut used: Usage,
    quota: i64,
) -> Vec<Kept<'b>> {
    let mut keep_one = |letter: &'b NewDeadLetter<'_>| {
        let tenant_id = storable(&letter.rejection.tenant_id);
        let used = used.entry(tenant_id.map(str::to_owned)).or_default();
        let mut kept = whole(letter.record);
        if used.saturating_add(kept.bytes()) > quota {
            kept = first_bytes(letter.record);
        }
        *used = used.saturating_add(kept.bytes());
        Kept {
            tenant_id,
            run_id: storable(&letter.rejection.run_id),
            ..kept
        }
    };
    letters.iter().map(&mut keep_one).collect()
}

/// What the letters add to the usage.
pub(crate) fn added(kept: &[Kept<'_>]) -> Usage {
    let mut added = Usage::new();
    for letter in kept {
        let owner = letter.tenant_id.map(str::to_owned);
        *added.entry(owner).or_default() += letter.bytes();
    }
    added
}

/// How many letters were cut, by tenant.
pub(crate) fn truncated(kept: &[Kept<'_>]) -> BTreeMap<Option<String>, u64> {
    let mut counts = BTreeMap::new();
    for letter in kept.iter().filter(|letter| letter.truncated) {
        *counts
            .entry(letter.tenant_id.map(str::to_owned))
            .or_default() += 1;
    }
    counts
}

/// A dead letter must never fail itself: an id that the database cannot hold is left out.
pub(crate) fn storable(id: &Option<String>) -> Option<&str> {
    id.as_deref().filter(|id| is_storable(id))
}

impl Kept<'_> {
    /// What it counts in the quota, as the function `event_log.dead_letter_bytes` counts it.
    fn bytes(&self) -> i64 {
        let of = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        (of(self.key) + of(self.value) + self.headers.len()) as i64 - BRACKETS
    }
}

const BRACKETS: i64 = 2;

fn whole(record: &Record) -> Kept<'_> {
    let value = record.value.as_deref();
    Kept {
        tenant_id: None,
        run_id: None,
        key: record.key.as_deref(),
        value,
        headers: headers_text(&record.headers, usize::MAX).0,
        value_bytes: value.map(|value| value.len() as i64),
        value_digest: value.map(|value| Sha256::digest(value).into()),
        truncated: false,
    }
}

fn first_bytes(record: &Record) -> Kept<'_> {
    let cut = |part: Option<&'_ Vec<u8>>| part.is_some_and(|bytes| bytes.len() > FIRST_BYTES);
    let (headers, all) = headers_text(&record.headers, FIRST_BYTES);
    let whole = whole(record);
    Kept {
        key: whole.key.map(first),
        value: whole.value.map(first),
        headers,
        truncated: cut(record.key.as_ref()) || cut(record.value.as_ref()) || !all,
        ..whole
    }
}

fn first(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(FIRST_BYTES)]
}

/// The first headers, as many as fit into `bytes` of text, and whether these are all. Names are bytes
/// on the wire: base64, which needs no escapes.
fn headers_text(headers: &[Header], bytes: usize) -> (String, bool) {
    use base64::Engine as _;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut text = String::from("[");
    for (place, header) in headers.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        // What cannot fit is not encoded.
        let least = header.name.len() + header.value.as_ref().map_or(0, Vec::len);
        let fits = |more: usize| (text.len() - 1).saturating_add(more) <= bytes;
        if !fits(least) {
            return (text + "]", false);
        }
        let value = match &header.value {
            Some(value) => format!("\"{}\"", base64(value)),
            None => "null".to_owned(),
        };
        let name = base64(&header.name);
        let one = format!("{comma}{{\"name\": \"{name}\", \"value\": {value}}}");
        if !fits(one.len()) {
            return (text + "]", false);
        }
        text += &one;
    }
    (text + "]", true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use run_events::{Reason, Rejection};

    use super::*;

    fn record(value: &[u8]) -> Record {
        Record {
            offset: 0,
            timestamp_ms: None,
            key: Some(b"key".to_vec()),
            value: Some(value.to_vec()),
            headers: Vec::new(),
            verdict: Err(Rejection::new(Reason::TooLarge, "")),
        }
    }

    fn of<'r>(tenant: Option<&str>, record: &'r Record) -> NewDeadLetter<'r> {
        let rejection = Rejection::new(Reason::TooLarge, "");
        NewDeadLetter {
            record,
            rejection: rejection.owned_by(tenant.map(str::to_owned), None),
        }
    }

    fn lengths(kept: &[Kept<'_>]) -> Vec<usize> {
        kept.iter().map(|k| k.value.unwrap().len()).collect()
    }

    #[test]
    fn a_letter_is_whole_as_long_as_its_tenant_stays_within_the_quota_with_it() {
        let large = record(&[b'x'; 9_997]);
        let letters: Vec<_> = (0..3).map(|_| of(Some("t"), &large)).collect();
        let kept = |used, quota| {
            let used = Usage::from([(Some("t".to_owned()), used)]);
            lengths(&keep(&letters, used, quota))
        };
        assert_eq!(kept(0, 30_000), [9_997; 3]);
        assert_eq!(kept(0, 29_999), [9_997, 9_997, 1_024]);
        assert_eq!(kept(1, 30_000), [9_997, 9_997, 1_024]);
        assert_eq!(kept(0, 0), [1_024; 3]);
        // More was given back than counted: never a reason to fail.
        assert_eq!(kept(-1, 29_999), [9_997; 3]);
        assert_eq!(kept(i64::MAX, 30_000), [1_024; 3]);
    }

    #[test]
    fn what_is_cut_counts_with_what_is_kept_of_it_and_smaller_letters_go_on_being_whole() {
        let (large, small) = (record(&[b'x'; 9_997]), record(&[b'x'; 7]));
        let letters = [&large, &small, &large].map(|record| of(Some("t"), record));
        // 1,027 + 10 + 10,000 bytes.
        let used = |used| Usage::from([(Some("t".to_owned()), used)]);
        let kept = keep(&letters, used(1), 10_000);
        assert_eq!(lengths(&kept), [1_024, 7, 1_024]);
        let truncated: Vec<_> = kept.iter().map(|k| k.truncated).collect();
        assert_eq!(truncated, [true, false, true]);
        // Nothing of a small one is cut, however far above the quota its tenant is.
        let kept = keep(&letters[1..2], used(1 << 40), 10_000);
        assert_eq!((lengths(&kept), kept[0].truncated), (vec![7], false));
    }

    #[test]
    fn every_tenant_and_the_topic_have_a_quota_of_their_own() {
        let large = record(&[b'x'; 9_997]);
        let letters = [Some("a"), Some("b"), None, Some("a"), None].map(|t| of(t, &large));
        let kept = keep(&letters, Usage::new(), 10_000);
        assert_eq!(lengths(&kept), [9_997, 9_997, 9_997, 1_024, 1_024]);
        let expected = [(None, 1), (Some("a".to_owned()), 1)];
        assert_eq!(truncated(&kept), BTreeMap::from(expected));
    }

    #[test]
    fn a_tenant_that_the_database_cannot_hold_counts_as_none() {
        let large = record(&[b'x'; 9_997]);
        let letters = [Some("a\0b"), None].map(|tenant| of(tenant, &large));
        let kept = keep(&letters, Usage::new(), 10_000);
        assert_eq!(lengths(&kept), [9_997, 1_024]);
        assert_eq!(kept[0].tenant_id, None);
    }

    #[test]
    fn length_and_digest_are_those_of_the_whole_value_and_a_tombstone_has_none() {
        let letter = record(&[7; 5_000]);
        let letters = [of(None, &letter)];
        let cut = &keep(&letters, Usage::new(), 0)[0];
        assert_eq!(cut.value_bytes, Some(5_000));
        assert_eq!(cut.value_digest, Some(Sha256::digest([7; 5_000]).into()));
        let tombstone = Record {
            value: None,
            ..letter.clone()
        };
        let letters = [of(None, &tombstone)];
        let kept = &keep(&letters, Usage::new(), 0)[0];
        assert_eq!((kept.value_bytes, kept.value_digest), (None, None));
        assert!(!kept.truncated);
    }

    #[test]
    fn above_the_quota_the_key_is_cut_and_the_headers_end_before_the_one_that_is_too_many() {
        let header = |name: &[u8], value: Option<usize>| Header {
            name: name.to_vec(),
            value: value.map(|length| vec![0; length]),
        };
        let headers = vec![
            header(b"a", None),
            header(b"b", Some(3)),
            header(b"c", Some(5_000)),
            header(b"d", None),
        ];
        let odd = Record {
            key: Some(vec![1; 2_000]),
            headers,
            ..record(b"small")
        };
        let letters = [of(None, &odd)];
        let cut = &keep(&letters, Usage::new(), 0)[0];
        assert!(cut.truncated);
        assert_eq!(cut.key.unwrap().len(), 1_024);
        let two = r#"[{"name": "YQ==", "value": null}, {"name": "Yg==", "value": "AAAA"}]"#;
        assert_eq!(cut.headers, two);
        // Empty ones cost their place, too.
        let many = Record {
            headers: vec![header(b"", None); 1_000],
            ..record(b"")
        };
        let letters = [of(None, &many)];
        let cut = &keep(&letters, Usage::new(), 0)[0];
        assert!(cut.truncated && cut.headers.len() <= FIRST_BYTES + 2);
    }
}
