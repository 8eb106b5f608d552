//! The proof that a server works, before clients depend on it. For each site: a handshake with its
//! certificate, and a request over HTTP/1.1 and over HTTP/2 that pintle answers itself; if
//! configured, one that the upstream answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Config;
use crate::reason::{Problem, Reason};
use crate::tls::{CertificateSet, Possession};
use crate::upstream::PSEUDONYM;

/// The number of sites proven; of ten thousand, the first of them.
const SITES_MAX: usize = 1000;
/// Sites proven at the same time.
const AT_ONCE: usize = 8;
/// Time limit for one site.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts per site: a connection limit may interfere for a moment.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// The longest head of a response, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// The User-Agent of the requests, which the access log shows.
const AGENT: &str = "pintle-upgrade";

/// Proves every site that has a certificate. Returns their number.
///
/// # Errors
///
/// Each site that does not work, and the reason.
pub(super) async fn all(config: &Config, address: SocketAddr) -> Result<usize, Vec<Problem>> {
    let snapshot = &config.snapshot;
    let greeting = snapshot.proxy_protocol && snapshot.trust.contains(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let asks_upstream = config.process.prove_upstream;
    let sites: Vec<(String, CertificateSet, bool)> = config
        .sites()
        .zip(&snapshot.sets)
        .filter_map(|(site, set)| {
            // Names without a certificate, or with an earlier one, prove nothing.
            let is_own = |host: &&String| !site.refused_names.contains(host) && !site.names_apart.contains(host);
            let host = site.hosts.iter().find(is_own)?.replacen("*.", "upgrade.", 1);
            Some((host, set.clone()?, asks_upstream && site.upstream.is_some()))
        })
        .take(SITES_MAX)
        .collect();
    let proving = sites.iter().map(|(host, set, asks_upstream)| async move {
        if let Err(error) = patiently(async || site(address, host, set, greeting).await).await {
            return Some(Problem::from(format!("site {host}: not served correctly: {error}")));
        }
        if !asks_upstream {
            return None;
        }
        let answered = patiently(async || upstream(address, host, set, greeting).await).await;
        answered.err().map(|error| {
            Reason::new(format!("site {host}: the new process gets no answer from its upstream: {error}"))
                .hint("repair the upstream")
                .hint("remove process.prove_upstream, and upgrade without asking the upstream")
                .into()
        })
    });
    let failed: Vec<Option<Problem>> = stream::iter(proving).buffered(AT_ONCE).collect().await;
    let failed: Vec<Problem> = failed.into_iter().flatten().collect();
    if failed.is_empty() { Ok(sites.len()) } else { Err(failed) }
}

/// Tries a site several times.
async fn patiently(attempt: impl AsyncFn() -> io::Result<()>) -> io::Result<()> {
    let mut proven = Ok(());
    for _ in 0..TRIES {
        proven = tokio::time::timeout(PATIENCE, attempt())
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {PATIENCE:?}"))));
        if proven.is_ok() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    proven
}

async fn site(address: SocketAddr, host: &str, set: &CertificateSet, greeting: bool) -> io::Result<()> {
    let stream = connect(address, host, set, greeting, b"http/1.1").await?;
    http1(stream, host).await.map_err(|error| io::Error::other(format!("HTTP/1.1: {error}")))?;
    let stream = connect(address, host, set, greeting, b"h2").await?;
    http2(stream, host).await.map_err(|error| io::Error::other(format!("HTTP/2: {error}")))
}

async fn connect(
    address: SocketAddr,
    host: &str,
    set: &CertificateSet,
    greeting: bool,
    protocol: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let pins = set.iter().map(|certificate| certificate.chain.pin()).collect();
    let mut config = Possession::of(pins).client().map_err(io::Error::other)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut socket = TcpStream::connect(address).await?;
    if greeting {
        socket.write_all(b"PROXY UNKNOWN\r\n").await?;
    }
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    match stream.get_ref().1.alpn_protocol() {
        Some(agreed) if agreed == protocol => Ok(stream),
        _ => Err(io::Error::other("the server chose another protocol")),
    }
}

/// pintle answers OPTIONS with Max-Forwards: 0 itself (RFC 9110 section 7.6.2), or redirects to the
/// canonical name.
async fn http1(stream: TlsStream<TcpStream>, host: &str) -> io::Result<()> {
    match ask(stream, "OPTIONS", host, "Max-Forwards: 0\r\n").await? {
        (200..400, _) => Ok(()),
        (status, _) => Err(io::Error::other(format!("status {status}"))),
    }
}

/// Any answer of the upstream to HEAD is proof. An answer of pintle itself is none, and carries a
/// Proxy-Status field (RFC 9209).
async fn upstream(address: SocketAddr, host: &str, set: &CertificateSet, greeting: bool) -> io::Result<()> {
    let stream = connect(address, host, set, greeting, b"http/1.1").await?;
    match ask(stream, "HEAD", host, "").await? {
        (_, None) => Ok(()),
        (status, Some(error)) => Err(io::Error::other(format!("status {status} ({error})"))),
    }
}

/// Sends a request over HTTP/1.1. Returns the status, and the error if pintle answered itself.
async fn ask(
    mut stream: TlsStream<TcpStream>,
    method: &str,
    host: &str,
    more: &str,
) -> io::Result<(u16, Option<String>)> {
    let request =
        format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{more}User-Agent: {AGENT}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < HEAD_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no response"))?;
    let own = head.lines().filter_map(|line| line.split_once(": ")).find_map(|(name, value)| {
        let parameters = match value.strip_prefix(PSEUDONYM)? {
            // Clients learn no more; the log has the cause.
            "" => "answered by pintle itself",
            more => more.strip_prefix("; ")?,
        };
        name.eq_ignore_ascii_case("proxy-status").then(|| parameters.to_owned())
    });
    Ok((status, own))
}

async fn http2(stream: TlsStream<TcpStream>, host: &str) -> io::Result<()> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let request = http::Request::options(format!("https://{host}/"))
            .header("max-forwards", "0")
            .header("user-agent", AGENT)
            .body(())
            .map_err(io::Error::other)?;
        let (answer, _) =
            sender.ready().await.map_err(io::Error::other)?.send_request(request, true).map_err(io::Error::other)?;
        let status = answer.await.map_err(io::Error::other)?.status().as_u16();
        if (200..400).contains(&status) { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
    };
    let answered = answer.await;
    driver.abort();
    answered
}
