//! The client: connections, handshakes with any certificate, one request each. Every wait and size
//! is bounded.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, Error, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::hello::{ANSWER_MAX, HelloAnswer, RANDOM_LEN, TlsVersion, client_hello, read_answer};
use super::target::{ConnectTo, Url};
use crate::message::{BodyDecoder, Decoded, Framing, HeadFault, Name, ResponseHead, ResponseLimits, parse_response};
use crate::os::words::words;
pub use crate::tls::KeyTypes;
use crate::tls::Possession;
use crate::tls::config::provider;
use crate::tls::failure;

/// The most time for each step: a lookup, a connection, a handshake, a head, a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most addresses that are tried for one connection.
const ADDRESSES_MAX: usize = 8;
/// The limits of a response's head, in bytes.
const HEAD_LIMITS: ResponseLimits = ResponseLimits { head: 64 * 1024, field: 64 * 1024, fields: 1000 };
/// The most bytes of a page that are read.
pub const BODY_MAX: usize = 2 * 1024 * 1024;
/// The most interim responses before the final one.
const INTERIM_MAX: usize = 8;

/// The client's name in the server's log.
const USER_AGENT: &str = concat!("pintle-verify/", env!("CARGO_PKG_VERSION"));

/// The reason why a visit failed.
#[derive(Debug)]
pub enum VisitFailure {
    /// The name has no address.
    Lookup(String, io::Error),
    /// The connection was not accepted.
    Connect(SocketAddr, io::Error),
    /// The TLS handshake failed.
    Tls(io::Error),
    /// No readable HTTP response.
    Http(String),
    /// The connection broke.
    Broken(io::Error),
    /// The step took longer than its time limit.
    Timeout(&'static str, Duration),
}

impl fmt::Display for VisitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(name, error) => write!(f, "{name}: no address: {}", of_lookup(error)),
            Self::Connect(address, error) => write!(f, "{address}: {}", words(error)),
            Self::Tls(error) => write!(f, "TLS failed: {}", failure::words(error)),
            Self::Http(why) => write!(f, "no HTTP response: {why}"),
            Self::Broken(error) => write!(f, "the connection broke: {}", words(error)),
            Self::Timeout(step, limit) => write!(f, "{step} took longer than {} seconds", limit.as_secs()),
        }
    }
}

/// Returns the C library's message without its beginning, which says "lookup" again. The standard library has no other
/// way to it.
fn of_lookup(error: &io::Error) -> String {
    let text = error.to_string();
    let mut letters = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

impl VisitFailure {
    /// Returns `true` if the server could not be reached.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Lookup(..) | Self::Connect(..))
    }

    /// Returns `true` if something else than TLS answered.
    #[must_use]
    pub fn is_not_tls(&self) -> bool {
        matches!(self, Self::Tls(error) if failure::is_not_tls(error))
    }

    /// Returns `true` if the connection was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// A response: its head with all fields in their order, repeated ones included, and its body.
#[derive(Debug, Clone, Default)]
pub struct VisitResponse {
    /// Status and fields.
    pub head: ResponseHead,
    /// The body as sent, or its first bytes: [`get`] reads [`BODY_MAX`] at most.
    pub body: Vec<u8>,
    /// `true` if the body was longer or incomplete.
    pub cut: bool,
}

impl VisitResponse {
    /// Returns the values of all fields with this name.
    #[must_use]
    pub fn values(&self, name: Name) -> Vec<&[u8]> {
        self.head.fields.get_all(name).collect()
    }

    /// Returns the values of all fields with a name that has no [`Name`].
    pub fn values_of(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        let fields = self.head.fields.iter();
        fields.filter(move |(_, bytes, _)| bytes.eq_ignore_ascii_case(name.as_bytes())).map(|(.., value)| value)
    }
}

/// The results of a handshake.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The server's address.
    pub address: SocketAddr,
    /// The negotiated version.
    pub version: Option<TlsVersion>,
    /// The chain as sent.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Looks up the addresses of a place, in the resolver's order.
///
/// # Errors
///
/// [`VisitFailure::Lookup`].
pub async fn addresses(place: &ConnectTo, port: u16) -> Result<Vec<SocketAddr>, VisitFailure> {
    let (name, port) = (place.host.as_str(), place.port.unwrap_or(port));
    let failed = |e| VisitFailure::Lookup(name.to_owned(), e);
    let found = timeout(PATIENCE, lookup_host((name, port)))
        .await
        .map_err(|_| VisitFailure::Timeout("the DNS lookup", PATIENCE))?;
    let all: Vec<SocketAddr> = found.map_err(failed)?.take(ADDRESSES_MAX).collect();
    if all.is_empty() { Err(failed(io::Error::other("the answer is empty"))) } else { Ok(all) }
}

/// Connects to the first address that accepts, beginning with number `first`: if there are several,
/// visits go to different ones.
///
/// # Errors
///
/// [`VisitFailure`] of the last address.
pub async fn connect(addresses: &[SocketAddr], first: usize) -> Result<(SocketAddr, TcpStream), VisitFailure> {
    let mut failure = VisitFailure::Timeout("connecting", PATIENCE);
    // They share the time.
    let patience = PATIENCE / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for at in 0..addresses.len() {
        let address = addresses[(first + at) % addresses.len()];
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let _ = socket.set_nodelay(true);
                return Ok((address, socket));
            }
            Ok(Err(error)) => failure = VisitFailure::Connect(address, error),
            Err(_) => failure = VisitFailure::Connect(address, io::ErrorKind::TimedOut.into()),
        }
    }
    Err(failure)
}

