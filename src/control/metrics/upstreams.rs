//! Metrics of upstreams: circuits and addresses.

use super::{Control, flag, of_site};
use crate::clock::uptime;
use crate::config::report::SiteReport;
use crate::control::status::is_out;
use crate::telemetry::exposition::{Exposition, Labels, Values};
use crate::upstream::{Circuit, Upstream};

impl Control {
    pub(super) fn upstream_metrics(&self, metrics: &mut Exposition) {
        let now = uptime();
        let mut circuits = Values::new();
        for (site, upstream) in self.with_upstreams() {
            let circuit = upstream.health.circuit(now);
            let states = [
                ("closed", matches!(circuit, Circuit::Closed)),
                ("half-open", matches!(circuit, Circuit::HalfOpen)),
                ("open", matches!(circuit, Circuit::Open(_))),
            ];
            circuits
                .extend(states.map(|(state, is)| (Labels::new(&[("site", site.name()), ("state", state)]), flag(is))));
        }
        metrics.gauges(
            "upstream_circuit",
            "1 for the state of the circuit. While it is open, requests get 503.",
            &circuits,
        );
        let of_each = |value: &dyn Fn(&Upstream) -> usize| -> Values {
            self.with_upstreams().map(|(site, upstream)| (of_site(site), value(upstream) as f64)).collect()
        };
        let known = of_each(&|upstream| upstream.addresses.known().len());
        metrics.gauges("upstream_addresses", "Addresses of the upstream that are known.", &known);
        let out = of_each(&|upstream| upstream.addresses.known().iter().filter(|a| is_out(upstream, **a, now)).count());
        metrics.gauges("upstream_addresses_left_out", "Addresses that are out of use because they fail.", &out);
    }

    fn with_upstreams(&self) -> impl Iterator<Item = (&SiteReport, &Upstream)> {
        self.sites().filter_map(|(site, upstream)| Some((site, upstream?)))
    }
}
