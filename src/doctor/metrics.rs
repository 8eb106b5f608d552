//! The results of a round as metrics: for the textfile collector of node_exporter.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jiff::Timestamp;

use super::checks::Check;
use super::finding::{CheckResults, FindingSeverity};
use super::host::Host;
use crate::telemetry::exposition::{Exposition, Format, Labels, Values};

/// Returns the results of checks.
#[must_use]
pub fn text(host: &Host, all: &[(&Check, CheckResults)]) -> String {
    let mut metrics = Exposition::new(Format::Text);
    let (mut findings, mut unknown) = (Values::new(), Values::new());
    for (check, results) in all {
        for verdict in [FindingSeverity::Fault, FindingSeverity::Warning] {
            let labels = Labels::new(&[("check", check.id), ("verdict", verdict.word())]);
            let count = results.findings.iter().filter(|finding| finding.verdict == verdict).count();
            findings.push((labels, count as f64));
        }
        unknown.push((Labels::new(&[("check", check.id)]), results.unknown.len() as f64));
    }
    metrics.gauges("doctor_findings", "Findings of pintle doctor.", &findings);
    metrics.gauges("doctor_unknown", "Parts of a check that doctor could not judge.", &unknown);
    let (mut answers, mut times) = (Values::new(), Values::new());
    for (upstream, visit) in host.visits() {
        let address = visit.address.map(|address| address.to_string()).unwrap_or_default();
        let place = upstream.place();
        let of = |more: &[(&str, &str)]| {
            Labels::new(
                &[&[("site", upstream.site.as_str()), ("upstream", &place), ("address", &address)], more].concat(),
            )
        };
        answers.push((of(&[]), f64::from(u8::from(visit.failed.is_none()))));
        let phases = [
            ("dns", visit.times.dns),
            ("tcp", visit.times.tcp),
            ("tls", visit.times.tls),
            ("first_byte", visit.times.first_byte),
        ];
        let known = phases.into_iter().filter_map(|(phase, time)| Some((of(&[("phase", phase)]), time?.as_secs_f64())));
        times.extend(known);
    }
    metrics.gauges("doctor_upstream_ok", "1 if the address of an upstream answers.", &answers);
    metrics.gauges("doctor_upstream_seconds", "The time of each phase of a visit.", &times);
    let now = Timestamp::now().as_second() as f64;
    metrics.gauge("doctor_run_timestamp_seconds", "When the checks ran, in seconds since 1970.", now);
    metrics.finish()
}

/// Replaces a file by a text that everybody may read. A reader sees the old text or the new one, and never a part.
///
/// # Errors
///
/// If the folder cannot be written.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // The collector reads files whose names end in .prom only.
    let mut other = name.to_owned();
    other.push(format!(".{}", std::process::id()));
    let aside = file.with_file_name(other);
    let written = fs::write(&aside, text)
        .and_then(|()| fs::set_permissions(&aside, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&aside, file));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}
