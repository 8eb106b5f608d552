//! journald's own protocol: an event is a datagram of typed fields, so that `journalctl` can search them.
//!
//! pintle uses it if standard error leads to the journal (`JOURNAL_STREAM`), as with systemd services. It never waits for
//! journald: an event that the socket does not take is lost and counted.

use std::fmt::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::harmless::harmless;
use super::trace::hex;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Names another socket, for tests.
const SOCKET_VARIABLE: &str = "PINTLE_JOURNAL_SOCKET";
/// The most bytes of one field, and of all fields. A larger datagram would need a file (memfd), which the sandbox forbids.
const FIELD_MAX: usize = 16 * 1024;
const EVENT_MAX: usize = 64 * 1024;
/// The longest name of a field.
const NAME_MAX: usize = 64;

/// The socket of journald.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Returns the journal, if standard error leads there and the socket exists.
    pub(super) fn of_stderr() -> Option<Self> {
        if !is_stderr() {
            return None;
        }
        let path = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        path.exists().then_some(Self { socket, path })
    }

    /// Sends an event. The address is resolved each time, since journald may have been restarted.
    pub(super) fn send(&self, event: &[u8]) -> std::io::Result<()> {
        self.socket.send_to(event, &self.path).map(drop)
    }

    pub(super) fn name(&self) -> String {
        format!("journal ({})", self.path.display())
    }
}

/// Returns `true` if standard error leads to the journal.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    // A program in between may have sent standard error elsewhere.
    rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Turns events into datagrams, and passes them on.
pub(super) struct ToJournal<F>(pub(super) F);

impl<S: Subscriber, F: Fn(Vec<u8>) + 'static> Layer<S> for ToJournal<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        (self.0)(datagram(event));
    }
}

/// Turns events into lines that begin with their severity, and passes them on.
pub(super) struct ToSyslog<F>(pub(super) F);

impl<S: Subscriber, F: Fn(Vec<u8>) + 'static> Layer<S> for ToSyslog<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let mut line = severity(event).as_bytes().to_vec();
        let text = format!("{}{}", fields.message, fields.words);
        let end = text.floor_char_boundary(FIELD_MAX);
        line.extend_from_slice(&harmless(text[..end].replace('\n', " ").into_bytes(), false));
        line.push(b'\n');
        (self.0)(line);
    }
}

/// The severity as syslog and the journal have it.
fn severity(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

fn datagram(event: &Event<'_>) -> Vec<u8> {
    let mut fields = EventFields::default();
    event.record(&mut fields);
    let mut out = Vec::with_capacity(512);
    let shown = harmless(format!("{}{}", fields.message, fields.words).into_bytes(), false);
    push("MESSAGE", &String::from_utf8_lossy(&shown), &mut out);
    push("PRIORITY", severity(event), &mut out);
    push("SYSLOG_IDENTIFIER", "pintle", &mut out);
    push("MESSAGE_ID", &message_id(&fields.message), &mut out);
    for (name, value) in &fields.values {
        push(&field_name(name), value, &mut out);
    }
    out
}

/// The id of a kind of events. Their messages are constant, and the values are in fields.
fn message_id(message: &str) -> String {
    hex(&Sha256::digest(format!("pintle: {message}").as_bytes())[..16])
}

/// `PINTLE_SITE`
fn field_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    "PINTLE_".chars().chain(name.chars().map(plain)).take(NAME_MAX).collect()
}

/// Adds a field: `NAME=value`, or with the value's length if it has several lines.
fn push(name: &str, value: &str, out: &mut Vec<u8>) {
    let end = value.floor_char_boundary(FIELD_MAX);
    let value = &value[..end];
    if out.len() + name.len() + value.len() + 10 > EVENT_MAX {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The message and the fields of an event.
#[derive(Default)]
struct EventFields {
    message: String,
    /// The fields as words behind the message: ` site=a.example`.
    words: String,
    values: Vec<(&'static str, String)>,
}

impl EventFields {
    fn add(&mut self, field: &Field, value: String) {
        let _ = write!(self.words, " {}={value}", field.name());
        self.values.push((field.name(), value));
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" { self.message = value } else { self.add(field, value) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { value.clone_into(&mut self.message) } else { self.add(field, value.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let mut out = Vec::new();
        push("A", "b", &mut out);
        push("C", "d\ne", &mut out);
        assert_eq!(out, b"A=b\nC\n\x03\0\0\0\0\0\0\0d\ne\n");
        assert_eq!(field_name("site"), "PINTLE_SITE");
        assert_eq!(field_name("error.cause é"), "PINTLE_ERROR_CAUSE__");
        assert_eq!(field_name(&"x".repeat(99)).len(), NAME_MAX);
        assert_eq!(message_id("serving"), message_id("serving"));
        assert_ne!(message_id("serving"), message_id("listening"));
        let mut out = Vec::new();
        (0..10).for_each(|_| push("A", &"\u{e9}".repeat(20_000), &mut out));
        assert!(out.len() <= EVENT_MAX && std::str::from_utf8(&out).is_ok());
    }
}
