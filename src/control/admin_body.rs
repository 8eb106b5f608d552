//! The bodies of requests to the admin listener: bounded in length and time, and wiped where they were collected.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use crate::admin::api::Answer;
use crate::admin::asked::wipe;

/// Room for a body whose length the client does not say, in bytes.
const BODY_ROOM: usize = 16 << 10;
/// Time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a body of at most `max` bytes. With 0, leaves it unread.
pub(super) async fn body(incoming: Incoming, max: usize) -> Result<Bytes, Answer> {
    let too_long = || {
        let why = format!("the body is longer than {max} bytes");
        Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &why)
    };
    if max == 0 {
        return Ok(Bytes::new());
    }
    if incoming.size_hint().lower() > max as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, whole(incoming, max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(Answer::bad("the body is incomplete")),
        Err(_) => Err(Answer::error(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// Collects a body that may have a key or a password: in one place, which nobody else has, so that it can be wiped there.
async fn whole(incoming: Incoming, max: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let known = usize::try_from(incoming.size_hint().lower()).unwrap_or(max).clamp(BODY_ROOM, max.max(BODY_ROOM));
    let mut whole = BytesMut::with_capacity(known);
    let mut body = pin!(Limited::new(incoming, max));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
            wipe(data);
        }
    }
    Ok(whole.freeze())
}

/// Reads a body of a refused request, and keeps nothing: a connection that is closed before is reset, and the client never
/// sees the refusal. A body longer than `left` bytes is left unread.
pub(super) async fn discard(mut incoming: Incoming, mut left: u64) {
    if incoming.size_hint().lower() > left {
        return;
    }
    let read = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(BODY_TIMEOUT, read).await;
}
