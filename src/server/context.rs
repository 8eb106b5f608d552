//! What is known about a client's connection for as long as it lives.

use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::admission::Pass;
use super::connections::Entry;
use super::snapshot::{SiteOfView, View};
use super::worker::{Open, Worker};
use crate::keys::pin::Pin;
use crate::message::{RequestHead, Version};
use crate::tls::{CertificateSet, ServerSession};
use crate::upstream::Client;
use crate::wire::transport::Transport;

/// A client's connection.
pub(super) type ClientTransport = Transport<ServerSession>;

/// What is known about a connection for as long as it lives.
pub(super) struct Context {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Client,
    /// Under TLS: the name that the client asked for, and the certificates of that name.
    tls: Option<TlsFacts>,
    /// Where it stands among those that may have to make room for others.
    pub(super) entry: Entry,
    _open: Open,
    _pass: Pass,
}

/// What the handshake has shown.
pub(super) struct TlsFacts {
    pub(super) name: Option<Box<str>>,
    pub(super) certificates: CertificateSet,
    /// The client has seen the chain of the session that was resumed, and not that of now.
    pub(super) resumed: bool,
}

impl Context {
    /// For a connection that is established.
    pub(super) fn new(
        worker: Rc<Worker>,
        client: Client,
        tls: Option<TlsFacts>,
        entry: Entry,
        open: Open,
        pass: Pass,
    ) -> Self {
        Self { worker, client, tls, entry, _open: open, _pass: pass }
    }

    /// Whether the certificate that the client was shown is good for `host`, too (RFC 9110 section 7.4). Where TLS
    /// ended elsewhere, that is not for us to say.
    pub(super) fn certificate_covers(&self, site: &SiteOfView, head: &RequestHead) -> bool {
        let Some(tls) = &self.tls else { return true };
        let named = tls.name.as_deref();
        if named.map(str::as_bytes) == Some(head.host_bytes()) {
            // The usual case; unless the name got the certificates of the default site.
            let own = site.view().shared.certificates.find(named);
            if own.is_some_and(|own| Arc::ptr_eq(own, &tls.certificates)) {
                return true;
            }
        }
        // Which one of a pair the client has seen is not known here: all must do.
        tls.certificates.iter().all(|c| c.chain.leaf.covers(head.host()))
    }

    /// Whether a site's pins may be sent here: they are written down as sent until now, and the client has seen a chain
    /// that they fit. It has not where the certificate was changed since, or is another site's that covers this one, too.
    pub(super) fn may_pin(&self, site: &SiteOfView) -> bool {
        let Some(pins) = &site.hpkp else { return false };
        if !pins.lease.holds(self.worker.clock.uptime()) {
            return false;
        }
        // Where TLS ends in front of pintle, the file of the chain is all that there is to go by.
        let Some(tls) = &self.tls else { return true };
        let fits = |chain: &[Pin]| chain.iter().any(|pin| pins.policy.pins.contains(pin));
        let shared = &site.view().shared;
        if tls.resumed {
            // The session may have begun under any chain that the name in the SNI had since tickets are about: its site's,
            // or another's that had the name. What the default site had, to which other names go, is not looked up.
            let fits_earlier = |site: usize| {
                let earlier = shared.earlier.get(site);
                earlier.is_none_or(|earlier| earlier.iter().all(|chain| fits(&chain.pins)))
            };
            let named = tls.name.as_deref().and_then(|name| shared.by_host.get(name));
            if !named.is_some_and(|named| fits_earlier(*named)) || !fits_earlier(site.index()) {
                return false;
            }
        }
        let own = shared.sets.get(site.index()).and_then(Option::as_ref);
        let is_own = own.is_some_and(|own| Arc::ptr_eq(own, &tls.certificates));
        is_own || tls.certificates.iter().all(|c| fits(&c.chain.certain))
    }

    /// The time, if it will be asked for: when something begins that the access log tells the length of.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.worker.access.is_some().then(Instant::now)
    }

    /// The site that the client named in its SNI: its rules hold for what is said on the connection, its policies do not.
    pub(super) fn site_of_connection(&self, view: &Rc<View>) -> Option<SiteOfView> {
        view.site(self.name()?.as_bytes())
    }

    /// The name that the client asked for in its SNI.
    pub(super) fn name(&self) -> Option<&str> {
        self.tls.as_ref()?.name.as_deref()
    }

    /// Whether the connection is under TLS that ends here.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A key to ask for a WebSocket with, when the client came by HTTP/2, where there is none.
    pub(super) fn websocket_key(&self, head: &RequestHead) -> Option<String> {
        if !head.websocket || head.version != Version::Http2 {
            return None;
        }
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).ok()?;
        Some(STANDARD.encode(bytes))
    }
}
