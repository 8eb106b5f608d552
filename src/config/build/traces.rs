//! `[metrics]`: the collector of traces.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};

use super::checker::Checker;
use super::files::read_roots;
use crate::config::file::MetricsTable;
use crate::config::problem::At;
use crate::host::bare;
use crate::limits::Limits;
use crate::telemetry::access::Sample;
use crate::telemetry::trace::{CollectorSettings, TraceRules, TrustedParents};

const EXAMPLE: &str = "otlp = \"http://127.0.0.1:4318\"";
const HEADERS: &str = "otlp_headers = { \"api-key\" = \"...\" }";
/// The most fields of a request that the configuration sets.
const FIELDS_MAX: usize = 32;
/// The fields of requests that pintle, or the connection, decides about.
const OWN_FIELDS: [HeaderName; 11] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];
/// The path of traces at a collector.
const PATH: &str = "v1/traces";
/// `true` if this program can send traces.
const IS_BUILT: bool = cfg!(feature = "otlp");

pub(super) fn traces(table: &MetricsTable, limits: &Limits, r: &mut Checker<'_>) -> Option<CollectorSettings> {
    let rules = rules(table, r);
    let Some(at) = &table.otlp else {
        let sample = table.otlp_sample.as_ref().map(|at| ("otlp_sample", &at.span));
        let parents = table.otlp_parents.as_ref().map(|at| ("otlp_parents", &at.span));
        let ca = table.otlp_ca.as_ref().map(|at| ("otlp_ca", &at.span));
        let headers = table.otlp_headers.first().map(|(name, _)| ("otlp_headers", &name.span));
        for (key, span) in [ca, headers, sample, parents].into_iter().flatten() {
            r.error_with_hint(span, format!("metrics.{key}: has no effect without metrics.otlp"), EXAMPLE);
        }
        return None;
    };
    let url = endpoint(&at.value);
    if url.is_none() {
        r.error_with_hint(&at.span, format!("metrics.otlp: invalid URL {:?}", at.value), EXAMPLE);
    }
    let roots =
        table.otlp_ca.as_ref().map(|at| read_roots("metrics.otlp_ca", at, "the roots of the collector's CA", r));
    let fields = fields(table, r);
    if !fields.is_empty() && url.as_deref().is_some_and(is_open) {
        let what = "metrics.otlp: everybody on the way can read the values of otlp_headers: the URL is http";
        r.warn(&at.span, what, "otlp = \"https://otel.example.com\"");
    }
    if !IS_BUILT {
        let hint = "leave the key out, or build pintle with the feature: cargo build --release --features otlp";
        r.error_with_hint(&at.span, "metrics.otlp: this pintle was built without the cargo feature otlp", hint);
        return None;
    }
    let roots = match roots {
        Some(None) => return None,
        roots => roots.flatten(),
    };
    let ca = table.otlp_ca.as_ref().map(|at| r.path(&at.value));
    Some(CollectorSettings { url: url?, roots, ca, fields, rules, queue: limits.otlp_queue })
}

/// `true` for an http URL of another host.
fn is_open(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    let host = bare(url.host().unwrap_or_default());
    let is_here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme_str() == Some("http") && !is_here
}

/// Returns the fields of each request. Messages name no value: it may be a key.
fn fields(table: &MetricsTable, r: &mut Checker<'_>) -> Vec<(HeaderName, HeaderValue)> {
    if let Some((beyond, _)) = table.otlp_headers.get(FIELDS_MAX) {
        r.error(&beyond.span, format!("metrics.otlp_headers: at most {FIELDS_MAX} fields"));
    }
    let mut fields = Vec::new();
    for (given, value) in table.otlp_headers.iter().take(FIELDS_MAX) {
        let Ok(name) = HeaderName::from_bytes(given.value.as_bytes()) else {
            let what = format!("metrics.otlp_headers: invalid name {:?}", given.value);
            r.error_with_hint(&given.span, what, HEADERS);
            continue;
        };
        if OWN_FIELDS.contains(&name) {
            let what = format!("metrics.otlp_headers: pintle sets {name} itself");
            r.error_with_hint(&given.span, what, "leave it out");
            continue;
        }
        let Ok(mut value) = HeaderValue::from_str(&value.value) else {
            let what = format!("metrics.otlp_headers: the value of {name} has characters that no field may have");
            r.error_with_hint(&given.span, what, HEADERS);
            continue;
        };
        value.set_sensitive(true);
        fields.push((name, value));
    }
    fields
}

fn rules(table: &MetricsTable, r: &mut Checker<'_>) -> TraceRules {
    let mut rules = TraceRules::default();
    if let Some(At { value, span }) = &table.otlp_sample {
        match *value {
            value @ 0.0..=1.0 => rules.sample = Sample(value),
            _ => r.error_with_hint(span, "metrics.otlp_sample: must be between 0 and 1", "otlp_sample = 0.1"),
        }
    }
    let parents = [("any", TrustedParents::Any), ("trusted", TrustedParents::Trusted), ("none", TrustedParents::None)];
    rules.parents = r.choice("metrics.otlp_parents", table.otlp_parents.as_ref(), &parents, TrustedParents::default());
    rules
}

/// Returns the URL for traces: below the collector's, unless that names the path already.
fn endpoint(text: &str) -> Option<String> {
    let url = text.parse::<http::Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")))?;
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    // The parser takes ports that do not exist.
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n > 0));
    if url.query().is_some() || text.contains('#') || bare(authority.host()).is_empty() || !is_port {
        return None;
    }
    let base = text.trim_end_matches('/');
    Some(if base.ends_with(&format!("/{PATH}")) { base.to_owned() } else { format!("{base}/{PATH}") })
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn endpoints() {
        let check = |text: &str, want: Option<&str>| assert_eq!(endpoint(text).as_deref(), want, "{text}");
        check("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces"));
        check("http://127.0.0.1:4318/", Some("http://127.0.0.1:4318/v1/traces"));
        check("https://otel.example.com/otlp", Some("https://otel.example.com/otlp/v1/traces"));
        check("https://otel.example.com/v1/traces", Some("https://otel.example.com/v1/traces"));
        check("http://[::1]:4318", Some("http://[::1]:4318/v1/traces"));
        for wrong in [
            "",
            "127.0.0.1:4318",
            "grpc://a:4317",
            "tcp://a:1",
            "http://",
            "http://:4318",
            "http://u:p@a:4318",
            "http://a:0",
            "http://a:70000",
            "http://a:x",
            "http://a?x=1",
            "http://a/#x",
            "http://a:",
        ] {
            check(wrong, None);
        }
    }
}
