//! HTTPS to a certificate authority, one request at a time, with limits on time and size.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, DATE, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::sync::{mpsc, oneshot};

use crate::config::Authority;
use crate::fetch::{FetchLimits, Fetcher, retry_after};
use crate::policy::promise::Seconds;
use crate::upstream::dns::NameServers;

/// Time limit for a request, from DNS to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: a chain has a few KiB.
const ANSWER_MAX: usize = 1 << 20;
/// Requests that wait for their turn.
const QUEUE: usize = 4;
/// The User-Agent (RFC 8555 section 6.1).
const AGENT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// A client of one authority. Its connection belongs to a task of the thread that made it.
#[derive(Clone)]
pub struct AcmeClient {
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
    /// The time at the authority.
    pub date: Option<Seconds>,
    /// The target of a redirect. pintle follows none.
    pub location: Option<String>,
    /// Its body.
    pub body: Bytes,
}

struct QueuedRequest {
    request: Request<BodyWrapper<Bytes>>,
    reply: oneshot::Sender<Result<Response<Bytes>, String>>,
}

impl AcmeClient {
    /// Starts the task of a client on this thread's runtime. It ends with the last copy of the client.
    ///
    /// # Errors
    ///
    /// The reason, if the authority's roots cannot be used.
    pub fn start(authority: &Authority, servers: &NameServers) -> Result<Self, String> {
        let limits = FetchLimits { whole: REQUEST_TIMEOUT, connect: CONNECT_TIMEOUT, answer: ANSWER_MAX };
        let fetcher =
            Fetcher::new(authority.roots.as_deref(), servers, limits).map_err(|why| format!("acme.ca: {why}"))?;
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::task::spawn_local(serve(fetcher, queue));
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
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let location = text(LOCATION).filter(|_| response.status().is_redirection()).map(str::to_owned);
        *self.received() = Received {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
            date: text(DATE).and_then(date),
            location,
            body: response.body().clone(),
        };
        Ok(response)
    }
}

impl HttpClient for AcmeClient {
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

/// Reads a date, in seconds since 1970.
fn date(value: &str) -> Option<Seconds> {
    Some(jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp().as_second())
}

/// Carries requests out, one after the other.
async fn serve(mut fetcher: Fetcher<BodyWrapper<Bytes>>, mut queue: mpsc::Receiver<QueuedRequest>) {
    while let Some(QueuedRequest { request, reply }) = queue.recv().await {
        let _ = reply.send(fetcher.fetch(request).await);
    }
}
