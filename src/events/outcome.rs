//! One attempt to deliver an event, and its outcome.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::hook::{Hook, HookLimits, HookTarget};
use super::kind::Event;
use super::programs;
use super::sign::signature;
use crate::fetch::{FetchLimits, Fetcher, retry_after};
use crate::upstream::dns::NameServers;

/// Time limit for one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest pause that a receiver may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(86_400);
const AGENT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"));

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// The receiver has it.
    Delivered,
    /// The receiver wants no more events: status 410.
    Gone,
    /// It failed.
    Failed {
        /// The reason.
        why: String,
        /// `true` if all events of this hook wait: the receiver is overloaded.
        throttles: bool,
        /// The pause that the receiver asked for.
        pause: Option<Duration>,
    },
}

impl Tried {
    fn failed(why: String) -> Self {
        Self::Failed { why, throttles: false, pause: None }
    }

    /// Returns the reason of a failure.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Delivered => None,
            Self::Gone => Some("the receiver answers 410: it wants no more events"),
            Self::Failed { why, .. } => Some(why),
        }
    }
}

/// The means of one hook to deliver.
pub(super) enum Means {
    Http(Box<Fetcher<Full<Bytes>>>),
    Program,
    /// The roots cannot be used.
    None(String),
}

impl Means {
    pub(super) fn of(hook: &Hook, servers: &NameServers, limits: HookLimits) -> Self {
        let HookTarget::Url { roots, .. } = &hook.target else { return Self::Program };
        let limits = FetchLimits { whole: limits.time, connect: CONNECT_TIMEOUT.min(limits.time), answer: 0 };
        match Fetcher::new(roots.as_deref(), servers, limits) {
            Ok(fetcher) => Self::Http(Box::new(fetcher.with_plain().without_bodies())),
            Err(why) => Self::None(why),
        }
    }

    /// Makes one attempt.
    pub(super) async fn deliver(&mut self, hook: &Hook, event: &Event) -> Tried {
        match (self, &hook.target) {
            (Self::Http(fetcher), HookTarget::Url { url, secrets, .. }) => {
                let seconds = Timestamp::now().as_second();
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(url)
                    .header(USER_AGENT, AGENT)
                    .header(CONTENT_TYPE, "application/json")
                    .header("webhook-id", &event.id)
                    .header("webhook-timestamp", seconds)
                    .header("webhook-signature", signature(secrets, &event.id, seconds, &event.body))
                    .body(Full::new(Bytes::from(event.body.clone())));
                match request {
                    Ok(request) => match fetcher.fetch(request).await {
                        Ok(answer) => judge(&answer),
                        Err(why) => Tried::failed(why),
                    },
                    Err(error) => Tried::failed(error.to_string()),
                }
            }
            (Self::Program, HookTarget::Command(program)) => {
                let (program, event) = (program.clone(), event.clone());
                let ran = spawn_blocking(move || programs::run(&program, &event)).await;
                match ran.unwrap_or_else(|panic| Err(panic.to_string())) {
                    Ok(()) => Tried::Delivered,
                    Err(why) => Tried::failed(why),
                }
            }
            (Self::None(why), _) => Tried::failed(why.clone()),
            _ => Tried::failed("no means to deliver".to_owned()),
        }
    }
}

/// Judges an answer by the rules of Standard Webhooks.
fn judge<B>(answer: &Response<B>) -> Tried {
    let status = answer.status();
    if status.is_success() {
        return Tried::Delivered;
    }
    if status == StatusCode::GONE {
        return Tried::Gone;
    }
    let asked = retry_after(answer.headers()).and_then(|seconds| u64::try_from(seconds).ok());
    let pause = asked.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX));
    let overloaded = [StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
    let throttles = pause.is_some() || overloaded.contains(&status);
    let why = match status.is_redirection() {
        true => format!("status {}: redirects are not followed", status.as_u16()),
        false => format!("status {}", status.as_u16()),
    };
    Tried::Failed { why, throttles, pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let of = |status: u16, after: Option<&str>| {
            let mut answer = Response::builder().status(status);
            if let Some(after) = after {
                answer = answer.header("retry-after", after);
            }
            judge(&answer.body(()).unwrap())
        };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(of(status, None), Tried::Delivered, "{status}");
        }
        assert_eq!(of(410, None), Tried::Gone);
        let check = |status: u16, after: Option<&str>, throttles: bool, pause: Option<u64>| {
            let got = of(status, after);
            let Tried::Failed { throttles: is, pause: asked, .. } = &got else { panic!("{status}: {got:?}") };
            assert_eq!((*is, *asked), (throttles, pause.map(Duration::from_secs)), "{status} {after:?}");
        };
        for status in [301, 302, 307, 308, 400, 401, 404, 500, 503] {
            check(status, None, false, None);
        }
        for status in [429, 502, 504] {
            check(status, None, true, None);
        }
        check(503, Some("7"), true, Some(7));
        check(400, Some("7"), true, Some(7));
        check(429, Some("9999999"), true, Some(86_400));
        check(429, Some("-3"), true, None);
        check(503, Some("soon"), false, None);
    }
}
