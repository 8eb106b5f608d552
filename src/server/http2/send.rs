//! An answer into a stream: head, body, and the end.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use h2::Reason;
use http::{Method, Response as HttpResponse, StatusCode};

use super::exchange::Exchange;
use super::memory::Share;
use super::meter::Meter;
use super::recv::discard;
use crate::clock::Alarm;
use crate::message::{HeaderMapSink, RequestHead};
use crate::server::record::Sent;
use crate::server::reply::Reply;
use crate::upstream::{ResponseBody, UpstreamError};
use crate::wire::http2_send::{SendError, Sender};
use crate::wire::min_rate::RateTimer;

/// Sends an answer.
///
/// An answer that comes before the end of the request's body is held back at its last piece, until the client has sent the
/// rest or its time is up. curl stops reading once it has the whole answer, misses the windows that open, and waits without
/// end with its upload. A refusal is not held back: it takes effect now.
pub(super) async fn send(exchange: &Exchange, reply: &mut Reply, head: &RequestHead) -> Sent {
    let Exchange { respond, recv, share, context, alarm, .. } = exchange;
    let bytes = &share.sent;
    let failed = |error: h2::Error| Sent {
        result: Err(io::Error::other(error)),
        bytes: bytes.get(),
        broken: None,
        unsent: false,
    };
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let status = reply.head.status;
    let response = response_head(reply, head, &context.worker.clock.date());
    if head.method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        reply.body = ResponseBody::Empty;
    }
    let empty = matches!(reply.body, ResponseBody::Empty);
    share.hold_head(reply.head.fields.size());
    let early = !recv.borrow().stream.is_end_stream() && !status.is_client_error() && !status.is_server_error();
    if early && empty {
        discard(recv, alarm, limits.linger).await;
    }
    let sent = respond.borrow_mut().send_response(response, empty);
    let mut sender = match sent {
        // With a length, the client sees the end of the answer before the end of the stream.
        Ok(stream) if early && reply.length().is_some() => Sender::holding_last(stream, share.clone()),
        Ok(stream) => Sender::new(stream, share.clone()),
        Err(error) => return Sent { unsent: true, ..failed(error) },
    };
    if empty {
        return Sent { result: Ok(()), bytes: 0, broken: None, unsent: false };
    }
    let meter = recv.borrow().meter.clone();
    let mut rate_timer = RateTimer::new(limits.min_rate());
    let mut result = send_body(&mut sender, reply, alarm, &mut rate_timer, &meter, bytes).await;
    if early && matches!(result, Some(Ok(()))) {
        discard(recv, alarm, limits.linger).await;
        sender.release();
        result = send_body(&mut sender, reply, alarm, &mut rate_timer, &meter, bytes).await;
    }
    match result {
        Some(Ok(())) => Sent { result: Ok(()), bytes: bytes.get(), broken: None, unsent: false },
        Some(Err(SendError::Stream(error))) => failed(error),
        Some(Err(SendError::Body(error))) => Sent {
            result: Err(io::ErrorKind::UnexpectedEof.into()),
            bytes: bytes.get(),
            broken: Some(error),
            unsent: false,
        },
        None => {
            let broken = time_is_up(&mut sender, reply, alarm);
            Sent { result: Err(io::ErrorKind::TimedOut.into()), bytes: bytes.get(), broken, unsent: false }
        }
    }
}

/// Returns the head of an answer, with the policies of the site. `date` is for an answer that has none.
fn response_head(reply: &Reply, head: &RequestHead, date: &str) -> HttpResponse<()> {
    // Room for the fields that policies add.
    let mut fields = HeaderMapSink::with_capacity(reply.head.fields.len() + 8);
    reply.write_fields(&mut fields, date);
    if reply.keeps_length_field(&head.method) {
        if let Some(stated) = reply.stated_length(&head.method) {
            fields.0.insert(http::header::CONTENT_LENGTH, stated.into());
        }
    } else if let (Some(length), false) = (reply.length(), reply.head.status == StatusCode::NO_CONTENT) {
        fields.0.insert(http::header::CONTENT_LENGTH, length.into());
    }
    let mut response = HttpResponse::new(());
    *response.status_mut() = reply.head.status;
    *response.headers_mut() = fields.0;
    response
}

/// Resets a stream on which too little has moved. Returns an error if that is the upstream's fault, and `None` if the client
/// held its window shut (CVE-2019-9517).
fn time_is_up(sender: &mut Sender<Rc<Share>>, reply: &mut Reply, alarm: &Alarm) -> Option<UpstreamError> {
    let broken = match sender.waits_for_body() {
        _ if alarm.is_past_cap() => Some(UpstreamError::TotalTimeout),
        true => {
            reply.body.give_up();
            Some(UpstreamError::BodyTimeout)
        }
        false => None,
    };
    sender.reset(if broken.is_some() { Reason::INTERNAL_ERROR } else { Reason::CANCEL });
    broken
}

/// Sends a body, or the part of it that is not held back. Returns `None` if too little moves for too long.
async fn send_body(
    sender: &mut Sender<Rc<Share>>,
    reply: &mut Reply,
    alarm: &Alarm,
    rate_timer: &mut RateTimer,
    meter: &Meter,
    bytes: &Cell<u64>,
) -> Option<Result<(), SendError<UpstreamError>>> {
    rate_timer.begin(alarm);
    poll_fn(|cx| {
        let mut moved = 0;
        let sent = sender.poll(cx, reply, &mut |n| moved += n);
        bytes.set(bytes.get() + moved as u64);
        meter.payload(moved);
        if let Poll::Ready(done) = sent {
            return Poll::Ready(Some(done));
        }
        if sender.waits_for_body() {
            rate_timer.wait_for_other(moved > 0, rate_timer.pause(), alarm);
        } else {
            rate_timer.wait_for_client(moved as u64, alarm);
        }
        alarm.poll_due(cx).map(|()| None)
    })
    .await
}
