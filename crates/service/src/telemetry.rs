//! Log lines: `tracing` events, and the `log` records of libraries, to stderr, as lines for
//! people or as JSON. Called once by each main, before anything else runs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, TelemetryConfig};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log_level` cannot be read. The loader refuses it earlier; this is for a
    /// configuration that was built in code.
    #[error("telemetry.log_level {0}")]
    Filter(String),
    /// The process has a logger already.
    #[error("logging is set up already in this process")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends the process's log lines to stderr from now on.
///
/// # Errors
/// See [`TelemetryError`]. A second call fails and changes nothing.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = config.filter().map_err(TelemetryError::Filter)?;
    let terminal = std::io::stderr().is_terminal();
    let style = Style::choose(
        config.log_format,
        terminal,
        std::env::var_os("NO_COLOR").as_deref(),
    );
    subscriber(style, filter, std::io::stderr)
        .try_init()
        .map_err(TelemetryError::AlreadySet)
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Human { colour: bool },
    Json,
}

impl Style {
    /// `no_color` is the variable of that name: set to anything but empty, it turns colour off.
    fn choose(format: LogFormat, terminal: bool, no_color: Option<&std::ffi::OsStr>) -> Self {
        let colour = terminal && no_color.is_none_or(std::ffi::OsStr::is_empty);
        match (format, terminal) {
            (LogFormat::Human, _) | (LogFormat::Auto, true) => Style::Human { colour },
            (LogFormat::Json, _) | (LogFormat::Auto, false) => Style::Json,
        }
    }
}

type BoxedSubscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(style: Style, filter: EnvFilter, writer: W) -> BoxedSubscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match style {
        Style::Human { colour } => Box::new(builder.with_ansi(colour).finish()),
        // The fields of an event stand beside its message, and of the spans around it the
        // innermost is named: a line can be queried without digging.
        Style::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish(),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsStr;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::EnvFilter;

    use super::{LogFormat, Style, TelemetryError, init, subscriber};
    use crate::config::TelemetryConfig;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of one event at info and one at debug, under the filter "info".
    fn written(style: Style) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(style, EnvFilter::new("info"), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("batch", partition = 3).entered();
            tracing::info!(offset = 17, "committed");
            tracing::debug!("not to be seen");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_message_fields_and_span() {
        let text = written(Style::Json);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "committed");
        assert_eq!(line["offset"], 17);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["partition"], 3);
    }

    #[test]
    fn human_lines_are_plain_text_and_coloured_only_when_asked() {
        let plain = written(Style::Human { colour: false });
        assert!(plain.contains("committed offset=17"), "{plain}");
        assert_eq!(plain.lines().count(), 1);
        assert!(!plain.contains('\u{1b}'));
        assert!(written(Style::Human { colour: true }).contains('\u{1b}'));
    }

    #[test]
    fn auto_is_human_on_a_terminal_and_json_elsewhere() {
        let coloured = Style::Human { colour: true };
        let plain = Style::Human { colour: false };
        assert_eq!(Style::choose(LogFormat::Auto, true, None), coloured);
        assert_eq!(
            Style::choose(LogFormat::Auto, true, Some(OsStr::new(""))),
            coloured
        );
        assert_eq!(
            Style::choose(LogFormat::Auto, true, Some(OsStr::new("1"))),
            plain
        );
        assert_eq!(Style::choose(LogFormat::Auto, false, None), Style::Json);
        assert_eq!(Style::choose(LogFormat::Human, false, None), plain);
        assert_eq!(Style::choose(LogFormat::Json, true, None), Style::Json);
    }

    #[test]
    fn a_second_init_is_an_error_and_no_panic() {
        init(&TelemetryConfig::default()).unwrap();
        let again = init(&TelemetryConfig::default());
        assert!(matches!(again, Err(TelemetryError::AlreadySet(_))));
    }
}
