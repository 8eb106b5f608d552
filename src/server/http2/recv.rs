//! The receiving side of a stream: the request's body.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use h2::RecvStream;

use super::memory::Share;
use super::meter::Meter;
use crate::clock::Alarm;
use crate::message::{Fields, is_forbidden_trailer};
use crate::server::snapshot::SiteOfView;
use crate::server::trailers;
use crate::wire::body::{Body, Frame, RequestBodyError};

/// The receiving side of a stream, shared between the upstream that reads the body and the end that discards it.
pub(super) struct Recv {
    pub(super) stream: RecvStream,
    /// Bytes of the body that may still come.
    left: u64,
    /// The body has ended; trailers may follow.
    trailers: bool,
    /// The last piece's size. Until the next is asked for, the window does not open by it.
    taken: usize,
    pub(super) meter: Rc<Meter>,
    pub(super) share: Rc<Share>,
}

impl Recv {
    /// Returns the receiving side for a body of at most `max` bytes.
    pub(super) fn new(stream: RecvStream, max: u64, meter: Rc<Meter>, share: Rc<Share>) -> Self {
        Self { stream, left: max, trailers: false, taken: 0, meter, share }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        if self.taken > 0 {
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.taken));
        }
        while !self.trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.taken = data.len();
                    self.meter.payload(data.len());
                    self.share.received.set(self.share.received.get() + data.len() as u64);
                    if data.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(match self.left.checked_sub(data.len() as u64) {
                        Some(left) => {
                            self.left = left;
                            Ok(Frame::Data(data))
                        }
                        None => Err(RequestBodyError::TooLarge),
                    }));
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(RequestBodyError::Gone))),
                None => self.trailers = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(map)) => {
                let mut fields = Fields::from(&map);
                fields.remove_if(|_, name, _| is_forbidden_trailer(name));
                Poll::Ready((!fields.is_empty()).then_some(Ok(Frame::Trailers(fields))))
            }
            Ok(None) => Poll::Ready(None),
            Err(_) => Poll::Ready(Some(Err(RequestBodyError::Gone))),
        }
    }
}

/// The body of a request, for the upstream to read.
pub(super) struct StreamBody {
    pub(super) recv: Rc<RefCell<Recv>>,
    /// The site whose rules decide which trailers pass.
    pub(super) site: Option<SiteOfView>,
}

impl Body for StreamBody {
    type Error = RequestBodyError;

    fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        let frame = ready!(self.recv.borrow_mut().poll_frame(cx));
        Poll::Ready(trailers::of_request(frame, self.site.as_ref()))
    }

    fn is_end(&self) -> bool {
        self.recv.borrow().stream.is_end_stream()
    }

    fn keep(&mut self, bytes: usize) -> bool {
        self.recv.borrow().share.keep(bytes)
    }
}

/// Discards, for a while, what a client still sends after it has been answered.
pub(super) async fn discard(recv: &RefCell<Recv>, alarm: &Alarm, limit: Duration) {
    if recv.borrow().stream.is_end_stream() {
        return;
    }
    alarm.set(limit);
    poll_fn(|cx| {
        let mut recv = recv.borrow_mut();
        recv.left = u64::MAX;
        loop {
            match recv.poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll_due(cx),
            }
        }
    })
    .await;
}
