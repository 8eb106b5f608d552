//! The facts about a client's connection that last as long as it does.

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{CipherSuite, ProtocolVersion};
use tokio::time::Instant;

use super::admission::AdmissionPass;
use super::connections::ConnectionEntry;
use super::snapshot::{SiteOfView, View};
use super::worker::{Open, Worker};
use crate::clock::uptime;
use crate::keys::pin::Pin;
use crate::message::{RequestHead, Version};
use crate::telemetry::AccessLog;
use crate::telemetry::access::{self, ConnectionFacts, LogRules};
use crate::tls::{CertificateSet, Negotiated, ServerSession};
use crate::upstream::Client;
use crate::wire::transport::Transport;

/// A client's connection.
pub(super) type ClientTransport = Transport<ServerSession>;

/// A text, and the rules that it followed.
type RuledText = (LogRules, Box<str>);

/// The facts about a connection.
pub(super) struct Context {
    pub(super) worker: Rc<Worker>,
    /// Requests that outlive the connection share it.
    pub(super) client: Rc<Client>,
    /// `None` without TLS.
    tls: Option<TlsFacts>,
    /// The facts above as the access log writes them, and the rules that it followed. Written with the first record.
    log_text: RefCell<Option<Box<RuledText>>>,
    /// The entry among the connections that may have to make room for others.
    pub(super) entry: ConnectionEntry,
    _open: Open,
    _pass: AdmissionPass,
}

/// The facts from the handshake: the name in the SNI, and the certificates for it.
pub(super) struct TlsFacts {
    pub(super) name: Option<Box<str>>,
    pub(super) certificates: CertificateSet,
    pub(super) negotiated: Option<Negotiated>,
    pub(super) alpn: Option<&'static [u8]>,
    /// The time from the accepted connection to the end of the handshake. `None` if nobody measures.
    pub(super) duration: Option<Duration>,
}

/// Returns the name of a cipher suite in the IANA registry. rustls writes those of TLS 1.3 differently.
fn cipher_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or("unknown");
    name.strip_prefix("TLS13_").map_or_else(|| name.to_owned(), |rest| format!("TLS_{rest}"))
}

/// The reason why pins may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPins {
    /// The site has none, or withholds them.
    None,
    /// The ledger does not permit it now.
    NoLease,
    /// The site has no certificate for the host, so the promise in the ledger does not have it either.
    Refused,
    /// The connection shows another site's chain, or one that they do not match.
    OtherChain,
    /// The client named no site, or none of pintle's: it got the certificate of `tls.default_site`,
    /// which may become another site without a word of the guard.
    Unnamed,
}

impl TlsFacts {
    /// Returns the facts without those of a handshake.
    pub(super) fn of(name: Option<Box<str>>, certificates: CertificateSet) -> Self {
        Self { name, certificates, negotiated: None, alpn: None, duration: None }
    }
}

impl Context {
    /// Returns the context of an established connection.
    pub(super) fn new(
        worker: Rc<Worker>,
        client: Client,
        tls: Option<TlsFacts>,
        entry: ConnectionEntry,
        open: Open,
        pass: AdmissionPass,
    ) -> Self {
        let client = Rc::new(client);
        Self { worker, client, tls, log_text: RefCell::default(), entry, _open: open, _pass: pass }
    }

    /// Returns `true` if the connection's certificate also covers the request's host (RFC 9110 section 7.4), or if TLS ended
    /// in front of pintle.
    pub(super) fn certificate_covers(&self, site: &SiteOfView, head: &RequestHead) -> bool {
        let Some(tls) = &self.tls else { return true };
        let named = tls.name.as_deref();
        if named.map(str::as_bytes) == Some(head.host_bytes()) {
            // The usual case, unless the name got the default site's certificates.
            let own = site.view().shared.certificates.find(named);
            if own.is_some_and(|own| Arc::ptr_eq(own, &tls.certificates)) {
                return true;
            }
        }
        // A name without a certificate is served on no connection, not even if another site's certificate covers it.
        if self.is_refused(site, head) {
            return false;
        }
        // The client has seen one of the set, unknown which: all must cover the host.
        tls.certificates.iter().all(|c| c.chain.leaf.covers(head.host()))
    }

    /// Returns `true` if pintle refuses TLS for the request's host: the site has no certificate for it.
    pub(super) fn is_refused(&self, site: &SiteOfView, head: &RequestHead) -> bool {
        site.refuses_names && site.view().shared.certificates.find(Some(head.host())).is_none()
    }

