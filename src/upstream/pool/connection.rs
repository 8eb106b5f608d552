//! A connection to an upstream, and its place in its pool.

use std::net::SocketAddr;
use std::task::{Context, Waker};

use super::http2::Stream;
use super::queue;
use crate::upstream::settings::UpstreamTransport;

/// The places of a pool.
pub(in crate::upstream) type Places = queue::Places<Box<Connection>, Stream>;
/// The place of one connection.
pub(in crate::upstream) type Slot = queue::Slot<Box<Connection>, Stream>;

/// A connection that counts against the pool's limit. Callers box it, since it passes from the pool to each request and
/// back.
pub(in crate::upstream) struct Connection {
    pub(in crate::upstream) transport: UpstreamTransport,
    /// The address of the upstream's end.
    pub(in crate::upstream) address: SocketAddr,
    pub(in crate::upstream) slot: Slot,
}

/// Returns `true` if an idle connection has received neither its end nor unexpected bytes.
///
/// Under TLS it may have received session tickets, which are processed here. Costs no system call unless something has
/// come.
pub(super) fn is_quiet(transport: &mut UpstreamTransport) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if transport.poll_readable(&mut cx).is_pending() {
        return true;
    }
    let mut probe = [0; 1];
    transport.poll_read(&mut cx, &mut &mut probe[..]).is_pending()
}
