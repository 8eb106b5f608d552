//! `pintle check --connect`: connects to each upstream once, as `run` would.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::config::Config;
use crate::reason::{Problem, Reason, Severity};
use crate::upstream::check::answer_of;
use crate::upstream::dns::{Addresses, NO_ANSWER, Resolver};
use crate::upstream::{HostHeader, Upstream, UpstreamError};

/// The number of upstreams that are tried at the same time.
const AT_ONCE: usize = 32;
/// The most addresses of one upstream that are tried.
const ADDRESSES_MAX: usize = 16;

/// The attempts at one upstream.
pub(super) struct UpstreamAttempts {
    /// Its URL in the configuration.
    pub(super) url: String,
    /// `true` if it has TLS.
    has_tls: bool,
    /// The outcome for each address: the status of the answer, or the error.
    outcomes: Vec<(SocketAddr, Result<u16, UpstreamError>)>,
    /// The error of the lookup, if there is no address.
    lookup: Option<UpstreamError>,
}

/// One upstream to try.
struct AttemptTarget {
    upstream: Arc<Upstream>,
    url: String,
    /// The host and the port to connect to.
    connect: String,
    /// The Host field.
    host: String,
}

/// Tries all upstreams, each once.
///
/// # Errors
///
/// If the system has no resources for it.
pub(super) fn try_all(config: &Config) -> Result<Vec<UpstreamAttempts>, Reason> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Reason::new(error.to_string()))?;
    let attempts = runtime.block_on(async {
        let resolver = Resolver::new(config.name_servers.clone());
        let targets = targets(config);
        stream::iter(targets.iter().map(|target| try_one(target, &resolver))).buffered(AT_ONCE).collect().await
    });
    // A lookup that still runs ends with the process.
    runtime.shutdown_background();
    Ok(attempts)
}

/// The upstreams of all sites; sites may share one.
fn targets(config: &Config) -> Vec<AttemptTarget> {
    let mut targets: Vec<AttemptTarget> = Vec::new();
    for (site, upstream) in config.sites().zip(&config.snapshot.upstreams) {
        let (Some(report), Some(upstream)) = (&site.upstream, upstream) else { continue };
        if targets.iter().any(|known| Arc::ptr_eq(&known.upstream, upstream)) {
            continue;
        }
        let host = match &upstream.host_header {
            HostHeader::Fixed(host) => host.to_string(),
            HostHeader::Client => site.hosts.first().map(|host| host.replace("*.", "www.")).unwrap_or_default(),
        };
        let (url, connect) = (report.url.clone(), report.connect.clone());
        targets.push(AttemptTarget { upstream: upstream.clone(), url, connect, host });
    }
    targets
}

async fn try_one(target: &AttemptTarget, resolver: &Resolver) -> UpstreamAttempts {
    let AttemptTarget { upstream, url, connect, host } = target;
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
            let ask = async |address| (address, answer_of(upstream, address, "/", host).await);
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

impl UpstreamAttempts {
    /// Returns `true` if no address answers.
    pub(super) fn is_unreachable(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| outcome.is_err())
    }

    /// Returns the failures. They are warnings if another address answers.
    pub(super) fn problems(&self) -> Vec<Problem> {
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
        lookup.chain(connect).collect()
    }

    fn hint(&self, error: &UpstreamError) -> Option<String> {
        match error {
            UpstreamError::Malformed(_) | UpstreamError::Closed(_) if !self.has_tls => {
                Some("check the port; if the upstream speaks TLS there, write https:// in upstream".to_owned())
            }
            _ => error.hint().map(str::to_owned),
        }
    }

    /// Returns the answers as lines: `192.0.2.1:443 answers 200`.
    pub(super) fn answers(&self) -> impl Iterator<Item = String> {
        self.outcomes
            .iter()
            .filter_map(|(address, outcome)| Some(format!("{address} answers {}", outcome.as_ref().ok()?)))
    }

    /// Returns the attempts as JSON.
    pub(super) fn json(&self) -> Value {
        let failure = |error: &UpstreamError| json!({ "error": error.to_string(), "hint": self.hint(error) });
        let outcome = |(address, outcome): &(SocketAddr, Result<u16, UpstreamError>)| {
            let mut value = outcome.as_ref().map_or_else(failure, |status| json!({ "status": status }));
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
