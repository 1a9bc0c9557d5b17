//! Waiting for a fact instead of for time.
//!
//! Called wherever a test depends on what another process does.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until `look` answers `Ok`. Its `Err` says what is still missing, and the
/// last one is part of the error.
///
/// # Errors
/// Where the deadline passes first.
pub async fn wait_until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(missing) if Instant::now() >= deadline => {
                bail!("waited {} s for {what}: {missing:#}", within.as_secs())
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
