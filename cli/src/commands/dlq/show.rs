//! `runlog dlq show`: one dead letter with its bytes.

use event_log::inspect::{self, DeadLetterRecord};
use serde::Serialize;
use service::exit::Exit;

use super::Letter;
use crate::app::App;
use crate::database::{connect, failed};
use crate::format::{count, hex_dump, or_dash, printable};
use crate::output::{Output, note, text, write_bytes};
use crate::scope::ScopeArgs;

/// Show a dead letter with its key, headers and value
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog dlq show 4711 --all-tenants
  runlog dlq show 4711 --all-tenants --raw > record.bin
  runlog dlq show 4711 --tenant acme-retail -o json | jq -r .value.text

Bytes that are no UTF-8 are shown as a dump; in JSON and YAML they are hex digits.
Of a letter beyond its tenant's quota only the first KiB is kept, with the value's length and SHA-256:
compare `sha256sum` of a file that may be the same value.")]
pub(crate) struct Args {
    /// The dead letter's number
    #[arg(value_name = "ID")]
    id: i64,

    #[command(flatten)]
    scope: ScopeArgs,

    /// Write the value's bytes to stdout as they are, and nothing else
    #[arg(long)]
    raw: bool,
}

/// What is said of a letter that was cut.
const CUT: &str = "only the first KiB of key, headers and value is kept: \
    ingest.dead_letters.max_bytes_per_tenant was reached";

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: Letter,
    key: Option<Bytes>,
    headers: Vec<Header>,
    value: Option<Bytes>,
    /// SHA-256 of the whole value, in hex digits.
    value_digest: Option<String>,
}

#[derive(Debug, Serialize)]
struct Header {
    name: Bytes,
    value: Option<Bytes>,
}

/// Bytes as text where they are UTF-8, else as hex digits.
#[derive(Debug, Serialize, PartialEq)]
struct Bytes {
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "read the dead letter"))?;
    let found = inspect::dead_letter(&mut connection, scope.tenant(), args.id)
        .await
        .map_err(|error| failed(error, "read the dead letter"))?;
    let Some(record) = found else {
        anyhow::bail!(
            "there is no dead letter {} {}; `runlog dlq list` shows those there are",
            args.id,
            scope.phrase()
        );
    };
    if args.raw {
        if record.letter.truncated {
            note(CUT);
        }
        write_bytes(record.value.as_deref().unwrap_or_default())?;
        return Ok(Exit::Done);
    }
    let plain = plain(&record);
    let shown = Shown::from(record);
    app.output.document(&shown, |output| {
        format!("{}\n\n{plain}", table(&shown, output))
    })?;
    Ok(Exit::Done)
}

impl From<DeadLetterRecord> for Shown {
    fn from(record: DeadLetterRecord) -> Self {
        let headers = record.headers.into_iter().map(|(name, value)| Header {
            name: Bytes::from(name),
            value: value.map(Bytes::from),
        });
        Self {
            letter: record.letter.into(),
            key: record.key.map(Bytes::from),
            headers: headers.collect(),
            value: record.value.map(Bytes::from),
            value_digest: record.value_digest.map(hex::encode),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(raw: Vec<u8>) -> Self {
        let bytes = raw.len();
        let (text, hex) = match String::from_utf8(raw) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(hex::encode(error.as_bytes()))),
        };
        Self { bytes, text, hex }
    }
}

impl Bytes {
    fn line(&self) -> String {
        match (&self.text, &self.hex) {
            (Some(text), _) => printable(text.as_bytes()).unwrap_or_default(),
            (None, Some(hex)) => format!("0x{hex}"),
            (None, None) => String::new(),
        }
    }
}

/// The value as it stands below the table.
fn plain(record: &DeadLetterRecord) -> String {
    let Some(value) = &record.value else {
        return "value: none (a tombstone)".to_owned();
    };
    let size = match &record.letter {
        letter if letter.truncated => format!(
            "the first {} of {}",
            count(value.len() as u64),
            or_dash(letter.value_bytes.map(|bytes| count(bytes.unsigned_abs())))
        ),
        _ => count(value.len() as u64),
    };
    match printable(value) {
        Some(text) => format!("value, {size} bytes:\n{text}"),
        None => format!("value, {size} bytes, no UTF-8:\n{}", hex_dump(value)),
    }
}

fn table(shown: &Shown, output: &Output) -> String {
    let letter = &shown.letter;
    let mut table = output.table(&["DEAD LETTER", &letter.dead_letter_id.to_string()]);
    table.add_row(vec!["status".into(), output.status(&letter.status)]);
    table.add_row(["reason", &letter.reason]);
    table.add_row(["detail", &letter.detail]);
    table.add_row(["position", &letter.position()]);
    table.add_row(["received", &letter.received_at.to_string()]);
    table.add_row(["tenant", &or_dash(letter.tenant_id.as_ref())]);
    table.add_row(["run", &or_dash(letter.run_id.as_ref())]);
    if letter.truncated {
        table.add_row(["cut", CUT]);
    }
    table.add_row(["bytes of the value", &or_dash(letter.size())]);
    table.add_row([
        "SHA-256 of the value",
        &or_dash(shown.value_digest.as_ref()),
    ]);
    table.add_row(["key", &or_dash(shown.key.as_ref().map(Bytes::line))]);
    for header in &shown.headers {
        let value = or_dash(header.value.as_ref().map(Bytes::line));
        table.add_row([&format!("header {}", header.name.line()), &value]);
    }
    text(&table)
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let text = Bytes::from(b"{}".to_vec());
        assert_eq!((text.text.as_deref(), text.hex), (Some("{}"), None));
        let binary = Bytes::from(vec![0xff, 0]);
        assert_eq!(binary.line(), "0xff00");
        assert_eq!((binary.bytes, binary.text), (2, None));
    }
}
