//! The self-probe: asks an address for a challenge that pintle has just published, as a CA would.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::address::{ProbeAnswer, cdn_by};
use super::caa::printable;
use crate::host::bracketed;
use crate::keys::pin::Pin;
use crate::tls::certificate::name_of;
use crate::tls::{KeyTypes, Possession};

/// The time for one probe, redirects included.
const PROBE: Duration = Duration::from_secs(10);
/// The time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The most bytes of an answer that are read.
const ANSWER_MAX: usize = 16 * 1024;
/// The most redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// The most fields of an answer.
const FIELDS_MAX: usize = 100;
/// The ALPN name of tls-alpn-01 (RFC 8737 section 6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";
/// The extension with the digest of the key authorization (RFC 8737 section 3).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// The CA's question, and the right answer. pintle must publish it on all workers first, as
/// it does for a challenge: `content` as http-01, and its SHA-256 as tls-alpn-01 of each name.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The last segment of the path.
    pub token: String,
    /// The body.
    pub content: String,
}

/// Ports at which a CA validates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// http-01.
    pub http: u16,
    /// tls-alpn-01.
    pub tls: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: 80, tls: 443 }
    }
}

/// Returns the local address from which packets go to an address. Sends nothing.
pub(super) fn source(address: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((address, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Asks by http-01.
pub(super) async fn by_http(name: &str, address: IpAddr, ports: Ports, probe: &Probe) -> ProbeAnswer {
    let asked = timeout(PROBE, follow(name, address, ports, probe)).await;
    asked.unwrap_or_else(|_| ProbeAnswer::Nothing("timeout".into()))
}

async fn follow(name: &str, address: IpAddr, ports: Ports, probe: &Probe) -> ProbeAnswer {
    let mut at = ProbeTarget { tls: false, path: format!("/.well-known/acme-challenge/{}", probe.token) };
    for _ in 0..=REDIRECTS_MAX {
        let response = match ask(name, address, ports, &at).await {
            Ok(response) => response,
            Err(error) => return ProbeAnswer::Nothing(words(&error)),
        };
        // A CA ignores white space at the end.
        if response.status == 200 && response.body.trim_ascii_end() == probe.content.as_bytes() {
            return ProbeAnswer::Ours { cdn: response.cdn };
        }
        let next = response.location.as_deref().and_then(|location| at.redirected(name, location));
        match next {
            Some(next) => at = next,
            None => return ProbeAnswer::Other { cdn: response.cdn, what: response.words() },
        }
    }
    ProbeAnswer::Other { cdn: None, what: "too many redirects".into() }
}

/// A URL of the name.
#[derive(Debug, PartialEq, Eq)]
struct ProbeTarget {
    tls: bool,
    path: String,
}

impl ProbeTarget {
    /// Follows a redirect to the same name, at the standard ports, as a CA does.
    fn redirected(&self, name: &str, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Self { tls: self.tls, path: location.to_owned() });
        }
        let (scheme, rest) = location.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let port = if tls { ":443" } else { ":80" };
        let host = authority.strip_suffix(port).unwrap_or(authority);
        host.eq_ignore_ascii_case(name).then(|| Self { tls, path: path.to_owned() })
    }
}

/// A response, as far as it matters.
struct ProbeResponse {
    status: u16,
    server: Option<String>,
    location: Option<String>,
    cdn: Option<&'static str>,
    body: Vec<u8>,
}

impl ProbeResponse {
    fn words(&self) -> String {
        let server = self.server.as_ref().map(|name| format!(", server: {name}")).unwrap_or_default();
        let location = self.location.as_ref().map(|to| format!(", location: {to}")).unwrap_or_default();
        format!("status {}{server}{location}", self.status)
    }
}

async fn ask(name: &str, address: IpAddr, ports: Ports, at: &ProbeTarget) -> io::Result<ProbeResponse> {
    let ProbeTarget { tls, path } = at;
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(io::Error::other("invalid redirect"));
    }
    let host = bracketed(name);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pintle/{} (preflight)\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    if *tls {
        let (stream, _) = handshake(name, address, ports.tls, b"http/1.1").await?;
        exchange(stream, &request).await
    } else {
        exchange(connect(address, ports.http).await?, &request).await
    }
}

