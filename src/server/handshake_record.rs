//! Records of failed handshakes in the access log.

use std::net::IpAddr;

use tokio::time::Instant;

use super::admission::ClientNetwork;
use super::failed_handshakes::Sums;
use super::rejection::NO_CERTIFICATE;
use super::why::Why;
use super::worker::Worker;
use crate::clock::TICK;
use crate::telemetry::access::{End, Ended, HandshakeEntry};
use crate::telemetry::meters::HANDSHAKES;
use crate::tls::offered::Offered;
use crate::upstream::Client;

/// A handshake that has failed.
pub(super) struct HandshakeFailure<'a> {
    pub(super) client: &'a Client,
    /// The time at which the connection was accepted. `None` if nobody measures.
    pub(super) begin: Option<Instant>,
    /// The client has sent something.
    pub(super) has_begun: bool,
    /// The bytes that it has sent, if the access log is on.
    pub(super) received: &'a [u8],
    pub(super) why: Why,
    pub(super) error: &'a str,
}

impl Worker {
    /// Counts a handshake that has succeeded.
    pub(super) fn handshake_succeeded(&self, resumed: bool) {
        self.counters.handshakes.increment();
        if resumed {
            self.counters.handshakes_resumed.increment();
        }
        self.meters.handshakes.count(&HANDSHAKES, &("ok", if resumed { "resumed" } else { "full" }));
    }

    /// Counts a failed handshake, and records it, or counts it for a sum.
    pub(super) fn handshake_failed(&self, failure: &HandshakeFailure<'_>) {
        self.meters.handshakes.count(&HANDSHAKES, &("failed", reason(failure)));
        if let Some(limit) = failure.why.limit {
            self.limit_reached(limit);
        }
        // A connection without a byte is no handshake: clients open some ahead of time, and balancers probe.
        if failure.has_begun {
            self.record_failure(failure);
        }
    }

    fn record_failure(&self, failure: &HandshakeFailure<'_>) {
        let Some(access) = &self.access else { return };
        let view = self.view();
        let offered = Offered::read(failure.received);
        let name = offered.name.as_ref().map(|name| name.to_ascii_lowercase());
        let site = name.and_then(|name| view.site(&name));
        // Before the count: its sums are records, too.
        if site.as_ref().is_some_and(|site| site.unlogged) {
            return;
        }
        let peer = &failure.client.peer;
        let most = view.shared.limits.log_networks;
        if !self.failed_handshakes.count(ClientNetwork::of(peer.address), most, self.ticks()) {
            return;
        }
        // The name is known: the resolver has no certificate for it.
        let lacks_certificate = site.is_some() && failure.why.alert_sent == Some("unrecognized_name");
        let error = if lacks_certificate { NO_CERTIFICATE } else { failure.error };
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
            end: End { error: Some(error), ..failure.why },
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

/// The reason of a failure, for the metrics.
fn reason(failure: &HandshakeFailure<'_>) -> &'static str {
    let Why { ended, limit, alert_sent, alert_received, .. } = failure.why;
    match (alert_sent, alert_received) {
        _ if !failure.has_begun => "no_hello",
        _ if limit.is_some() => "limit",
        (_, Some(_)) => "client_alert",
        (Some("unrecognized_name"), _) => "unknown_name",
        (Some("protocol_version"), _) => "version",
        (Some("handshake_failure"), _) => "nothing_in_common",
        (Some("no_application_protocol"), _) => "protocol",
        (Some(_), _) => "other_alert",
        _ if ended == Ended::Client => "client_closed",
        _ => "other",
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
