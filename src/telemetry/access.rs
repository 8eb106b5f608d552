//! The access log: one line per request, collected by the worker and written by the log's thread.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::writer::LogSink;

/// A batch is sent to the log's thread at this size, in bytes, or when the worker is idle.
const BATCH: usize = 16 * 1024;

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The combined format of Apache and nginx.
    Combined,
    /// A short line for people, as on a terminal.
    Short,
}

/// A finished request.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The client's address, from a trusted source.
    pub client: &'a str,
    /// The requested host.
    pub host: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// `1.1`, `2`
    pub version: &'a str,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// The status code of the response; 499 if the client left before it.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// From the request's head to the last byte of the response.
    pub duration: Duration,
    /// From the request's head to the upstream's response head.
    pub upstream: Option<Duration>,
    /// The User-Agent field.
    pub user_agent: &'a [u8],
    /// The Referer field.
    pub referer: &'a [u8],
    /// The reason why pintle answered instead of the upstream, or broke off; for the operator.
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
    /// Creates a log that sends its lines to `sink`.
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
                AccessFormat::Short => write_short(entry, Timestamp::now(), batch),
            }
            if batch.len() >= BATCH {
                self.sink.send(std::mem::take(batch));
            }
        });
    }

    /// Sends the collected lines. Call it when the thread is idle.
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

/// Escapes as JSON requires (RFC 8259 section 7), and everything that is not ASCII text: a client
/// must not be able to forge a line, or to control the reader's terminal.
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

fn write_short(entry: &Entry<'_>, now: Timestamp, out: &mut Vec<u8>) {
    let time = now.to_zoned(TimeZone::UTC).strftime("%H:%M:%S");
    let mut line = String::with_capacity(160);
    let _ = write!(line, "{time} {} ", entry.status);
    push_quoted(&mut line, entry.method.as_bytes());
    let _ = write!(line, " {}://", entry.scheme);
    push_quoted(&mut line, entry.host.as_bytes());
    push_quoted(&mut line, entry.target.as_bytes());
    let _ = write!(line, " {} bytes {:.1} ms", entry.bytes, entry.duration.as_secs_f64() * 1e3);
    if let Some(error) = entry.error {
        line.push_str(" (");
        push_quoted(&mut line, error.as_bytes());
        line.push(')');
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

/// As in nginx: hexadecimal for everything except plain text.
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
        let mut out = Vec::new();
        write_short(&entry(b"curl/8"), now, &mut out);
        let want =
            r#"08:49:37 502 GET https://a.example/x?y=\x22z\x22 7 bytes 1.5 ms (connection refused: 127.0.0.1:1)"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{want}\n"));
    }

    proptest! {
        #[test]
        fn no_client_forges_a_line(agent in prop::collection::vec(any::<u8>(), 0..60)) {
            for write in [write_json, write_combined, write_short] {
                let mut out = Vec::new();
                write(&entry(&agent), Timestamp::UNIX_EPOCH, &mut out);
                prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
                prop_assert!(out.iter().all(|b| *b == b'\n' || (b' '..=b'~').contains(b)));
            }
        }
    }
}