async fn connect(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    match timeout(CONNECT, TcpStream::connect((address, port))).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<ProbeResponse> {
    stream.write_all(request.as_bytes()).await?;
    let mut received = Vec::new();
    loop {
        if let Some(response) = parse(&received, false) {
            return response;
        }
        let before = received.len();
        let mut piece = [0; 4096];
        // A server may end TLS without a closing alert.
        let read = stream.read(&mut piece).await;
        let read = read.or_else(|e| if received.is_empty() { Err(e) } else { Ok(0) })?;
        received.extend(piece.iter().take(read));
        if read == 0 || received.len() > ANSWER_MAX {
            return parse(&received, true).unwrap_or_else(|| {
                let what = if before == 0 { "the connection was closed" } else { "no HTTP response" };
                Err(io::Error::other(what))
            });
        }
    }
}

/// Reads a response; `None` while more is to come.
fn parse(received: &[u8], is_all: bool) -> Option<io::Result<ProbeResponse>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let at = match head.parse(received) {
        Ok(httparse::Status::Complete(at)) => at,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some(Err(io::Error::other("no HTTP response"))),
    };
    let text = |name: &str| {
        let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| printable(&String::from_utf8_lossy(field.value)))
    };
    let rest = received.get(at..).unwrap_or_default();
    let is_chunked = text("transfer-encoding").is_some();
    let length = text("content-length").and_then(|length| length.parse::<usize>().ok());
    let body = match length.filter(|_| !is_chunked) {
        Some(length) => match rest.get(..length) {
            Some(body) => body.to_vec(),
            None if is_all => rest.to_vec(),
            None => return None,
        },
        None if !is_all => return None,
        None if is_chunked => unchunk(rest),
        None => rest.to_vec(),
    };
    let cdn = cdn_by(head.headers.iter().map(|field| (field.name, field.value)));
    let (server, location) = (text("server"), text("location"));
    let status = head.code.unwrap_or_default();
    let location = location.filter(|_| (300..400).contains(&status));
    Some(Ok(ProbeResponse { status, server, location, cdn, body }))
}

/// Joins the chunks of a body, as far as they are there.
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(rest) {
        let data = rest.get(at..).unwrap_or_default();
        let Some(chunk) = usize::try_from(size).ok().filter(|size| *size > 0).and_then(|size| data.get(..size)) else {
            break;
        };
        body.extend_from_slice(chunk);
        rest = data.get(chunk.len() + 2..).unwrap_or_default();
    }
    body
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

async fn handshake(name: &str, address: IpAddr, port: u16, protocol: &[u8]) -> io::Result<(Tls, Vec<u8>)> {
    let mut config: ClientConfig = Possession::of_any(KeyTypes::Any).client().map_err(io::Error::other)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    let server = ServerName::try_from(sni(name)).map_err(io::Error::other)?;
    let socket = connect(address, port).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, socket).await?;
    let leaf = leaf(stream.get_ref().1).ok_or_else(|| io::Error::other("no certificate"))?;
    Ok((stream, leaf))
}

fn leaf(session: &ClientConnection) -> Option<Vec<u8>> {
    session.peer_certificates()?.first().map(|leaf: &CertificateDer<'_>| leaf.to_vec())
}

/// Returns the SNI of a name. That of an address is its name for reverse lookups (RFC 8738 section
/// 6).
fn sni(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(v6)) => {
            let nibbles = v6.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            let text: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            text.into_iter().rev().collect::<Vec<_>>().join(".") + ".ip6.arpa"
        }
        Err(_) => name.to_owned(),
    }
}

