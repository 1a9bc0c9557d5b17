//! Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere.
//! Called by `publish` and `simulate`.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::format::count;
use crate::output::note;

/// How often the bar's text is renewed.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is written where stderr is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// The progress of work that has `length` units (runs, bytes) and counts events beside them.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    next: Instant,
}

impl Progress {
    /// Starts. `unit` is a template of indicatif for position and length, such as
    /// `{pos}/{len} runs`; without a length only events are counted.
    pub(crate) fn start(length: Option<u64>, unit: &str) -> Self {
        let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match length {
            Some(_) => format!("{{bar:30}} {unit}  {{msg}}  ETA {{eta}}"),
            None => "{spinner} {msg}".to_owned(),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        let next = if bar.is_hidden() { now + LINE } else { now };
        Self {
            bar,
            started: now,
            next,
        }
    }

    /// Says how much there is to do, where that is known only later.
    pub(crate) fn set_length(&self, length: u64) {
        self.bar.set_length(length);
    }

    /// Tells where the work is. Cheap: most calls only look at the clock.
    pub(crate) fn at(&mut self, position: u64, events: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let seconds = (now - self.started).as_secs_f64().max(0.001);
        // Events per second fit in any integer; the fraction says nothing.
        let rate = (events as f64 / seconds) as u64;
        let text = format!("{} events, {} events/s", count(events), count(rate));
        if self.bar.is_hidden() {
            note(&text);
            self.next = now + LINE;
        } else {
            self.bar.set_position(position);
            self.bar.set_message(text);
            self.next = now + REDRAW;
        }
    }

    /// Takes the bar away, so that what follows stands alone.
    pub(crate) fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
