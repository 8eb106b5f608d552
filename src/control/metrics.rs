//! The metrics, in Prometheus' text format.

use std::fmt::Write as _;

use super::Control;
use super::expiry::Stage;
use super::status::is_out;
use crate::clock::uptime;
use crate::config::report;
use crate::server::NO_SITE;
use crate::telemetry::LogThread;
use crate::upstream::{Circuit, Upstream};

/// The text, metric by metric.
struct Metrics(String);

/// Values of one metric, each with its labels.
type Values = Vec<(String, f64)>;

impl Metrics {
    fn add(&mut self, name: &str, kind: &str, help: &str, values: &[(String, f64)]) {
        let _ = writeln!(self.0, "# HELP pintle_{name} {help}\n# TYPE pintle_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "pintle_{name}{labels} {value}");
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, "counter", help, &[(String::new(), value as f64)]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, "gauge", help, &[(String::new(), value as f64)]);
    }

    fn gauges(&mut self, name: &str, help: &str, values: &[(String, f64)]) {
        self.add(name, "gauge", help, values);
    }
}

impl Control {
    /// Returns all metrics.
    pub(super) fn metrics(&self) -> String {
        let mut metrics = Metrics(String::new());
        self.process_metrics(&mut metrics);
        self.promise_metrics(&mut metrics);
        self.upstream_metrics(&mut metrics);
        self.report_metrics(&mut metrics);
        self.certificate_metrics(&mut metrics);
        metrics.0
    }

    fn process_metrics(&self, metrics: &mut Metrics) {
        for (name, value) in self.server.counters().iter() {
            metrics.counter(&format!("{name}_total"), "See docs/reference.", value);
        }
        let counts = self.counts;
        metrics.counter("rotations_total", "Certificates that came into use after the start.", counts.rotations);
        metrics.counter("rotations_refused_total", "Certificates that were refused.", counts.rotations_refused);
        metrics.counter("lockouts_accepted_total", "Lockouts that the operator accepted.", counts.lockouts_accepted);
        metrics.counter("reloads_total", "Reloads.", counts.reloads);
        metrics.counter("reloads_refused_total", "Reloads that were refused.", counts.reloads_refused);
        metrics.gauge("connections", "Connections of clients.", self.server.connections() as u64);
        let draining = "1 while this process accepts nothing new and lets running requests finish.";
        metrics.gauge("draining", draining, u64::from(self.draining));
        let log = self.operator.access_log.as_ref();
        let written = u64::from(log.is_none_or(|log| log.trouble().is_none()));
        metrics.gauge("access_log_ok", "1 if the access log is written to its configured file.", written);
        metrics.counter("access_log_lines_lost_total", "Lost access log lines.", log.map_or(0, LogThread::lost));
        let failures = log.map_or(0, LogThread::reopen_failures);
        metrics.counter("access_log_reopen_failures_total", "Failed attempts to reopen the access log.", failures);
        let launcher = u64::from(self.upgrades.launcher.is_some());
        metrics.gauge("launcher_alive", "1 if an upgrade is possible.", launcher);
    }

    fn promise_metrics(&self, metrics: &mut Metrics) {
        let writable = u64::from(self.promises.trouble.is_none());
        metrics.gauge("ledger_writable", "1 if promises can be written.", writable);
        let at = self.now();
        let ledger = self.ledger();
        let (book, promises) = (ledger.book(), ledger.book().promises());
        let lockouts = book.lockouts().iter().filter(|a| !a.is_over(at) && !book.is_replaced(a)).count() as u64;
        let alive = promises.iter().filter(|p| p.is_alive(at)).count() as u64;
        metrics.gauge("lockouts_in_force", "Accepted lockouts that have not ended.", lockouts);
        let repairs = book.repairs().len() as u64;
        metrics.gauge("ledger_repairs", "Faults of the ledger that the operator accepted.", repairs);
        metrics.gauge("promises", "Sets of pins in the ledger.", promises.len() as u64);
        metrics.gauge("promises_alive", "Sets of pins that clients may hold.", alive);
    }

    fn upstream_metrics(&self, metrics: &mut Metrics) {
        let of_upstreams = |value: &dyn Fn(&Upstream) -> f64| -> Values {
            let sites = self.sites().filter_map(|(site, upstream)| upstream.map(|u| (site, u)));
            sites.map(|(site, upstream)| (label(&[("site", site.name())]), value(upstream))).collect()
        };
        let now = uptime();
        let circuits = of_upstreams(&|u| match u.health.circuit(now) {
            Circuit::Closed => 0.0,
            Circuit::HalfOpen => 1.0,
            Circuit::Open(_) => 2.0,
        });
        metrics.gauges("upstream_circuit", "0 closed, 1 half open, 2 open: requests get 503.", &circuits);
        let left_out = of_upstreams(&|u| u.addresses.known().iter().filter(|a| is_out(u, **a, now)).count() as f64);
        metrics.gauges("upstream_addresses_left_out", "Addresses that are out of use because they fail.", &left_out);
    }

    fn report_metrics(&self, metrics: &mut Metrics) {
        let counts = self.server.reports().counts();
        let mut reported = self.by_site(&|s| counts.get(s.name()).copied().unwrap_or_default() as f64);
        reported.extend(counts.get(NO_SITE).map(|count| (label(&[("site", NO_SITE)]), *count as f64)));
        metrics.add("pin_reports_total", "counter", "Reports of pins that did not match.", &reported);
        let refused = self.server.reports().refused();
        metrics.counter("pin_reports_refused_total", "Reports that were too many, too large or malformed.", refused);
    }

    fn certificate_metrics(&self, metrics: &mut Metrics) {
        let refused = self.by_site(&|s| f64::from(u8::from(self.files.refused.contains_key(s.name()))));
        metrics.gauges("certificate_refused", "1 if the files on disk are refused.", &refused);
        let lacks = self.by_site(&|s| f64::from(u8::from(s.lacks_certificate.is_some())));
        metrics.gauges("site_without_certificate", "1 if TLS is refused, as the site has no certificate.", &lacks);
        let certificates = self.config.sites().flat_map(|s| s.certificates.iter().map(move |c| (s, c)));
        let ends = certificates.map(|(s, c)| {
            let labels = [("site", s.name()), ("serial", &c.serial), ("pin", &c.pin.to_string())];
            (label(&labels), c.not_after.as_second() as f64)
        });
        let ends: Values = ends.collect();
        let now = self.now();
        let stages = self.config.sites().flat_map(|s| s.certificates.iter().map(move |c| (s, c)));
        let stages = stages.map(|(s, c)| {
            let labels = [("site", s.name()), ("serial", &c.serial), ("pin", &c.pin.to_string())];
            (label(&labels), Stage::of(c, now).number() as f64)
        });
        let stages: Values = stages.collect();
        let help =
            "0 valid; 1 to 4 less than 14, 7, 3, 1 days left, or the same fractions of a short lifetime; 5 ended.";
        metrics.gauges("certificate_ending_stage", help, &stages);
        metrics.gauges("certificate_not_after_seconds", "When a certificate ends, in seconds since 1970.", &ends);
    }

    fn by_site(&self, value: &dyn Fn(&report::Site) -> f64) -> Values {
        self.config.sites().map(|s| (label(&[("site", s.name())]), value(s))).collect()
    }
}

/// Labels in Prometheus' format. The values are names and base64 only, so nothing needs escaping.
fn label(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("{{{}}}", pairs.join(","))
}