/// Performs a handshake with any certificate; the caller judges the chain. Each handshake has its
/// own configuration, so that no session is resumed and every visit sees a certificate.
///
/// # Errors
///
/// [`VisitFailure`].
pub async fn handshake(
    address: SocketAddr,
    socket: TcpStream,
    name: &ServerName<'static>,
    keys: KeyTypes,
) -> Result<(Handshake, TlsStream<TcpStream>), VisitFailure> {
    let connecting = TlsConnector::from(config(keys).map_err(|e| VisitFailure::Tls(io::Error::other(e)))?);
    let connecting = connecting.connect(name.clone(), socket);
    let stream =
        timeout(PATIENCE, connecting).await.map_err(|_| VisitFailure::Timeout("the TLS handshake", PATIENCE))?;
    let stream = stream.map_err(VisitFailure::Tls)?;
    let session = stream.get_ref().1;
    let shown = Handshake {
        address,
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some(TlsVersion::Tls13),
            Some(ProtocolVersion::TLSv1_2) => Some(TlsVersion::Tls12),
            _ => None,
        },
        certificates: session.peer_certificates().unwrap_or_default().to_vec(),
    };
    Ok((shown, stream))
}

fn config(keys: KeyTypes) -> Result<Arc<ClientConfig>, Error> {
    let mut config = Possession::of_any(keys).client()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Requests a page like a browser on its first visit, and reads the response.
///
/// # Errors
///
/// [`VisitFailure`].
pub async fn get<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, url: &Url) -> Result<VisitResponse, VisitFailure> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept: text/html, */*;q=0.8\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
        url.target,
        url.authority()
    );
    exchange(stream, request.as_bytes(), BODY_MAX, PATIENCE).await
}

/// Sends a request and reads the response, of its body at most `body_max` bytes. The head may take
/// `patience`, and the body again.
///
/// # Errors
///
/// [`VisitFailure`], if there is no head. A failure in the body sets [`VisitResponse::cut`].
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
    body_max: usize,
    patience: Duration,
) -> Result<VisitResponse, VisitFailure> {
    let mut buffer = BytesMut::new();
    let asking = async {
        stream.write_all(request).await.map_err(VisitFailure::Broken)?;
        stream.flush().await.map_err(VisitFailure::Broken)?;
        read_head(stream, &mut buffer).await
    };
    let head =
        timeout(patience, asking).await.map_err(|_| VisitFailure::Timeout("waiting for a response", patience))??;
    let mut response = VisitResponse { head, ..VisitResponse::default() };
    let reading = read_body(stream, buffer, body_max, &mut response);
    if timeout(patience, reading).await.is_err() {
        response.cut = true;
    }
    Ok(response)
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> Result<ResponseHead, VisitFailure> {
    let mut head = ResponseHead::default();
    for _ in 0..=INTERIM_MAX {
        let len = loop {
            if let Some(len) = parse_response(buffer, false, &HEAD_LIMITS, &mut head).map_err(unreadable)? {
                break len;
            }
            if stream.read_buf(buffer).await.map_err(VisitFailure::Broken)? == 0 {
                let what = if buffer.is_empty() { "the connection was closed" } else { "its head is incomplete" };
                return Err(VisitFailure::Http(what.into()));
            }
        };
        let _ = buffer.split_to(len);
        if !head.status.is_informational() {
            return Ok(head);
        }
    }
    Err(VisitFailure::Http("interim responses only".into()))
}

fn unreadable(fault: HeadFault) -> VisitFailure {
    VisitFailure::Http(match fault {
        HeadFault::Syntax(what) => format!("its {what} is invalid"),
        HeadFault::Framing(what) => format!("its end is ambiguous: {what}"),
        HeadFault::TooLarge | HeadFault::FieldTooLarge => "its head is too large".into(),
        _ => "its head is invalid".into(),
    })
}

/// Reads the available body; [`VisitResponse::cut`] says if it is incomplete.
async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut buffer: BytesMut,
    body_max: usize,
    response: &mut VisitResponse,
) {
    let mut decoder = BodyDecoder::response(response.head.framing);
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Decoded::Data(data)) => {
                let room = body_max - response.body.len();
                response.body.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    response.cut = true;
                    return;
                }
            }
            Ok(Decoded::Trailers(_) | Decoded::End) => return,
            // Many servers close without close_notify; a body without other framing ends with the
            // connection.
            Ok(Decoded::More) => match stream.read_buf(&mut buffer).await {
                Ok(n) if n > 0 => {}
                _ => {
                    response.cut = response.head.framing != Framing::UntilClose;
                    return;
                }
            },
            Err(_) => {
                response.cut = true;
                return;
            }
        }
    }
}

/// Sends a ClientHello of this version alone, and returns the answer.
///
/// # Errors
///
/// [`VisitFailure`], if there is no answer.
pub async fn probe(addresses: &[SocketAddr], host: &str, version: TlsVersion) -> Result<HelloAnswer, VisitFailure> {
    let mut random = [0; RANDOM_LEN];
    let no_random = |_| VisitFailure::Tls(io::Error::other("no random bytes"));
    provider().secure_random.fill(&mut random).map_err(no_random)?;
    let (_, mut socket) = connect(addresses, 0).await?;
    let asking = async {
        socket.write_all(&client_hello(version, host, &random)).await?;
        let mut received = BytesMut::new();
        loop {
            if let Some(answer) = read_answer(&received) {
                return io::Result::Ok(answer);
            }
            if received.len() >= ANSWER_MAX || socket.read_buf(&mut received).await? == 0 {
                return Ok(HelloAnswer::Other);
            }
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        // Many servers refuse with a reset.
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Ok(HelloAnswer::Other)
        }
        Ok(Err(error)) => Err(VisitFailure::Broken(error)),
        Err(_) => Err(VisitFailure::Timeout("the answer to a ClientHello", PATIENCE)),
    }
}
