//! Health checks: the control thread asks each address of an upstream at an interval, on a new
//! connection.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures_util::future::{Either, join_all, select};
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, Uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::UpstreamError;
use super::health::HealthCheck;
use super::settings::{Protocols, Upstream, UpstreamTransport};
use super::tls::secure;
use crate::message::{ParseProgress, ResponseHead, ResponseLimits, parse_response};

/// The limits of an answer's head.
const HEAD_LIMITS: ResponseLimits = ResponseLimits { head: 64 * 1024, field: 64 * 1024, fields: 1000 };
/// The longest wait for an answer that nobody configured a check for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// The User-Agent of checks.
const AGENT: &str = "pintle (health check)";

/// Returns a task that checks an upstream for as long as it is in use. `None` if it needs no
/// checks, or has them already.
#[must_use]
pub fn watch(upstream: &Arc<Upstream>) -> Option<impl Future<Output = ()> + use<>> {
    upstream.health.check.as_ref()?;
    upstream.health.begin_checks().then(|| run_checks(Arc::downgrade(upstream)))
}

async fn run_checks(upstream: Weak<Upstream>) {
    let mut runs: HashMap<SocketAddr, AnswerRun> = HashMap::new();
    while let Some(upstream) = upstream.upgrade() {
        let Some(check) = &upstream.health.check else { return };
        let interval = check.interval;
        let addresses = upstream.addresses.known();
        runs.retain(|address, _| addresses.contains(address));
        let asked = addresses.iter().map(|address| ask(&upstream, check, *address));
        for (address, answer) in addresses.iter().zip(join_all(asked).await) {
            let why = answer.err();
            let run = runs.entry(*address).or_default();
            if let Some(fit) = run.note(why.is_none(), check) {
                upstream.health.address_checked(*address, fit, &why.unwrap_or_default());
            }
        }
        drop(upstream);
        tokio::time::sleep(interval).await;
    }
}

/// A run of good answers, or of bad ones.
#[derive(Debug, Default)]
struct AnswerRun {
    good: bool,
    length: u32,
}

impl AnswerRun {
    /// Counts an answer. Returns whether the address is fit, once the run is long enough.
    fn note(&mut self, good: bool, check: &HealthCheck) -> Option<bool> {
        self.length = if good == self.good { self.length.saturating_add(1) } else { 1 };
        self.good = good;
        (self.length >= if good { check.healthy } else { check.unhealthy }).then_some(good)
    }
}

/// Checks one address. Returns a message if it is unfit.
async fn ask(upstream: &Upstream, check: &HealthCheck, address: SocketAddr) -> Result<(), String> {
    let asking = async {
        let transport = connected(upstream, address).await?;
        let request = CheckRequest { path: &check.path, host: &check.host, asked: None };
        head_of(transport, upstream.http2_only, &request).await.map(|head| head.status.as_u16())
    };
    match tokio::time::timeout(check.timeout, asking).await {
        Err(_) => Err(format!("no answer within {} ms", check.timeout.as_millis())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(status)) if check.status.contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("status {status}")),
    }
}

/// A request for one page.
struct CheckRequest<'a> {
    path: &'a str,
    /// The Host field.
    host: &'a str,
    /// The host that a client would have asked for over https, if the upstream is to see that.
    asked: Option<&'a str>,
}

impl CheckRequest<'_> {
    /// The fields that tell the upstream how the client came.
    fn forwarded(&self) -> impl Iterator<Item = (&'static str, String)> {
        let fields = |asked: &str| {
            [
                ("X-Forwarded-Proto", "https".to_owned()),
                ("X-Forwarded-Host", asked.to_owned()),
                ("Forwarded", format!("host=\"{asked}\";proto=https")),
            ]
        };
        self.asked.map(fields).into_iter().flatten()
    }
}

