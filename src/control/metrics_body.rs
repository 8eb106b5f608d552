//! The body of an answer with metrics. A thread writes it while the client reads.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
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

struct MetricsBody(mpsc::Receiver<Bytes>);

/// Returns the text of metrics. A thread of its own writes it, so that the admin listener answers other requests. The
/// thread ends early if the client leaves, or reads nothing for too long.
pub(super) fn written(metrics: Exposition) -> AnswerBody {
    let (sender, receiver) = mpsc::channel(PIECES);
    let runtime = Handle::current();
    spawn_blocking(move || {
        metrics.write(&mut |piece| match sender.try_send(piece.into()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(piece)) => {
                runtime.block_on(timeout(STALL, sender.send(piece))).is_ok_and(|sent| sent.is_ok())
            }
        });
    });
    MetricsBody(receiver).boxed_unsync()
}

impl Body for MetricsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
