//! Stopping a future half-way: the same number of polls stops it at the same point of its work, as
//! far as the network lets it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// The future waited more often than it was allowed to.
#[derive(Debug)]
pub struct Interrupted;

/// Polls `future` until it waits for the `waits`-th time, then drops it (unless it is borrowed, so
/// that the caller can go on with it). At `waits` = 0 it is not even begun.
pub async fn interrupt<F: Future>(future: F, waits: usize) -> Result<F::Output, Interrupted> {
    let mut future = pin!(future);
    let mut left = waits;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(Err(Interrupted));
        }
        let result = future.as_mut().poll(context);
        left -= 1;
        match result {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if left == 0 => Poll::Ready(Err(Interrupted)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
