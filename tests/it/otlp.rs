//! `metrics.otlp`: traces continue or begin, a collector gets their spans, and no request waits for it. The spans are read
//! with OpenTelemetry's own messages for Python.

#[cfg(feature = "otlp")]
mod built;

use crate::admin::Bed;
use crate::harness::{BLOG, Client, Pintle};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A request with these fields. Returns once it is answered.
fn ask(bed: &Bed, pintle: &Pintle, path: &str, fields: &str) {
    let mut connection = Client::new(&bed.authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
    assert_eq!(connection.response("GET").status, 200);
}

#[test]
fn without_a_collector_the_fields_pass_as_they_are() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let parent = format!("00-{TRACE}-{SPAN}-01");
    ask(&bed, &pintle, "/valid", &format!("traceparent: {parent}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"));
    let received = bed.origin.request("/valid");
    assert_eq!(received.fields("traceparent"), [parent.as_str()]);
    assert_eq!(received.fields("tracestate"), ["a=1", "b=2"]);
    ask(&bed, &pintle, "/invalid", "Traceparent: nonsense\r\n");
    assert_eq!(bed.origin.request("/invalid").fields("traceparent"), ["nonsense"]);
    ask(&bed, &pintle, "/none", "");
    assert_eq!(bed.origin.request("/none").field("traceparent"), None);
    assert!(pintle.access_line("/valid")["trace_id"].is_null());
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_without_the_feature_says_so() {
    let bed = Bed::new();
    let config = bed.authority.write("otlp.toml", bed.config("[metrics]\notlp = \"http://127.0.0.1:4318\"\n"));
    let (code, _, said) = crate::harness::outcome(crate::harness::pintle().args(["check", "-c"]).arg(&config));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("metrics.otlp: this pintle was built without the cargo feature otlp"), "{said}");
    assert!(said.contains("cargo build --release --features otlp"), "{said}");
}

#[test]
fn wrong_settings_are_refused_with_the_remedy() {
    let bed = Bed::new();
    for (keys, wanted) in [
        ("otlp = \"grpc://127.0.0.1:4317\"", "metrics.otlp: invalid URL \"grpc://127.0.0.1:4317\""),
        ("otlp = \"http://u:p@127.0.0.1:4318\"", "metrics.otlp: invalid URL"),
        ("otlp_sample = 0.5", "metrics.otlp_sample: has no effect without metrics.otlp"),
        ("otlp_parents = \"none\"", "metrics.otlp_parents: has no effect without metrics.otlp"),
        ("otlp_ca = \"ca.pem\"", "metrics.otlp_ca: has no effect without metrics.otlp"),
        ("otlp_headers = { a = \"b\" }", "metrics.otlp_headers: has no effect without metrics.otlp"),
        ("otlp = \"http://127.0.0.1:4318\"\notlp_ca = \"none.pem\"", "none.pem: no such file"),
        (
            "otlp = \"http://127.0.0.1:4318\"\notlp_headers = { \"a b\" = \"c\" }",
            "metrics.otlp_headers: invalid name \"a b\"",
        ),
        (
            "otlp = \"http://127.0.0.1:4318\"\notlp_headers = { Host = \"c\" }",
            "metrics.otlp_headers: pintle sets host itself",
        ),
        (
            "otlp = \"http://192.0.2.1:4318\"\notlp_headers = { a = \"c\", a-b = \"\\n\" }",
            "can read the values of otlp_headers",
        ),
        ("otlp = \"http://127.0.0.1:4318\"\notlp_sample = 1.5", "metrics.otlp_sample: must be between 0 and 1"),
        ("otlp = \"http://127.0.0.1:4318\"\notlp_parents = \"some\"", "any, trusted, none"),
    ] {
        let config = bed.authority.write("otlp.toml", bed.config(&format!("[metrics]\n{keys}\n")));
        let (code, _, said) = crate::harness::outcome(crate::harness::pintle().args(["check", "-c"]).arg(&config));
        assert!(code == 1 && said.contains(wanted), "{keys}: {said}");
    }
}
