//! The body of an answer with metrics. A thread writes it while the client reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::admin::AnswerBody;
use crate::telemetry::exposition::Exposition;

/// Pieces that may wait for the client; a piece has 64 KiB.
const PIECES: usize = 16;
/// The longest time for which a client may read nothing.
const STALL: Duration = Duration::from_secs(30);

/// Answers that broke off.
static BROKEN_OFF: AtomicU64 = AtomicU64::new(0);

/// Returns the number of answers that broke off: the client left, or read nothing for too long.
pub(super) fn broken_off() -> u64 {
    BROKEN_OFF.load(Ordering::Relaxed)
}

struct MetricsBody {
    pieces: mpsc::Receiver<Bytes>,
    /// The thread has sent all pieces.
    is_whole: Arc<AtomicBool>,
    /// The client has begun to read, and does not have all. The body of an answer to HEAD is never begun.
    is_owed: bool,
}

/// Returns the text of metrics. A thread of its own writes it, so that the admin listener answers other requests. The
/// thread ends early if the client leaves, or reads nothing for too long.
pub(super) fn written(metrics: Exposition) -> AnswerBody {
    begun(metrics, STALL).boxed_unsync()
}

fn begun(metrics: Exposition, stall: Duration) -> MetricsBody {
    let (sender, pieces) = mpsc::channel(PIECES);
    let runtime = Handle::current();
    let is_whole = Arc::<AtomicBool>::default();
    let of_thread = is_whole.clone();
    spawn_blocking(move || {
        let mut is_taken = true;
        metrics.write(&mut |piece| {
            is_taken = match sender.try_send(piece.into()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(piece)) => {
                    runtime.block_on(timeout(stall, sender.send(piece))).is_ok_and(|sent| sent.is_ok())
                }
            };
            is_taken
        });
        // Before the sender goes, whose end the body sees.
        of_thread.store(is_taken, Ordering::Release);
    });
    MetricsBody { pieces, is_whole, is_owed: false }
}

impl Body for MetricsBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.is_owed = true;
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.is_whole.load(Ordering::Acquire) => {
                self.is_owed = false;
                None
            }
            // The text has no end of its own: the connection breaks, so that nobody takes a part for the whole.
            None => Some(Err(io::ErrorKind::TimedOut.into())),
        })
    }
}

impl Drop for MetricsBody {
    fn drop(&mut self) {
        BROKEN_OFF.fetch_add(u64::from(self.is_owed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::Format;

    #[test]
    fn answers_that_break_off_are_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let body = |help: usize, stall| {
                let mut metrics = Exposition::new(Format::Text);
                metrics.flag("a", &"A".repeat(help), true);
                begun(metrics, stall)
            };
            let text = body(1, STALL).collect().await.unwrap().to_bytes();
            assert!(text.ends_with(b"pintle_a 1\n"), "{text:?}");
            // Nobody reads the body of an answer to HEAD.
            drop(body(1, STALL));
            assert_eq!(broken_off(), 0);
            let mut left = body(1, STALL);
            left.frame().await.unwrap().unwrap();
            drop(left);
            assert_eq!(broken_off(), 1);
            // Whoever reads too late sees that the text is cut.
            let stalled = body(2 << 20, Duration::ZERO);
            while !stalled.pieces.is_closed() {
                tokio::task::yield_now().await;
            }
            assert!(stalled.collect().await.is_err());
            assert_eq!(broken_off(), 2);
        });
    }
}
