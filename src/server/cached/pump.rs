//! Moves a body from the upstream to its readers, in a task of its own: neither a client that leaves nor one that reads
//! slowly stops it.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use crate::cache::filling::{Filling, FillingReader};
use crate::clock::{Alarm, Clock};
use crate::upstream::{ResponseBody, UpstreamError};
use crate::wire::body::{Body, Frame};

/// The time that an upstream's body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyTimes {
    /// The longest pause.
    pub(super) pause: Duration,
    /// The rest of the total timeout.
    pub(super) left: Option<Duration>,
}

impl BodyTimes {
    fn alarm(self, clock: &Rc<Clock>) -> Alarm {
        let alarm = clock.alarm();
        if let Some(left) = self.left {
            alarm.cap(left);
        }
        alarm
    }
}

/// Reads a body into a filling. Returns `true` if it was whole.
pub(super) async fn pump(mut body: ResponseBody, filling: &Filling, times: BodyTimes, clock: &Rc<Clock>) -> bool {
    let alarm = times.alarm(clock);
    loop {
        // While a reader is slow, only the total time counts.
        alarm.clear();
        let room = poll_fn(|cx| match filling.poll_budget(cx) {
            Poll::Ready(has_room) => Poll::Ready(has_room),
            Poll::Pending => alarm.poll_due(cx).map(|()| false),
        });
        if !room.await {
            return false;
        }
        match next(&mut body, &alarm, times.pause).await {
            Some(Some(piece)) => filling.push(piece),
            Some(None) => return true,
            None => return false,
        }
    }
}

/// Reads a whole body of at most this many bytes; `None` if it is larger, or breaks off.
pub(super) async fn collect(mut body: ResponseBody, most: u64, times: BodyTimes, clock: &Rc<Clock>) -> Option<Bytes> {
    let alarm = times.alarm(clock);
    let mut whole = Vec::new();
    loop {
        match next(&mut body, &alarm, times.pause).await? {
            Some(piece) => whole.extend_from_slice(&piece),
            None => return Some(whole.into()),
        }
        if whole.len() as u64 > most {
            return None;
        }
    }
}

/// Returns the next piece; `Some(None)` at the end, `None` if the body breaks off or takes too long.
async fn next(body: &mut ResponseBody, alarm: &Alarm, pause: Duration) -> Option<Option<Bytes>> {
    alarm.set(pause);
    loop {
        let frame = poll_fn(|cx| match body.poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => alarm.poll_due(cx).map(|()| None),
        });
        match frame.await {
            None => {
                body.give_up();
                return None;
            }
            Some(None) => return Some(None),
            Some(Some(Ok(Frame::Data(piece)))) => return Some(Some(piece)),
            // Trailers are not stored.
            Some(Some(Ok(Frame::Trailers(_)))) => {}
            Some(Some(Err(_))) => return None,
        }
    }
}

/// A body that is read by several requests.
pub(super) struct SharedBody {
    reader: FillingReader,
    /// The rest of a piece that was larger than its reader had room for.
    rest: Bytes,
    most: usize,
}

impl SharedBody {
    /// Returns a body from its beginning; `None` if that is gone.
    pub(super) fn of(filling: &Arc<Filling>) -> Option<ResponseBody> {
        let reader = filling.reader()?;
        Some(ResponseBody::Shared(Box::new(Self { reader, rest: Bytes::new(), most: usize::MAX })))
    }
}

impl Body for SharedBody {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        while self.rest.is_empty() {
            match ready!(self.reader.poll_piece(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(())) => return Poll::Ready(Some(Err(UpstreamError::Truncated(None)))),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(self.most));
        Poll::Ready(Some(Ok(Frame::Data(piece))))
    }

    fn is_end(&self) -> bool {
        self.rest.is_empty() && self.reader.is_end()
    }

    fn read_at_most(&mut self, bytes: usize) {
        self.most = bytes.max(1);
    }
}
