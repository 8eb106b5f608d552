//! HTTPS to a certificate authority, one request at a time, with limits on time and size.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::config::Authority;
use crate::policy::promise::Seconds;
use crate::tls::config::provider;
use crate::tls::failure;
use crate::upstream::dns::{NameServers, Resolver};

/// Time limit for a request, from DNS to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: a chain has a few KiB.
const ANSWER_MAX: usize = 1 << 20;
/// A connection that has been idle for longer is not used again.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Requests that wait for their turn.
const QUEUE: usize = 4;
/// The User-Agent (RFC 8555 section 6.1).
const AGENT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// A client of one authority. Its connection belongs to a task of the thread that made it.
#[derive(Clone)]
pub struct Client {
    requests: mpsc::Sender<QueuedRequest>,
    last: Arc<Mutex<Received>>,
}

/// The last answer.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Its status; 0 without one.
    pub status: u16,
    /// Its Retry-After, in seconds from then.
    pub retry_after: Option<Seconds>,
    /// Its body.
    pub body: Bytes,
}

struct QueuedRequest {
    request: Request<BodyWrapper<Bytes>>,
    reply: oneshot::Sender<Result<Response<Bytes>, String>>,
}

impl Client {
    /// Starts the task of a client on this thread's runtime. It ends with the last copy of the client.
    ///
    /// # Errors
    ///
    /// The reason, if the authority's roots cannot be used.
    pub fn start(authority: &Authority, servers: &NameServers) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match &authority.roots {
            None => roots.roots = webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Some(own) => {
                let own = own.iter().map(|der| CertificateDer::from(der.clone()));
                if roots.add_parsable_certificates(own).0 == 0 {
                    return Err("acme.ca: no usable root certificate".to_owned());
                }
            }
        }
        let tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (requests, queue) = mpsc::channel(QUEUE);
        let connection =
            Connection { tls: TlsConnector::from(Arc::new(tls)), resolver: Resolver::new(servers.clone()), idle: None };
        tokio::task::spawn_local(connection.serve(queue));
        Ok(Self { requests, last: Arc::default() })
    }

    /// Returns the last answer.
    #[must_use]
    pub fn last(&self) -> Received {
        self.received().clone()
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a resource without signing the request: the directory, or renewal information.
    ///
    /// # Errors
    ///
    /// The reason, if there is no answer.
    pub async fn get(&self, url: &str) -> Result<Received, String> {
        let request = Request::builder().uri(url).body(BodyWrapper::default()).map_err(|error| error.to_string())?;
        self.send(request).await?;
        Ok(self.last())
    }

    async fn send(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, String> {
        *self.received() = Received::default();
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request.headers_mut().insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        let (reply, answer) = oneshot::channel();
        let gone = "the client has ended";
        self.requests.send(QueuedRequest { request, reply }).await.map_err(|_| gone)?;
        let response = answer.await.map_err(|_| gone)??;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| seconds_until(value.to_str().ok()?));
        *self.received() = Received { status: response.status().as_u16(), retry_after, body: response.body().clone() };
        Ok(response)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let response = client.send(request).await.map_err(|why| Error::Other(why.into()))?;
            let (parts, body) = response.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

/// Returns the seconds until the time of Retry-After: seconds, or a date (RFC 9110 section 10.2.3).
fn seconds_until(value: &str) -> Option<Seconds> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(seconds.into());
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(date.as_second().saturating_sub(jiff::Timestamp::now().as_second()))
}

/// The connection to the authority.
struct Connection {
    tls: TlsConnector,
    resolver: Resolver,
    idle: Option<Idle>,
}

/// A connection that may take another request.
struct Idle {
    authority: String,
    sender: SendRequest<BodyWrapper<Bytes>>,
    since: Instant,
}

impl Connection {
    async fn serve(mut self, mut queue: mpsc::Receiver<QueuedRequest>) {
        while let Some(QueuedRequest { request, reply }) = queue.recv().await {
            let url = request.uri().clone();
            let answer = match timeout(REQUEST_TIMEOUT, self.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {} seconds", REQUEST_TIMEOUT.as_secs())),
            };
            let host = url.host().unwrap_or_default();
            let _ = reply.send(answer.map_err(|why| format!("{host}: {why}")));
        }
    }

    async fn exchange(&mut self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, String> {
        let url = request.uri().clone();
        let authority = url.authority().ok_or("the URL names no host")?.to_string();
        if url.scheme_str() != Some("https") {
            return Err(format!("{url}: not an https URL"));
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| error.to_string())?;
        let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
        let is_head = *request.method() == Method::HEAD;
        let known = self
            .idle
            .take()
            .filter(|idle| idle.authority == authority && idle.since.elapsed() < IDLE_MAX && !idle.sender.is_closed());
        let (mut sender, response) = match known {
            Some(Idle { mut sender, .. }) => match sender.try_send_request(request).await {
                Ok(response) => (sender, response),
                // It was not sent: the authority has closed the connection in between.
                Err(mut error) => match error.take_message() {
                    Some(request) => self.send_on_new_connection(&url, request).await?,
                    None => return Err(error.error().to_string()),
                },
            },
            None => self.send_on_new_connection(&url, request).await?,
        };
        let (parts, body) = response.into_parts();
        let body = if is_head || parts.status == StatusCode::NO_CONTENT { Bytes::new() } else { read(body).await? };
        if sender.ready().await.is_ok() {
            self.idle = Some(Idle { authority, sender, since: Instant::now() });
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Sends a request on a new connection.
    async fn send_on_new_connection(
        &self,
        url: &Uri,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<(SendRequest<BodyWrapper<Bytes>>, Response<Incoming>), String> {
        let name = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let socket = self.connect(&name, url.port_u16().unwrap_or(443)).await?;
        let _ = socket.set_nodelay(true);
        let server_name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let stream = self
            .tls
            .connect(server_name, socket)
            .await
            .map_err(|error| format!("TLS failed: {}", failure::words(&error)))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        Ok((sender, response))
    }

    /// Connects to the first address that answers.
    async fn connect(&self, name: &str, port: u16) -> Result<TcpStream, String> {
        let mut why = "no address".to_owned();
        for address in self.resolver.addresses(name, port).await? {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address}: no connection within {} seconds", CONNECT_TIMEOUT.as_secs()),
            }
        }
        Err(why)
    }
}

async fn read(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, ANSWER_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after() {
        assert_eq!(seconds_until("120"), Some(120));
        assert_eq!(seconds_until(" 0 "), Some(0));
        assert!(seconds_until("Fri, 31 Dec 1999 23:59:59 GMT").unwrap() < 0);
        assert!(seconds_until("Fri, 31 Dec 2999 23:59:59 GMT").is_none_or(|seconds| seconds > 0));
        assert_eq!(seconds_until("soon"), None);
        assert_eq!(seconds_until("-5"), None);
    }
}
