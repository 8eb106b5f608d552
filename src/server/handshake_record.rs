//! Records of failed handshakes in the access log.

use std::net::IpAddr;

use tokio::time::Instant;

use super::admission::Network;
use super::failed_handshakes::Sums;
use super::why::Why;
use super::worker::Worker;
use crate::clock::TICK;
use crate::telemetry::access::{End, HandshakeEntry};
use crate::tls::offered::Offered;
use crate::upstream::Client;

/// A handshake that has failed.
pub(super) struct Failure<'a> {
    pub(super) client: &'a Client,
    /// When the connection was accepted.
    pub(super) begin: Option<Instant>,
    /// The bytes that the client has sent.
    pub(super) received: &'a [u8],
    pub(super) why: Why,
    pub(super) error: &'a str,
}

impl Worker {
    /// Records a failed handshake, or counts it for a sum.
    pub(super) fn handshake_failed(&self, failure: &Failure<'_>) {
        let Some(access) = &self.access else { return };
        let view = self.view();
        let peer = &failure.client.peer;
        let most = view.shared.limits.log_networks;
        if !self.failed_handshakes.count(Network::of(peer.address), most, self.ticks()) {
            return;
        }
        let offered = Offered::read(failure.received);
        let name = offered.name.as_ref().map(|name| name.to_ascii_lowercase());
        let site = name.and_then(|name| view.site(&name));
        if site.as_ref().is_some_and(|site| site.unlogged) {
            return;
        }
        let entry = HandshakeEntry {
            site: site.as_ref().map(|site| &*site.name),
            client: Some(peer.address),
            peer: Some(peer.proxy.unwrap_or(peer.address)),
            duration: failure.begin.map(|begin| begin.elapsed()),
            sni: offered.name.as_deref(),
            versions: &offered.versions,
            groups: &offered.groups,
            alpn: &offered.alpn,
            sum: None,
            end: End { error: Some(failure.error), ..failure.why },
        };
        access.record_handshake(&entry, &view.shared.log);
    }

    /// Records the sums of a minute that is over, or at the end of the worker all of them.
    pub(super) fn sum_failed_handshakes(&self, all: bool) {
        let Some(access) = &self.access else { return };
        let Some(Sums { networks, others, ticks }) = self.failed_handshakes.take(self.ticks(), all) else { return };
        let seconds = TICK.saturating_mul(ticks).as_secs().max(1);
        let sums = networks.into_iter().map(|(network, count)| (Some(network.address()), count));
        for (client, count) in sums.chain((others > 0).then_some((None, others))) {
            let entry = sum(client, count, seconds);
            access.record_handshake(&entry, &self.view().shared.log);
        }
    }
}

fn sum(client: Option<IpAddr>, count: u64, seconds: u64) -> HandshakeEntry<'static> {
    HandshakeEntry {
        site: None,
        client,
        peer: None,
        duration: None,
        sni: None,
        versions: &[],
        groups: &[],
        alpn: &[],
        sum: Some((count, seconds)),
        end: End { error: Some("more failed handshakes"), ..End::default() },
    }
}
