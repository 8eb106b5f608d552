//! `pintle check --connect`: connects to each upstream once, as `run` would, and asks the authorities of `[acme]`.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::acme::asked::{AskedAuthority, ask_all};
use crate::config::Config;
use crate::message::{RequestHead, ResponseHead};
use crate::policy::redirect::HttpsPorts;
use crate::reason::{Problem, Reason, Severity};
use crate::site::Site;
use crate::upstream::check::answer_of;
use crate::upstream::dns::{Addresses, NO_ANSWER, Resolver};
use crate::upstream::rewrite::{SendsBack, rewrite};
use crate::upstream::{HostHeader, Upstream, UpstreamError};

/// The number of upstreams that are tried at the same time.
const AT_ONCE: usize = 32;
/// The most addresses of one upstream that are tried.
const ADDRESSES_MAX: usize = 16;

/// The attempts at one upstream.
struct UpstreamAttempts {
    /// Its URL in the configuration.
    url: String,
    /// `true` if it has TLS.
    has_tls: bool,
    /// The outcome for each address: the answer, or the error.
    outcomes: Vec<(SocketAddr, Result<AttemptAnswer, UpstreamError>)>,
    /// The error of the lookup, if there is no address.
    lookup: Option<UpstreamError>,
}

/// The answer at one address.
struct AttemptAnswer {
    status: u16,
    /// Set if it redirects to the page that was asked for.
    back: Option<SendsBack>,
}

/// One upstream to try.
struct AttemptTarget {
    upstream: Arc<Upstream>,
    site: Arc<Site>,
    /// The port that clients see.
    public_port: Option<u16>,
    url: String,
    /// The host and the port to connect to.
    connect: String,
    /// The Host field.
    host: String,
    /// The name that a client asks for.
    asked: String,
}

/// The attempts at everything that a configuration connects to.
pub(super) struct ConnectAttempts {
    upstreams: Vec<UpstreamAttempts>,
    authorities: Vec<AskedAuthority>,
}

/// Tries all upstreams, each once, and asks the authorities from which pintle obtains certificates.
///
/// # Errors
///
/// If the system has no resources for it.
pub(super) fn try_all(config: &Config) -> Result<ConnectAttempts, Reason> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Reason::new(error.to_string()))?;
    let attempts = LocalSet::new().block_on(&runtime, async {
        let resolver = Resolver::new(config.name_servers.clone());
        let targets = targets(config);
        let upstreams = stream::iter(targets.iter().map(|target| try_one(target, &resolver)));
        let upstreams = upstreams.buffered(AT_ONCE).collect::<Vec<_>>();
        let authorities = async {
            match &config.acme {
                Some(acme) => ask_all(acme, &config.name_servers).await,
                None => Vec::new(),
            }
        };
        let (upstreams, authorities) = join(upstreams, authorities).await;
        ConnectAttempts { upstreams, authorities }
    });
    // A lookup that still runs ends with the process.
    runtime.shutdown_background();
    Ok(attempts)
}

impl ConnectAttempts {
    /// Returns the answers as lines: `upstream http://192.0.2.1: 192.0.2.1:80 answers 200`.
    pub(super) fn answers(&self) -> Vec<String> {
        let upstreams = self.upstreams.iter().flat_map(UpstreamAttempts::answers);
        let reached = self.authorities.iter().filter(|asked| asked.is_reached);
        upstreams.chain(reached.map(|asked| format!("authority {}: answers", asked.name))).collect()
    }

    /// Returns the failures.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let authorities = self.authorities.iter().filter_map(|asked| asked.problem.clone());
        self.upstreams.iter().flat_map(UpstreamAttempts::problems).chain(authorities).collect()
    }

    /// Returns the attempts as JSON: those at upstreams, and those at authorities.
    pub(super) fn json(&self) -> (Value, Value) {
        let upstreams = self.upstreams.iter().map(UpstreamAttempts::json).collect();
        (upstreams, self.authorities.iter().map(authority_json).collect())
    }
}

/// Returns the answer of an authority as JSON.
fn authority_json(asked: &AskedAuthority) -> Value {
    let reason = asked.problem.as_ref().map(|problem| &problem.reason);
    json!({
        "name": asked.name, "reachable": asked.is_reached, "error": reason.map(Reason::line),
        "hint": reason.and_then(Reason::hint_line),
    })
}

/// The upstreams of all sites; sites may share one.
fn targets(config: &Config) -> Vec<AttemptTarget> {
    let mut targets: Vec<AttemptTarget> = Vec::new();
    let snapshot = &config.snapshot;
    for ((report, site), upstream) in config.sites().zip(&snapshot.sites).zip(&snapshot.upstreams) {
        let (hosts, Some(report), Some(upstream)) = (&report.hosts, &report.upstream, upstream) else { continue };
        if targets.iter().any(|known| Arc::ptr_eq(&known.upstream, upstream)) {
            continue;
        }
        let first = || hosts.first().map(|host| host.replace("*.", "www.")).unwrap_or_default();
        let asked = site.canonical.as_deref().map_or_else(first, str::to_owned);
        let host = match &upstream.host_header {
            HostHeader::Fixed(host) => host.to_string(),
            HostHeader::Client => asked.clone(),
        };
        let (url, connect) = (report.url.clone(), report.connect.clone());
        let (upstream, site, public_port) = (upstream.clone(), site.clone(), snapshot.public_https_port);
        targets.push(AttemptTarget { upstream, site, public_port, url, connect, host, asked });
    }
    targets
}

