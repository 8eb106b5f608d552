//! Metrics of upstreams: circuits and addresses.

use super::label_sets::alone;
use super::{Control, flag};
use crate::clock::uptime;
use crate::control::status::is_out;
use crate::telemetry::exposition::{Exposition, SeriesColumn};
use crate::upstream::{Circuit, Upstream};

impl Control {
    pub(super) fn upstream_metrics(&self, metrics: &mut Exposition) {
        let now = uptime();
        let [mut closed, mut half_open, mut open] = [(); 3].map(|()| Vec::with_capacity(self.config.sites().len()));
        for (_, upstream) in self.sites() {
            let circuit = upstream.map(|upstream| upstream.health.circuit(now));
            closed.push(circuit.map(|circuit| flag(matches!(circuit, Circuit::Closed))));
            half_open.push(circuit.map(|circuit| flag(matches!(circuit, Circuit::HalfOpen))));
            open.push(circuit.map(|circuit| flag(matches!(circuit, Circuit::Open(_)))));
        }
        let states = vec![
            SeriesColumn { labels: r#",state="closed"}"#, values: closed },
            SeriesColumn { labels: r#",state="half-open"}"#, values: half_open },
            SeriesColumn { labels: r#",state="open"}"#, values: open },
        ];
        let sites = &self.label_sets().sites;
        let help = "1 for the state of the circuit. While it is open, requests get 503.";
        metrics.many_gauges("upstream_circuit", help, sites, states);
        let known = |upstream: &Upstream| {
            let known = upstream.addresses.known();
            let out = known.iter().filter(|address| is_out(upstream, **address, now)).count();
            (known.len() as f64, out as f64)
        };
        let of_each = self.sites().map(|(_, upstream)| upstream.map(known).unzip());
        let (known, out): (Vec<_>, Vec<_>) = of_each.unzip();
        metrics.many_gauges(
            "upstream_addresses",
            "Addresses of the upstream that are known.",
            sites,
            vec![alone(known)],
        );
        let help = "Addresses that are out of use because they fail.";
        metrics.many_gauges("upstream_addresses_left_out", help, sites, vec![alone(out)]);
    }
}