    /// Returns `true` if a site's pins may be sent here.
    pub(super) fn may_pin(&self, site: &SiteOfView, head: &RequestHead) -> bool {
        self.pins(site, head).is_ok()
    }

    /// Returns the reason why a site's pins may not be sent here. They may if the ledger covers that they are sent now, the
    /// client asked for this site in its SNI, and it has seen a chain that they match. A certificate that was changed since
    /// may not match. Over a connection of another site, or of none, a client would note pins that the guard does not judge
    /// its next chain by.
    pub(super) fn pins(&self, site: &SiteOfView, head: &RequestHead) -> Result<(), NoPins> {
        let Some(pins) = &site.hpkp else { return Err(NoPins::None) };
        // A proxy in front may end TLS for a name that pintle refuses. The promise does not have it.
        if self.is_refused(site, head) {
            return Err(NoPins::Refused);
        }
        // Read anew: after a machine's sleep, or a process that stood still, the last tick is long ago.
        if !pins.lease.holds(uptime()) {
            return Err(NoPins::NoLease);
        }
        // If TLS ends in front of pintle, the chain's file has to suffice.
        let Some(tls) = &self.tls else { return Ok(()) };
        let shared = &site.view().shared;
        let own = shared.sets.get(site.index()).and_then(Option::as_ref);
        // The usual case: the site was found by the very name in SNI.
        let is_named = tls.name.as_deref().is_some_and(|name| {
            name.as_bytes() == head.host_bytes() || shared.by_host.get(name) == Some(&site.index())
        });
        if own.is_some_and(|own| Arc::ptr_eq(own, &tls.certificates)) {
            return if is_named { Ok(()) } else { Err(NoPins::Unnamed) };
        }
        let fits = |chain: &[Pin]| chain.iter().any(|pin| pins.policy.pins.contains(pin));
        match is_named && tls.certificates.iter().all(|c| fits(&c.chain.certain)) {
            true => Ok(()),
            false => Err(NoPins::OtherChain),
        }
    }

    /// Returns the time of this turn, if the access log, the metrics or a trace need it for a duration.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.worker.begin()
    }

    /// Returns the facts of the connection as the access log writes them. They are written once.
    pub(super) fn log_text(&self, access: &AccessLog, rules: &LogRules) -> Ref<'_, str> {
        let is_current = self.log_text.borrow().as_ref().is_some_and(|written| written.0 == *rules);
        if !is_current {
            self.log_text.replace(Some(Box::new((*rules, self.write_log_text(access, rules)))));
        }
        Ref::map(self.log_text.borrow(), |written| written.as_ref().map_or("", |written| &written.1))
    }

    fn write_log_text(&self, access: &AccessLog, rules: &LogRules) -> Box<str> {
        let peer = &self.client.peer;
        let negotiated = self.tls.as_ref().and_then(|tls| Some((tls, tls.negotiated.as_ref()?)));
        let cipher = negotiated.map(|(_, negotiated)| cipher_name(negotiated.suite)).unwrap_or_default();
        let tls = negotiated.map(|(tls, negotiated)| access::HandshakeFacts {
            version: if negotiated.version == ProtocolVersion::TLSv1_3 { "1.3" } else { "1.2" },
            cipher: &cipher,
            group: negotiated.group.and_then(|group| group.as_str()),
            resumed: negotiated.resumed,
            sni: tls.name.as_deref(),
            alpn: tls.alpn,
            duration: tls.duration,
        });
        access.connection_text(&ConnectionFacts { peer: peer.proxy.unwrap_or(peer.address), tls }, rules)
    }

    /// Returns the site that the client named in its SNI. Its rules apply to answers on the connection, its policies do not.
    pub(super) fn site_of_connection(&self, view: &Rc<View>) -> Option<SiteOfView> {
        view.site(self.name()?.as_bytes())
    }

    /// Returns the name in the client's SNI.
    pub(super) fn name(&self) -> Option<&str> {
        self.tls.as_ref()?.name.as_deref()
    }

    /// Returns `true` if pintle ends TLS on this connection.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns a Sec-WebSocket-Key for a request over HTTP/2, which has none.
    pub(super) fn websocket_key(&self, head: &RequestHead) -> Option<String> {
        if !head.websocket || head.version != Version::Http2 {
            return None;
        }
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).ok()?;
        Some(STANDARD.encode(bytes))
    }
}
