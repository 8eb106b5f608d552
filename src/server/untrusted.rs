//! Peers that state a scheme and are not trusted. pintle redirects them to https without end if they end TLS themselves.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::message::{Name, RequestHead, tokens};

/// The most peers that are remembered, and so the most warnings: anybody can send such a field.
const PEERS_MAX: usize = 64;

/// The peers that were reported. Only a request that is redirected looks at it, and only if it states https.
#[derive(Debug, Default)]
pub(super) struct Untrusted {
    reported: Mutex<HashSet<IpAddr>>,
}

impl Untrusted {
    /// Warns of a peer that is not trusted and says that its client came over https: once for each peer.
    pub(super) fn look_at(&self, peer: IpAddr, head: &RequestHead) {
        let Some(field) = field_that_states_https(head) else { return };
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= PEERS_MAX || !reported.insert(peer) {
            return;
        }
        let is_last = reported.len() == PEERS_MAX;
        drop(reported);
        let trust = match field {
            "Forwarded" => "; and trust = \"forwarded\"",
            _ => "",
        };
        let hint = format!(
            "if {peer} ends TLS for clients, they get an endless redirect to https: trusted_proxies = [\"{peer}\"] in \
             [listen]{trust}"
        );
        tracing::warn!(%peer, host = head.host(), hint, "{peer} sends {field} but is not in trusted_proxies");
        if is_last {
            tracing::warn!(peers = PEERS_MAX, "further peers like this are not reported");
        }
    }
}

/// The field in which a request states https.
fn field_that_states_https(head: &RequestHead) -> Option<&'static str> {
    let by_x = head.fields.get_all(Name::XForwardedProto).flat_map(tokens);
    if by_x.into_iter().any(|scheme| scheme.eq_ignore_ascii_case(b"https")) {
        return Some("X-Forwarded-Proto");
    }
    let is_https = |value: &[u8]| {
        let value = value.to_ascii_lowercase();
        [&b"proto=https"[..], b"proto=\"https\""].iter().any(|want| value.windows(want.len()).any(|w| w == *want))
    };
    head.fields.get_all(Name::Forwarded).any(is_https).then_some("Forwarded")
}
