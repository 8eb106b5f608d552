//! The access log: one line for each request, gathered by the worker and written by the log's own thread.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::writer::LogSink;

/// A batch is handed over when it is this long, and when the worker has nothing to do.
const BATCH: usize = 16 * 1024;

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

/// What is known about a request when it is over.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The client's address, as far as it is believed.
    pub client: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// `1.1`, `2`
    pub version: &'a str,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// The status code of the answer; 499 if the client went away before it.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// From the request's head to the answer's last byte.
    pub duration: Duration,
    /// From the request's head to the answer's head from the upstream.
    pub upstream: Option<Duration>,
    /// The field of that name.
    pub user_agent: &'a [u8],
    /// The field of that name.
    pub referer: &'a [u8],
    /// Why pintle answered in the upstream's stead, or broke off: for the operator's eyes.
    pub error: Option<&'a str>,
}

/// A worker's access log.
#[derive(Debug)]
pub struct AccessLog {
    sink: LogSink,
    format: AccessFormat,
}

thread_local! {
    static BATCHED: RefCell<(Vec<u8>, Option<LogSink>)> = const { RefCell::new((Vec::new(), None)) };
}

impl AccessLog {
    /// A log that hands its lines to `sink`.
    #[must_use]
    pub fn new(sink: LogSink, format: AccessFormat) -> Self {
        Self { sink, format }
    }

    /// Adds a line.
    pub fn record(&self, entry: &Entry<'_>) {
        BATCHED.with_borrow_mut(|(batch, sink)| {
            sink.get_or_insert_with(|| self.sink.clone());
            match self.format {
                AccessFormat::Json => write_json(entry, Timestamp::now(), batch),
                AccessFormat::Combined => write_combined(entry, Timestamp::now(), batch),
            }
            if batch.len() >= BATCH {
                self.sink.send(std::mem::take(batch));
            }
        });
    }

    /// Hands over what this thread has gathered; to be called when it has nothing else to do.
    pub fn flush_thread() {
        BATCHED.with_borrow_mut(|(batch, sink)| {
            if let (false, Some(sink)) = (batch.is_empty(), sink) {
                sink.send(std::mem::take(batch));
            }
        });
    }
}

fn write_json(entry: &Entry<'_>, now: Timestamp, out: &mut Vec<u8>) {
    let mut line = String::with_capacity(320);
    let _ = write!(line, "{{\"time\":\"{now:.3}\"");
    let mut text = |name: &str, value: &[u8]| {
        let _ = write!(line, ",\"{name}\":");
        push_json_string(&mut line, value);
    };
    text("client", entry.client.as_bytes());
    text("host", entry.host.as_bytes());
    text("method", entry.method.as_bytes());
    text("target", entry.target.as_bytes());
    text("version", entry.version.as_bytes());
    text("scheme", entry.scheme.as_bytes());
    let _ = write!(line, ",\"status\":{},\"bytes\":{}", entry.status, entry.bytes);
    let _ = write!(line, ",\"duration_ms\":{:.3}", entry.duration.as_secs_f64() * 1e3);
    if let Some(upstream) = entry.upstream {
        let _ = write!(line, ",\"upstream_ms\":{:.3}", upstream.as_secs_f64() * 1e3);
    }
    for (name, value) in [("user_agent", entry.user_agent), ("referer", entry.referer)] {
        if !value.is_empty() {
            let _ = write!(line, ",\"{name}\":");
            push_json_string(&mut line, value);
        }
    }
    if let Some(error) = entry.error {
        line.push_str(",\"error\":");
        push_json_string(&mut line, error.as_bytes());
    }
    line.push_str("}\n");
    out.extend_from_slice(line.as_bytes());
}

/// Escapes what JSON wants escaped (RFC 8259 section 7), and all that is not ASCII text: a client must not be able to
/// forge a line, or to send the reader's terminal commands.
fn push_json_string(line: &mut String, value: &[u8]) {
    line.push('"');
    for c in String::from_utf8_lossy(value).chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            ' '..='~' => line.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    line.push('"');
}

fn write_combined(entry: &Entry<'_>, now: Timestamp, out: &mut Vec<u8>) {
    let time = now.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S %z");
    let mut line = String::with_capacity(256);
    let _ = write!(line, "{} - - [{time}] \"", entry.client);
    push_quoted(&mut line, entry.method.as_bytes());
    line.push(' ');
    push_quoted(&mut line, entry.target.as_bytes());
    let _ = write!(line, " HTTP/{}\" {} {} \"", entry.version, entry.status, entry.bytes);
    push_quoted(&mut line, if entry.referer.is_empty() { b"-" } else { entry.referer });
    line.push_str("\" \"");
    push_quoted(&mut line, if entry.user_agent.is_empty() { b"-" } else { entry.user_agent });
    line.push_str("\"\n");
    out.extend_from_slice(line.as_bytes());
}

/// As nginx does: everything but plain text in hexadecimal.
fn push_quoted(line: &mut String, value: &[u8]) {
    for b in value {
        match b {
            b'"' | b'\\' => {
                let _ = write!(line, "\\x{b:02X}");
            }
            b' '..=b'~' => line.push(*b as char),
            _ => {
                let _ = write!(line, "\\x{b:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(user_agent: &[u8]) -> Entry<'_> {
        Entry {
            client: "192.0.2.1",
            host: "a.example",
            method: "GET",
            target: "/x?y=\"z\"",
            version: "1.1",
            scheme: "https",
            status: 502,
            bytes: 7,
            duration: Duration::from_micros(1500),
            upstream: None,
            user_agent,
            referer: b"",
            error: Some("connection refused: 127.0.0.1:1"),
        }
    }

    #[test]
    fn forms() {
        let now = Timestamp::from_second(784_111_777).unwrap();
        let mut out = Vec::new();
        write_json(&entry(b"curl/8 \xff\n"), now, &mut out);
        let want = r#"{"time":"1994-11-06T08:49:37.000Z","client":"192.0.2.1","host":"a.example","method":"GET","target":"/x?y=\"z\"","version":"1.1","scheme":"https","status":502,"bytes":7,"duration_ms":1.500,"user_agent":"curl/8 \ufffd\u000a","error":"connection refused: 127.0.0.1:1"}"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
        let mut out = Vec::new();
        write_combined(&entry(b"evil\"\n"), now, &mut out);
        let want =
            r#"192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] "GET /x?y=\x22z\x22 HTTP/1.1" 502 7 "-" "evil\x22\x0A""#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
    }

    proptest! {
        #[test]
        fn no_client_forges_a_line(agent in prop::collection::vec(any::<u8>(), 0..60)) {
            for write in [write_json, write_combined] {
                let mut out = Vec::new();
                write(&entry(&agent), Timestamp::UNIX_EPOCH, &mut out);
                prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
                prop_assert!(out.iter().all(|b| *b == b'\n' || (b' '..=b'~').contains(b)));
            }
        }
    }
}
