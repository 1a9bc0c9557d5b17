//! A JSON reader for the oracle.
//!
//! Called by [`super::envelope`] (records) and [`super::table`] (JSON columns). It is written by
//! hand because the contract decides on things that general readers hide: a key that stands twice
//! in an object, a lone surrogate, a number too large for a double, an integer written as `1.0`,
//! and the depth of nesting. Numbers are read with the standard library's correctly rounded
//! conversion and compared as doubles, which is what RFC 8785 makes of them.

use std::collections::BTreeMap;

/// Nesting at which reading stops; far above the 128 levels that a payload may have.
const MAX_DEPTH: usize = 400;

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A finite number.
    Number {
        /// Its value as a double.
        value: f64,
        /// Its value as an integer, where it was written without fraction and exponent and fits.
        integer: Option<i64>,
    },
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; keys are unique.
    Object(BTreeMap<String, Json>),
    /// Well-formed JSON that has no value to compare: a number beyond the doubles, or a string
    /// with a lone surrogate.
    Unpresentable,
}

/// Why text is not acceptable JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON, not UTF-8, or a key twice in one object.
    Malformed,
    /// Nested deeper than this reader goes.
    TooDeep,
}

impl PartialEq for Json {
    /// Equality of the RFC 8785 forms: numbers as doubles (`1` = `1.0`, `-0` = `0`), strings by
    /// code points, objects without regard to order.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number { value: a, .. }, Self::Number { value: b, .. }) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

impl Json {
    /// Reads a whole document.
    ///
    /// # Errors
    /// [`JsonError`] as named there.
    pub fn read(bytes: &[u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Malformed)?;
        let mut reader = Reader { text, at: 0 };
        reader.space();
        let value = reader.value(0)?;
        reader.space();
        if reader.at == text.len() {
            Ok(value)
        } else {
            Err(JsonError::Malformed)
        }
    }

    /// The members, where this is an object.
    #[must_use]
    pub fn members(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Levels of objects and arrays, this one included; 0 for a scalar.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// True where PostgreSQL's jsonb or a double cannot hold it: NUL in a string or key, a lone
    /// surrogate, a number beyond the doubles.
    #[must_use]
    pub fn unstorable(&self) -> bool {
        match self {
            Self::Unpresentable => true,
            Self::Text(text) => text.contains('\0'),
            Self::Array(items) => items.iter().any(Self::unstorable),
            Self::Object(members) => members
                .iter()
                .any(|(key, value)| key.contains('\0') || value.unstorable()),
            Self::Null | Self::Bool(_) | Self::Number { .. } => false,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(JsonError::Malformed)
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        match self.peek().ok_or(JsonError::Malformed)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => Ok(self.string()?.map_or(Json::Unpresentable, Json::Text)),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        let mut members = BTreeMap::new();
        let mut presentable = true;
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(JsonError::Malformed);
            }
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(JsonError::Malformed);
            }
            self.space();
            let value = self.value(depth + 1)?;
            match key {
                Some(key) => {
                    if members.insert(key, value).is_some() {
                        return Err(JsonError::Malformed);
                    }
                }
                None => presentable = false,
            }
            self.space();
            if self.take(b'}') {
                return Ok(if presentable {
                    Json::Object(members)
                } else {
                    Json::Unpresentable
                });
            }
            if !self.take(b',') {
                return Err(JsonError::Malformed);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return Err(JsonError::Malformed);
            }
        }
    }

    /// A string; `None` where it holds a lone surrogate.
    fn string(&mut self) -> Result<Option<String>, JsonError> {
        self.at += 1;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let rest = self.text.get(self.at..).ok_or(JsonError::Malformed)?;
            let next = rest.chars().next().ok_or(JsonError::Malformed)?;
            self.at += next.len_utf8();
            match next {
                '"' => return Ok(String::from_utf16(&units).ok()),
                '\\' => units.push(self.escape()?),
                '\0'..='\u{1f}' => return Err(JsonError::Malformed),
                other => units.extend_from_slice(other.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escape(&mut self) -> Result<u16, JsonError> {
        let letter = self.peek().ok_or(JsonError::Malformed)?;
        self.at += 1;
        let unit = match letter {
            b'"' | b'\\' | b'/' => u16::from(letter),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let digits = self
                    .text
                    .get(self.at..self.at + 4)
                    .ok_or(JsonError::Malformed)?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(JsonError::Malformed);
                }
                self.at += 4;
                u16::from_str_radix(digits, 16).map_err(|_| JsonError::Malformed)?
            }
            _ => return Err(JsonError::Malformed),
        };
        Ok(unit)
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            Err(JsonError::Malformed)
        } else {
            Ok(self.at - start)
        }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        let negative = self.take(b'-');
        let leading_zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && leading_zero {
            return Err(JsonError::Malformed);
        }
        let mut plain = true;
        if self.take(b'.') {
            plain = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            plain = false;
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let value: f64 = text.parse().map_err(|_| JsonError::Malformed)?;
        if !value.is_finite() {
            return Ok(Json::Unpresentable);
        }
        let minus_zero = negative && value == 0.0;
        let integer = if plain && !minus_zero {
            text.parse().ok()
        } else {
            None
        };
        Ok(Json::Number { value, integer })
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