/// Asks by tls-alpn-01.
pub(super) async fn by_tls(name: &str, address: IpAddr, ports: Ports, probe: &Probe) -> ProbeAnswer {
    let asked = timeout(PROBE, handshake(name, address, ports.tls, ACME_TLS)).await;
    match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((stream, leaf)) => {
            let agreed = stream.get_ref().1.alpn_protocol() == Some(ACME_TLS);
            match digest(&leaf).filter(|_| agreed) {
                Some(found) if found == Sha256::digest(&probe.content).as_slice() => ProbeAnswer::Ours { cdn: None },
                Some(_) => ProbeAnswer::Other { what: "the challenge of another ACME client".into(), cdn: None },
                None => ProbeAnswer::Other { what: describe(&leaf), cdn: None },
            }
        }
        // An alert is an answer of a server that does not know the challenge.
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            ProbeAnswer::Other { what: "TLS without acme-tls/1".into(), cdn: None }
        }
        Err(error) => ProbeAnswer::Nothing(words(&error)),
    }
}

/// Returns the digest in a certificate for tls-alpn-01.
fn digest(leaf: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let extension = certificate.extensions().iter().find(|e| e.oid.to_id_string() == ACME_IDENTIFIER)?;
    // An OCTET STRING of 32 bytes.
    extension.value.strip_prefix(&[4, 32]).map(<[u8]>::to_vec)
}

/// Returns a description of the certificate that visitors get at an address, if it is not one of
/// these. A refused handshake shows no certificate.
pub(super) async fn foreign(name: &str, address: IpAddr, ports: Ports, own: &[Pin]) -> Option<String> {
    let shown = timeout(PROBE, handshake(name, address, ports.tls, b"http/1.1")).await.ok()?;
    let (_, leaf) = shown.ok()?;
    let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
    let pin = Pin::of_spki(certificate.tbs_certificate.subject_pki.raw);
    (!own.contains(&pin)).then(|| describe(&leaf))
}

fn describe(leaf: &[u8]) -> String {
    match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => {
            let (subject, issuer) = (name_of(certificate.subject()), name_of(certificate.issuer()));
            printable(&format!("certificate of {subject}, issued by {issuer}"))
        }
        Err(_) => "an unreadable certificate".to_owned(),
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "timeout".to_owned(),
        io::ErrorKind::NetworkUnreachable => "this host has no route to it".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        kind => error.get_ref().map_or_else(|| kind.to_string(), ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let at = ProbeTarget { tls: false, path: "/x".into() };
        let check = |location: &str, want: Option<(bool, &str)>| {
            let want = want.map(|(tls, path)| ProbeTarget { tls, path: path.to_owned() });
            assert_eq!(at.redirected("a.example", location), want, "{location}");
        };
        check("/y", Some((false, "/y")));
        check("https://a.example/y", Some((true, "/y")));
        check("HTTPS://A.example:443", Some((true, "/")));
        check("http://a.example:80/y", Some((false, "/y")));
        check("https://a.example:8443/y", None);
        check("https://b.example/y", None);
        check("//a.example/y", None);
        check("ftp://a.example/y", None);
    }

    #[test]
    fn responses() {
        let read = |text: &str, is_all| parse(text.as_bytes(), is_all).map(|r| r.map(|r| (r.status, r.body)).ok());
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(read(sized, false), None);
        assert_eq!(read(&format!("{sized}abc"), false), Some(Some((200, b"abc".to_vec()))));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(read(chunked, false), None);
        assert_eq!(read(chunked, true), Some(Some((200, b"abc".to_vec()))));
        let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab";
        assert_eq!(read(cut, true), Some(Some((200, Vec::new()))));
        assert_eq!(read("SSH-2.0-x\r\n", false), Some(None));
    }

    #[test]
    fn names_of_addresses() {
        assert_eq!(sni("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        assert!(sni("2001:db8::1").starts_with("1.0.0.0.") && sni("2001:db8::1").ends_with("8.b.d.0.1.0.0.2.ip6.arpa"));
        assert_eq!(sni("a.example"), "a.example");
    }
}
