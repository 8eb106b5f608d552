//! The chain under which a session began. rustls calls the resolver and the ticketer without the
//! connection, so the thread passes the chain from one to the other within a call.

use std::cell::{Cell, RefCell};

use sha2::{Digest as _, Sha256};

use crate::keys::pin::Pin;

/// The identity of a chain for sessions: a hash of the pins on every path that a client may build.
/// Chains with the same id keep the same promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainId(pub(super) [u8; 32]);

impl ChainId {
    /// Returns the id of a chain with these pins.
    pub(super) fn of(certain: &[Pin]) -> Self {
        let mut hash = Sha256::new();
        certain.iter().for_each(|pin| hash.update(pin.as_bytes()));
        Self(hash.finalize().into())
    }
}

thread_local! {
    /// The chains that the name of the current handshake has.
    static SERVED: RefCell<Vec<ChainId>> = const { RefCell::new(Vec::new()) };
    /// The chain under which the session of the current connection began.
    static BEGUN: Cell<Option<ChainId>> = const { Cell::new(None) };
    /// The chain of the last ticket that was opened within the current call into rustls.
    static OPENED: Cell<Option<ChainId>> = const { Cell::new(None) };
}

/// Sets the chains that the name of the current handshake has.
pub(super) fn serve(chains: impl Iterator<Item = ChainId>) {
    SERVED.with_borrow_mut(|served| {
        served.clear();
        served.extend(chains);
    });
}

/// Returns `true` if the name of the current handshake has this chain.
pub(super) fn is_served(chain: ChainId) -> bool {
    SERVED.with_borrow(|served| served.contains(&chain))
}

/// Sets the chain under which the connection's session began, before a call into rustls that may
/// make a ticket of it.
pub(super) fn begun_under(chain: Option<ChainId>) {
    BEGUN.set(chain);
}

/// Returns the chain for a ticket. TLS 1.2 renews the ticket of a session within the call that
/// resumes it.
pub(super) fn current() -> Option<ChainId> {
    OPENED.get().or_else(|| BEGUN.get())
}

/// Notes the chain of a ticket that was opened.
pub(super) fn open(chain: ChainId) {
    OPENED.set(Some(chain));
}

/// Takes the chain of the ticket that was opened within the last call into rustls, if any.
pub(super) fn take_opened() -> Option<ChainId> {
    OPENED.take()
}
