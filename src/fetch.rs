//! HTTP requests of pintle's own to services of others: one at a time over one connection, with limits on time and size.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::host::bare;
use crate::os::words::words;
use crate::policy::promise::Seconds;
use crate::tls::config::provider;
use crate::tls::failure;
use crate::upstream::dns::{NameServers, Resolver};

/// A connection that has been idle for longer is not used again.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// The limits of a request.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// The time from DNS to the last byte of the answer.
    pub whole: Duration,
    /// The time for one address.
    pub connect: Duration,
    /// The longest answer, in bytes.
    pub answer: usize,
}

/// A client with one connection, which belongs to a task of the thread that made it.
pub struct Fetcher<B> {
    tls: TlsConnector,
    resolver: Resolver,
    limits: FetchLimits,
    takes_plain: bool,
    reads_answers: bool,
    idle: Option<IdleSender<B>>,
}

/// A connection that may take another request.
struct IdleSender<B> {
    origin: String,
    sender: SendRequest<B>,
    since: Instant,
}

impl<B> Fetcher<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Creates a client. It trusts these roots, in DER; without any, those of browsers.
    ///
    /// # Errors
    ///
    /// The reason, if no root can be used.
    pub fn new(roots: Option<&[Vec<u8>]>, servers: &NameServers, limits: FetchLimits) -> Result<Self, String> {
        let mut trusted = RootCertStore::empty();
        match roots {
            None => trusted.roots = webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Some(own) => {
                let own = own.iter().map(|der| CertificateDer::from(der.clone()));
                if trusted.add_parsable_certificates(own).0 == 0 {
                    return Err("no usable root certificate".to_owned());
                }
            }
        }
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        // One service can have several servers at one name. rustls withdraws a ticket of another server after
        // HelloRetryRequest, if it fits no more, and some servers refuse that (RFC 9846 section 4.2.2).
        tls.resumption = Resumption::disabled();
        let (tls, resolver) = (TlsConnector::from(Arc::new(tls)), Resolver::new(servers.clone()));
        Ok(Self { tls, resolver, limits, takes_plain: false, reads_answers: true, idle: None })
    }

    /// Also takes `http` URLs.
    #[must_use]
    pub fn with_plain(self) -> Self {
        Self { takes_plain: true, ..self }
    }

    /// Reads no body of an answer: its status and fields are enough.
    #[must_use]
    pub fn without_bodies(self) -> Self {
        Self { reads_answers: false, ..self }
    }

    /// Sends a request to its URL, and returns the whole answer. Follows no redirect.
    ///
    /// # Errors
    ///
    /// The reason with the host, if there is no answer.
    pub async fn fetch(&mut self, request: Request<B>) -> Result<Response<Bytes>, String> {
        let url = request.uri().clone();
        let whole = self.limits.whole;
        let answer = match timeout(whole, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} seconds", whole.as_secs())),
        };
        answer.map_err(|why| format!("{}: {why}", url.host().unwrap_or_default()))
    }

    async fn exchange(&mut self, mut request: Request<B>) -> Result<Response<Bytes>, String> {
        let url = request.uri().clone();
        let authority = url.authority().ok_or("the URL names no host")?.to_string();
        let is_tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") if self.takes_plain => false,
            _ => return Err("not an https URL".to_owned()),
        };
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| error.to_string())?;
        let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
        let is_head = *request.method() == Method::HEAD;
        let origin = format!("{is_tls} {authority}");
        let known = self
            .idle
            .take()
            .filter(|idle| idle.origin == origin && idle.since.elapsed() < IDLE_MAX && !idle.sender.is_closed());
        let (mut sender, response) = match known {
            Some(IdleSender { mut sender, .. }) => match sender.try_send_request(request).await {
                Ok(response) => (sender, response),
                // It was not sent: the service has closed the connection in between.
                Err(mut error) => match error.take_message() {
                    Some(request) => self.send_on_new_connection(&url, is_tls, request).await?,
                    None => return Err(error.error().to_string()),
                },
            },
            None => self.send_on_new_connection(&url, is_tls, request).await?,
        };
        let (parts, body) = response.into_parts();
        if !self.reads_answers {
            return Ok(Response::from_parts(parts, Bytes::new()));
        }
        let is_empty = is_head || parts.status == StatusCode::NO_CONTENT;
        let body = if is_empty { Bytes::new() } else { read(body, self.limits.answer).await? };
        if sender.ready().await.is_ok() {
            self.idle = Some(IdleSender { origin, sender, since: Instant::now() });
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Sends a request on a new connection.
    async fn send_on_new_connection(
        &self,
        url: &Uri,
        is_tls: bool,
        request: Request<B>,
    ) -> Result<(SendRequest<B>, Response<Incoming>), String> {
        let name = bare(url.host().unwrap_or_default()).to_owned();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let socket = connect(&self.resolver, &name, port, self.limits.connect).await?;
        let mut sender = if is_tls {
            let server_name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let stream = self.tls.connect(server_name, socket).await;
            begin(stream.map_err(|error| format!("TLS failed: {}", failure::words(&error)))?).await?
        } else {
            begin(socket).await?
        };
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        Ok((sender, response))
    }
}

/// Begins HTTP/1.1 on a connection, and has a task drive it.
async fn begin<B, S>(stream: S) -> Result<SendRequest<B>, String>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Connects to the first address of a name that answers, each within `limit`.
///
/// # Errors
///
/// The reason, if none does.
pub async fn connect(resolver: &Resolver, name: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let mut why = "no address".to_owned();
    for address in resolver.addresses(name, port).await? {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => why = format!("{address}: {}", words(&error)),
            Err(_) => why = format!("{address}: no connection within {} seconds", limit.as_secs()),
        }
    }
    Err(why)
}

async fn read(body: Incoming, most: usize) -> Result<Bytes, String> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the seconds until the time of Retry-After: seconds, or a date (RFC 9110 section 10.2.3).
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Seconds> {
    seconds_until(headers.get(RETRY_AFTER)?.to_str().ok()?)
}

fn seconds_until(value: &str) -> Option<Seconds> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number holds is long enough.
        return Some(value.parse::<u32>().unwrap_or(u32::MAX).into());
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(date.as_second().saturating_sub(jiff::Timestamp::now().as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after() {
        assert_eq!(seconds_until("120"), Some(120));
        assert_eq!(seconds_until(" 0 "), Some(0));
        assert_eq!(seconds_until("99999999999999999999"), Some(u32::MAX.into()));
        assert!(seconds_until("Fri, 31 Dec 1999 23:59:59 GMT").unwrap() < 0);
        assert!(seconds_until("Fri, 31 Dec 2999 23:59:59 GMT").is_none_or(|seconds| seconds > 0));
        assert_eq!(seconds_until("soon"), None);
        assert_eq!(seconds_until("-5"), None);
    }
}
