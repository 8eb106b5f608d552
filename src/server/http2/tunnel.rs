//! A stream that becomes a WebSocket (RFC 8441).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use bytes::BytesMut;
use h2::server::SendResponse;
use http::Response as HttpResponse;

use super::memory::{ChargedBytes, Share};
use super::meter::Meter;
use super::recv::Recv;
use crate::clock::Alarm;
use crate::message::HeaderMapSink;
use crate::server::context::Context;
use crate::server::reply::Reply;
use crate::server::tunnel::{self, Duplex, Tunnelled};
use crate::upstream::UpgradedConnection;

/// Answers an extended CONNECT (RFC 8441 section 5), and passes the WebSocket on. Returns `None` if the client has given
/// the stream up.
pub(super) async fn run(
    mut respond: SendResponse<ChargedBytes>,
    recv: Rc<RefCell<Recv>>,
    reply: &Reply,
    upgraded: UpgradedConnection,
    context: &Context,
    alarm: &Alarm,
) -> Option<Tunnelled> {
    let mut fields = HeaderMapSink::default();
    reply.write_fields(&mut fields, &context.worker.clock.date());
    fields.0.remove("sec-websocket-accept");
    let mut response = HttpResponse::new(());
    *response.headers_mut() = fields.0;
    let send = respond.send_response(response, false).ok()?;
    let Recv { stream: recv, meter, share, .. } = Rc::try_unwrap(recv).ok()?.into_inner();
    let mut client = Metered(tunnel::Http2Duplex { recv, send, account: share }, meter);
    let UpgradedConnection { mut transport, received, .. } = upgraded;
    let view = context.worker.view();
    let limits = &view.shared.limits;
    let (idle, linger) = (limits.websocket_idle, limits.linger);
    Some(tunnel::run(&mut client, &mut transport, BytesMut::new(), received, alarm, idle, linger).await)
}

/// The client's end of a tunnel. All that passes counts as payload.
struct Metered(tunnel::Http2Duplex<Rc<Share>>, Rc<Meter>);

impl Duplex for Metered {
    fn poll_read(&mut self, cx: &mut TaskContext<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let read = self.0.poll_read(cx, buf);
        if let Poll::Ready(Ok(len)) = read {
            self.1.payload(len);
        }
        read
    }

    fn poll_write(&mut self, cx: &mut TaskContext<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        let before = buf.len();
        let written = self.0.poll_write(cx, buf);
        self.1.payload(before - buf.len());
        written
    }

    fn poll_close(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(cx)
    }
}
