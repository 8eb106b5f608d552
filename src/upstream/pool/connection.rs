//! A connection to an upstream, and its place among those of its pool.

use std::net::SocketAddr;
use std::task::{Context, Waker};

use super::http2::Stream;
use super::queue;
use crate::upstream::settings::UpstreamTransport;

/// The places of connections to an upstream.
pub(in crate::upstream) type Places = queue::Places<Box<Connection>, Stream>;
/// One of them.
pub(in crate::upstream) type Slot = queue::Slot<Box<Connection>, Stream>;

/// A connection that counts against the limit. Boxed: it is handed on with each request, and back.
pub(in crate::upstream) struct Connection {
    pub(in crate::upstream) transport: UpstreamTransport,
    /// Where it leads.
    pub(in crate::upstream) address: SocketAddr,
    pub(in crate::upstream) slot: Slot,
}

/// Whether nothing was received while idle: no end, no bytes out of turn. Under TLS, tickets and the like may have
/// come; they are taken in here. Costs no system call unless something has come.
pub(super) fn is_quiet(transport: &mut UpstreamTransport) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if transport.poll_readable(&mut cx).is_pending() {
        return true;
    }
    let mut probe = [0; 1];
    transport.poll_read(&mut cx, &mut &mut probe[..]).is_pending()
}
