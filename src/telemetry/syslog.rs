//! The syslog protocol: a message for each line, to the daemon of this host, or over UDP (RFC 5424, RFC 5426).
//!
//! Daemons of the host take the older form, with a tag and no time: they note the time themselves, in the host's zone.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::log_file::wait;
use crate::os::usage::host_name;
use crate::os::words::words;

/// The socket of the host's daemon.
const LOCAL: &str = "/dev/log";
/// Names another socket for the operator's log, for tests.
const SOCKET_VARIABLE: &str = "PINTLE_SYSLOG_SOCKET";
/// The port of syslog over UDP.
const PORT: u16 = 514;
/// The facility `daemon`, and the severity `informational`.
const FACILITY: u8 = 3 << 3;
const INFORMATIONAL: u8 = 6;

/// A receiver of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogPlace {
    /// A socket of this host.
    Socket(PathBuf),
    /// A receiver on the network.
    Udp(SocketAddr),
}

impl SyslogPlace {
    /// Reads `syslog:`, `syslog:/SOCKET` or `syslog:udp://ADDRESS:PORT`. Returns `None` for any other text.
    ///
    /// # Errors
    ///
    /// The reason, if the place behind `syslog:` is invalid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let place = text.strip_prefix("syslog:")?;
        Some(match place.strip_prefix("udp://") {
            Some(address) => address
                .parse()
                .or_else(|_| address.trim_matches(['[', ']']).parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT)))
                .ok()
                .filter(|address| address.port() > 0)
                .map(Self::Udp)
                .ok_or("not an IP address with a port"),
            None if place.is_empty() => Ok(Self::Socket(LOCAL.into())),
            None if place.starts_with('/') => Ok(Self::Socket(place.into())),
            None => Err("not a place of syslog"),
        })
    }
}

impl fmt::Display for SyslogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "syslog:{}", path.display()),
            Self::Udp(address) => write!(f, "syslog:udp://{address}"),
        }
    }
}

/// A connection to a receiver.
#[derive(Debug)]
pub struct Syslog {
    place: SyslogPlace,
    socket: Option<OwnedFd>,
    /// The receiver has let a wait pass. Until it reads again, pintle waits no longer.
    is_stuck: bool,
    /// Each line begins with the digit of its severity. Otherwise all have the same.
    has_severity: bool,
    buffer: Vec<u8>,
}

impl Syslog {
    /// Makes the connection with the first message.
    #[must_use]
    pub fn new(place: SyslogPlace) -> Self {
        Self { place, socket: None, is_stuck: false, has_severity: false, buffer: Vec::new() }
    }

