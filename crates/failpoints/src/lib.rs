//! Failpoints: named places in the programs where a test lets the process die, stand still or hang,
//! at exactly that instruction. Called by the append path, ingest and the projectors.
//!
//! Without the feature `armed`, which only tests turn on, [`hit`] and [`at_first_wait`] are empty and
//! nothing of this is in a program. With it, the environment variable `RUNLOG_FAILPOINTS` arms them:
//!
//! ```text
//! RUNLOG_FAILPOINTS=append.inserted=kill@17,transaction.begun=stop@3
//! ```
//!
//! `NAME=ACTION@N` acts when the place is passed for the N-th time (from 1) in this process:
//! `kill` is SIGKILL, `stop` is SIGSTOP (until somebody sends SIGCONT), `hang` blocks the thread for
//! ever. A variable that cannot be read ends the process, since a test would otherwise test nothing.

#[cfg(feature = "armed")]
mod armed;

/// Passes a place. A place that is armed acts here.
#[inline]
pub fn hit(name: &'static str) {
    #[cfg(feature = "armed")]
    armed::hit(name);
    #[cfg(not(feature = "armed"))]
    let _ = name;
}

/// Awaits `future` and passes the place when it waits for the first time: a statement was sent then,
/// and its answer has not been read.
#[cfg(not(feature = "armed"))]
#[inline]
pub fn at_first_wait<F: Future>(name: &'static str, future: F) -> F {
    let _ = name;
    future
}

/// Awaits `future` and passes the place when it waits for the first time: a statement was sent then,
/// and its answer has not been read.
#[cfg(feature = "armed")]
pub async fn at_first_wait<F: Future>(name: &'static str, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut waited = false;
    std::future::poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        if polled.is_pending() && !waited {
            waited = true;
            hit(name);
        }
        polled
    })
    .await
}
