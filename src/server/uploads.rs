//! Request bodies that are complete before the upstream is asked (`buffer_request`): a slow upload then holds no worker of
//! the origin.
//!
//! A body is kept in memory at first, and beyond that in a file without a name in the state folder. Where the bounds of all
//! bodies leave no room, or the disk does not take it, the body goes to the upstream as it comes, as without buffering: no
//! request fails for that. A network whose own part is taken is refused: nobody can switch the buffering off for others.

mod kept;

use http::StatusCode;

use super::asked::Turn;
use super::page;
use super::rejection::Rejection;
use super::upload_budget::OverBudget;
use crate::message::{Framing, Name, RequestHead};
use crate::site::Site;
use crate::upstream::{Interim, is_grpc};
use crate::wire::body::{Frame, RequestBody, RequestBodyError};
use crate::wire::min_rate::{RateTimer, next_frame};
use kept::{Kept, KeptBody};

/// A request whose body was buffered: as the upstream gets it.
pub(super) struct Buffered {
    pub(super) head: Box<RequestHead>,
    pub(super) body: RequestBody,
}

/// Returns `true` if the body of this request is buffered. A call of gRPC may answer before its request has ended.
pub(super) fn is_buffered(head: &RequestHead, site: &Site) -> bool {
    site.buffers_requests && head.framing != Framing::None && !head.websocket && !is_grpc(head)
}

/// Reads a request's body to its end, or as far as there is room.
pub(super) async fn buffer(
    body: RequestBody,
    turn: &Turn<'_>,
    interim: &mut dyn Interim,
) -> Result<Buffered, Rejection> {
    let Turn { head, context, .. } = *turn;
    let mut head = Box::new(head.clone());
    let Some(kept) = Kept::new(turn) else {
        context.worker.counters.uploads_unbuffered.increment();
        return Ok(Buffered { head, body });
    };
    if head.expects_continue() {
        interim.interim(&page::answer(StatusCode::CONTINUE));
        head.fields.retain(|field, _| field.name != Name::Expect);
    }
    let body = read(body, kept, turn).await.map_err(Rejection::Body)?;
    if let Some(length) = body.whole() {
        // Many applications do not read a body of unknown length.
        head.framing = Framing::Length(length);
    }
    Ok(Buffered { head, body: Box::new(body) })
}

/// Reads a body into what is kept of it. The time in which the disk is waited for is not the client's.
async fn read(mut source: RequestBody, mut kept: Kept, turn: &Turn<'_>) -> Result<KeptBody, RequestBodyError> {
    let Turn { asked, context, alarm, .. } = *turn;
    let (mut rate_timer, mut moved) = (RateTimer::new(asked.view.shared.limits.min_rate()), 0);
    loop {
        rate_timer.wait_for_client(moved, alarm);
        let trailers = match next_frame(&mut source, alarm).await.transpose()? {
            Some(Frame::Data(data)) => {
                moved = data.len() as u64;
                rate_timer.rest();
                match kept.take(&data).await {
                    Ok(()) => {}
                    Err(OverBudget::Network) => return Err(RequestBodyError::Lost),
                    Err(OverBudget::All) => {
                        context.worker.counters.uploads_unbuffered.increment();
                        return Ok(KeptBody::begun(kept, data, source));
                    }
                }
                // A body that is here already must not keep the worker from its other connections.
                tokio::task::yield_now().await;
                continue;
            }
            Some(Frame::Trailers(trailers)) => Some(trailers),
            None => None,
        };
        alarm.clear();
        context.worker.counters.uploads_buffered.increment();
        return Ok(KeptBody::ended(kept, trailers));
    }
}