    /// Connects with the host's daemon, for the operator's log.
    ///
    /// # Errors
    ///
    /// If there is no daemon.
    pub(super) fn of_operator() -> io::Result<Self> {
        let path = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(LOCAL), PathBuf::from);
        let place = SyslogPlace::Socket(path);
        let socket =
            connect(&place).map_err(|error| io::Error::new(error.kind(), format!("{place}: {}", words(&error))))?;
        Ok(Self { socket: Some(socket), has_severity: true, ..Self::new(place) })
    }

    /// `true` for the operator's log.
    pub(super) fn is_operators(&self) -> bool {
        self.has_severity
    }

    pub(super) fn name(&self) -> String {
        self.place.to_string()
    }

    /// Connects again with the next message.
    pub(super) fn reopen(&mut self) {
        self.socket = None;
    }

    /// Sends each line as a message. Returns the number of lost ones, and the last error.
    pub(super) fn send_lines(&mut self, lines: &[u8]) -> (u64, io::Result<()>) {
        let (mut lost, mut result) = (0, Ok(()));
        let is_line = |line: &&[u8]| !line.is_empty();
        for line in lines.split(|b| *b == b'\n').filter(is_line) {
            if let Err(error) = self.send(line) {
                lost += 1;
                result = Err(error);
            }
        }
        (lost, result)
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        let (severity, line) = match line.split_first() {
            Some((digit @ b'0'..=b'7', rest)) if self.has_severity => (digit - b'0', rest),
            _ => (INFORMATIONAL, line),
        };
        push_message(&self.place, severity, line, Timestamp::now(), &mut self.buffer);
        let sent = self.try_send();
        if sent.is_ok() || !self.reconnects(&sent) {
            return sent;
        }
        self.socket = None;
        let again = self.try_send();
        match self.place {
            // The error is that of an earlier message, which did not arrive.
            SyslogPlace::Udp(_) => sent,
            SyslogPlace::Socket(_) => again,
        }
    }

    /// Returns `true` if another connection may do better, since the daemon has ended or was started again.
    fn reconnects(&self, sent: &io::Result<()>) -> bool {
        let number = sent.as_ref().err().and_then(io::Error::raw_os_error);
        let gone = [Errno::CONNREFUSED, Errno::CONNRESET, Errno::NOTCONN, Errno::PIPE, Errno::DESTADDRREQ];
        self.socket.is_some() && gone.iter().any(|errno| number == Some(errno.raw_os_error()))
    }

    fn try_send(&mut self) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.place)?,
        };
        let socket = &*self.socket.insert(socket);
        loop {
            match send(socket, &self.buffer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => {
                    self.is_stuck = false;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) if !self.is_stuck => self.is_stuck = wait(socket.as_fd()).is_err(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn connect(place: &SyslogPlace) -> io::Result<OwnedFd> {
    Ok(match place {
        SyslogPlace::Socket(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.into()
        }
        SyslogPlace::Udp(address) => {
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(address)?;
            socket.into()
        }
    })
}

fn push_message(place: &SyslogPlace, severity: u8, line: &[u8], now: Timestamp, out: &mut Vec<u8>) {
    let (priority, process) = (FACILITY | severity, std::process::id());
    let _ = match place {
        SyslogPlace::Socket(_) => write!(out, "<{priority}>pintle[{process}]: "),
        SyslogPlace::Udp(_) => {
            let time = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
            // Version, time, host, program, process, kind of message, no structured data.
            write!(out, "<{priority}>1 {time} {} pintle {process} access - ", host_name())
        }
    };
    out.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, want: Option<Result<&str, ()>>| {
            let found = SyslogPlace::parse(text).map(|place| place.map(|place| place.to_string()).map_err(drop));
            assert_eq!(found, want.map(|want| want.map(str::to_owned)), "{text}");
        };
        check("stdout", None);
        check("/var/log/syslog:", None);
        check("syslog:", Some(Ok("syslog:/dev/log")));
        check("syslog:/run/log", Some(Ok("syslog:/run/log")));
        check("syslog:udp://192.0.2.1", Some(Ok("syslog:udp://192.0.2.1:514")));
        check("syslog:udp://192.0.2.1:1514", Some(Ok("syslog:udp://192.0.2.1:1514")));
        check("syslog:udp://[2001:db8::1]:514", Some(Ok("syslog:udp://[2001:db8::1]:514")));
        check("syslog:udp://[2001:db8::1]", Some(Ok("syslog:udp://[2001:db8::1]:514")));
        for wrong in ["x", "udp://", "udp://a.example:514", "udp://192.0.2.1:0", "udp://192.0.2.1:x", "tcp://192.0.2.1"]
        {
            check(&format!("syslog:{wrong}"), Some(Err(())));
        }
    }

    #[test]
    fn messages() {
        let written = |place: &str| {
            let (mut out, now) = (Vec::new(), Timestamp::new(784_111_777, 7_000_000).unwrap());
            push_message(&SyslogPlace::parse(place).unwrap().unwrap(), INFORMATIONAL, b"{}", now, &mut out);
            String::from_utf8(out).unwrap()
        };
        let id = std::process::id();
        assert_eq!(written("syslog:"), format!("<30>pintle[{id}]: {{}}"));
        let host = host_name();
        let want = format!("<30>1 1994-11-06T08:49:37.007000Z {host} pintle {id} access - {{}}");
        assert_eq!(written("syslog:udp://192.0.2.1"), want);
    }

    #[test]
    fn a_daemon_that_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut syslog = Syslog::new(SyslogPlace::Socket(path.clone()));
        let (lost, result) = syslog.send_lines(b"one\ntwo\n");
        assert_eq!((lost, result.unwrap_err().kind()), (2, io::ErrorKind::NotFound), "no daemon yet");
        let mut buffer = [0; 100];
        for _ in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            assert_eq!(syslog.send_lines(b"three\n").0, 0);
            let length = daemon.recv(&mut buffer).unwrap();
            assert!(buffer[..length].ends_with(b": three"));
            drop(daemon);
            std::fs::remove_file(&path).unwrap();
        }
        // One that does not read costs one wait, not one for each line.
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let begin = tokio::time::Instant::now();
        let (lost, result) = syslog.send_lines("x\n".repeat(3000).as_bytes());
        assert!(lost > 0 && result.is_err() && begin.elapsed().as_secs() < 10, "{lost} {:?}", begin.elapsed());
    }
}