async fn try_one(target: &AttemptTarget, resolver: &Resolver) -> UpstreamAttempts {
    let AttemptTarget { upstream, url, connect, host, asked, .. } = target;
    let mut attempts =
        UpstreamAttempts { url: url.clone(), has_tls: upstream.tls.is_some(), outcomes: Vec::new(), lookup: None };
    let addresses = match &upstream.addresses {
        Addresses::Fixed(addresses) => Ok(addresses.to_vec()),
        Addresses::Followed { .. } => look_up(connect, upstream, resolver).await,
    };
    match addresses {
        Err(error) => attempts.lookup = Some(error),
        Ok(addresses) => {
            let addresses = addresses.into_iter().take(ADDRESSES_MAX);
            let ask = async |address| {
                let head = answer_of(upstream, address, host, asked).await;
                (address, head.map(|head| AttemptAnswer::of(head, target)))
            };
            attempts.outcomes = join_all(addresses.map(ask)).await;
        }
    }
    attempts
}

async fn look_up(connect: &str, upstream: &Upstream, resolver: &Resolver) -> Result<Vec<SocketAddr>, UpstreamError> {
    let (host, port) = connect.rsplit_once(':').unwrap_or((connect, ""));
    let port = port.parse().unwrap_or_default();
    match timeout(upstream.connect_timeout, resolver.addresses(host, port)).await {
        Ok(found) => found.map_err(|why| UpstreamError::Dns(why.into())),
        Err(_) => Err(UpstreamError::Dns(NO_ANSWER.into())),
    }
}

impl AttemptAnswer {
    fn of(mut head: ResponseHead, target: &AttemptTarget) -> Self {
        let status = head.status.as_u16();
        let mut request = RequestHead::default();
        request.set_target(b"/");
        let https = HttpsPorts { public: target.public_port, listeners: &[] };
        let back = match request.set_authority(target.asked.as_bytes()) {
            Ok(()) => rewrite(&mut head, &request, &target.site, &target.upstream, https),
            Err(_) => None,
        };
        Self { status, back }
    }

    /// Returns the fault of an answer that leaves visitors without the page.
    fn fault(&self, has_tls: bool) -> Option<Reason> {
        let Self { status, back } = self;
        match back {
            Some(back) => {
                let what = format!("redirect loop: answers {status} with a redirect to the page that was asked for");
                Some(Reason::new(what).hint(back.hint(has_tls)))
            }
            None if *status >= 500 => {
                Some(Reason::new(format!("answers {status}")).hint("the log of the upstream should say why"))
            }
            None => None,
        }
    }
}

impl UpstreamAttempts {
    /// Returns `true` if no address answers.
    fn is_unreachable(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| outcome.is_err())
    }

    /// Returns the failures. They are warnings if another address answers, or if the answer is a fault: it may pass.
    fn problems(&self) -> Vec<Problem> {
        let severity = if self.is_unreachable() { Severity::Error } else { Severity::Warning };
        let problem = |place: String, error: &UpstreamError| {
            let reason = Reason::new(format!("upstream {}: {place}{error}", self.url)).hints(self.hint(error));
            Problem { severity, ..reason.into() }
        };
        let lookup = self.lookup.iter().map(|error| problem(String::new(), error));
        let failed = self.outcomes.iter().filter_map(|(address, outcome)| Some((address, outcome.as_ref().err()?)));
        let connect = failed.map(|(address, error)| match error {
            // It names the address itself.
            UpstreamError::Connect(..) => problem(String::new(), error),
            _ => problem(format!("{address}: "), error),
        });
        let faults = self.outcomes.iter().filter_map(|(address, outcome)| {
            let fault = outcome.as_ref().ok()?.fault(self.has_tls)?;
            let reason = fault.within(&format_args!("upstream {}: {address}", self.url));
            Some(Problem { severity: Severity::Warning, ..reason.into() })
        });
        lookup.chain(connect).chain(faults).collect()
    }

    fn hint(&self, error: &UpstreamError) -> Option<String> {
        match error {
            UpstreamError::Malformed(_) | UpstreamError::Closed(_) if !self.has_tls => {
                Some("check the port; if the upstream speaks TLS there, write https:// in upstream".to_owned())
            }
            UpstreamError::ConnectTimeout => Some(
                "check the address and port, and the firewalls on the way; for a slow upstream, raise \
                 upstream_options.connect_timeout"
                    .to_owned(),
            ),
            UpstreamError::ResponseTimeout => {
                Some("check that the upstream works; if it is slow, raise upstream_options.response_timeout".to_owned())
            }
            _ => error.hint().map(str::to_owned),
        }
    }

    /// Returns the answers as lines.
    fn answers(&self) -> impl Iterator<Item = String> {
        let line = move |(address, outcome): &(SocketAddr, Result<AttemptAnswer, UpstreamError>)| {
            Some(format!("upstream {}: {address} answers {}", self.url, outcome.as_ref().ok()?.status))
        };
        self.outcomes.iter().filter_map(line)
    }

    /// Returns the attempts as JSON.
    fn json(&self) -> Value {
        let failure = |error: &UpstreamError| json!({ "error": error.to_string(), "hint": self.hint(error) });
        let answer = |answer: &AttemptAnswer| match answer.fault(self.has_tls) {
            Some(fault) => json!({ "status": answer.status, "warning": fault.line(), "hint": fault.hint_line() }),
            None => json!({ "status": answer.status }),
        };
        let outcome = |(address, outcome): &(SocketAddr, Result<AttemptAnswer, UpstreamError>)| {
            let mut value = outcome.as_ref().map_or_else(failure, answer);
            value["address"] = address.to_string().into();
            value
        };
        let mut value = self.lookup.as_ref().map_or_else(|| json!({}), failure);
        value["url"] = self.url.clone().into();
        value["reachable"] = (!self.is_unreachable()).into();
        value["addresses"] = self.outcomes.iter().map(outcome).collect();
        value
    }
}