/// Requests the first page once, on a new connection, and returns the head of the answer. `host`
/// is the Host field. The upstream sees that a client asked for the host `asked` over https.
///
/// # Errors
///
/// The reason, if there is no connection within the connect timeout, or no answer within the response timeout (10 s at
/// most) after that.
pub async fn answer_of(
    upstream: &Upstream,
    address: SocketAddr,
    host: &str,
    asked: &str,
) -> Result<ResponseHead, UpstreamError> {
    let connecting = tokio::time::timeout(upstream.connect_timeout, connected(upstream, address));
    let transport = connecting.await.unwrap_or(Err(UpstreamError::ConnectTimeout))?;
    let request = CheckRequest { path: "/", host, asked: Some(asked) };
    let asking = head_of(transport, upstream.http2_only, &request);
    let limit = upstream.response_timeout.min(ANSWER_PATIENCE);
    tokio::time::timeout(limit, asking).await.unwrap_or(Err(UpstreamError::ResponseTimeout))
}

async fn connected(upstream: &Upstream, address: SocketAddr) -> Result<UpstreamTransport, UpstreamError> {
    let socket = TcpStream::connect(address).await.map_err(|e| UpstreamError::Connect(address, e))?;
    secure(upstream, Protocols::Http1, socket).await
}

async fn head_of(
    mut transport: UpstreamTransport,
    http2_only: bool,
    request: &CheckRequest<'_>,
) -> Result<ResponseHead, UpstreamError> {
    if http2_only {
        return head_by_http2(transport, request).await;
    }
    let CheckRequest { path, host, .. } = request;
    let mut text =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n");
    for (name, value) in request.forwarded() {
        text.extend([name, ": ", value.as_str(), "\r\n"]);
    }
    text.push_str("\r\n");
    let closed = |e| UpstreamError::Closed(Some(e));
    transport.write_all(text.as_bytes()).await.map_err(closed)?;
    transport.flush().await.map_err(closed)?;
    let (mut received, mut progress) = (BytesMut::new(), ParseProgress::default());
    loop {
        let mut head = ResponseHead::default();
        let fault = |_| UpstreamError::Malformed("not an HTTP response");
        let parsed = match progress.is_worth_it(&received, &[HEAD_LIMITS.head]) {
            true => parse_response(&received, false, &HEAD_LIMITS, &mut head).map_err(fault)?,
            false => None,
        };
        match parsed {
            Some(len) if head.status.is_informational() => {
                progress = ParseProgress::default();
                received.advance(len);
            }
            Some(_) => return Ok(head),
            None => {
                if transport.read_buf(&mut received).await.map_err(closed)? == 0 {
                    return Err(UpstreamError::Closed(None));
                }
            }
        }
    }
}

/// Returns the head of an answer over HTTP/2 without TLS.
async fn head_by_http2(
    transport: UpstreamTransport,
    request: &CheckRequest<'_>,
) -> Result<ResponseHead, UpstreamError> {
    let (sender, connection) = h2::client::handshake(transport).await.map_err(UpstreamError::Http2)?;
    let uri = Uri::builder().scheme("http").authority(request.host).path_and_query(request.path).build();
    let request = uri.and_then(|uri| {
        let plain = Request::get(uri).header(USER_AGENT, AGENT).header(ACCEPT, "*/*");
        request.forwarded().fold(plain, |built, (name, value)| built.header(name, value)).body(())
    });
    let request = request.map_err(|_| UpstreamError::Malformed("the check has no form in HTTP/2"))?;
    let asked = pin!(async {
        let (response, _) = sender.ready().await?.send_request(request, true)?;
        response.await
    });
    match select(asked, connection).await {
        Either::Left((answer, _)) => {
            let answer = answer.map_err(UpstreamError::Http2)?;
            let mut head = ResponseHead { status: answer.status(), ..ResponseHead::default() };
            for (name, value) in answer.headers() {
                head.fields.push(name.as_str().as_bytes(), value.as_bytes());
            }
            Ok(head)
        }
        Either::Right((ended, _)) => Err(ended.err().map_or(UpstreamError::Closed(None), UpstreamError::Http2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_decides() {
        let check = HealthCheck {
            path: "/".into(),
            host: "a".into(),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            healthy: 2,
            unhealthy: 3,
            status: 200..=299,
        };
        let mut run = AnswerRun::default();
        let mut verdicts = |good: &[bool]| good.iter().map(|g| run.note(*g, &check)).collect::<Vec<_>>();
        assert_eq!(verdicts(&[false, false, true, false, false]), [None; 5]);
        assert_eq!(verdicts(&[false, false]), [Some(false); 2]);
        assert_eq!(verdicts(&[true, true, true]), [None, Some(true), Some(true)]);
    }
}
