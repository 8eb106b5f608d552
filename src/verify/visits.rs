//! The visits: all requests to a server, in their order.

use std::net::SocketAddr;

use futures_util::future::join_all;
use rustls::pki_types::ServerName;

use super::chain::SeenChain;
use super::client::{self, Handshake, KeyTypes, VisitFailure, VisitResponse};
use super::hello::{HelloAnswer, TlsVersion, UNRECOGNIZED_NAME};
use super::judge::redirect::{Plain, leads_to};
use super::judge::versions::VersionResult;
use super::notes::NotedVisit;
use super::options::Options;
use super::target::{ConnectTo, Url};
use crate::host::bare;
use crate::message::Name;
use crate::policy::Scheme;

/// The most redirects on the same host that are followed to find the page.
const REDIRECTS_MAX: usize = 5;
/// The https port and the http port of application servers and `pintle demo`: the http port is
/// tried if port 80 is closed.
const ALTERNATE_PORTS: (u16, u16) = (8443, 8080);

/// One visit: a connection, its chain, and the response to one request.
#[derive(Debug)]
pub(super) struct Visit {
    pub handshake: Handshake,
    pub chain: SeenChain,
    pub response: Result<VisitResponse, VisitFailure>,
}

impl Visit {
    /// Returns the facts that policies depend on.
    pub(super) fn seen(&self, url: &Url) -> NotedVisit<'_> {
        let values = |name| self.response.as_ref().map(|r| r.values(name)).unwrap_or_default();
        NotedVisit {
            host_is_address: url.address().is_some(),
            secure: self.chain.distrust.is_none(),
            path: self.chain.pins(),
            sts: values(Name::StrictTransportSecurity),
            pkp: values(Name::PublicKeyPins),
        }
    }
}

/// The page of a visit, or the reason why it was not reached.
#[derive(Debug)]
pub(super) struct Landing {
    /// The URL after all redirects on the same host.
    pub url: Url,
    /// The target of a redirect that leads elsewhere; it is not followed.
    pub elsewhere: Option<Url>,
    /// The last response, unless it is the first visit's.
    pub response: Option<Result<VisitResponse, VisitFailure>>,
}

/// The results of all visits.
#[derive(Debug)]
pub(super) struct GatheredVisits {
    pub address: SocketAddr,
    pub first: Result<Visit, VisitFailure>,
    pub second: Option<Result<Visit, VisitFailure>>,
    pub other: Option<SeenChain>,
    pub landing: Option<Landing>,
    pub versions: Vec<VersionResult>,
    pub plain_url: Url,
    pub plain: Plain,
}

/// Makes all visits.
///
/// # Errors
///
/// [`VisitFailure`], if nothing listens there. Later failures are part of the result.
pub(super) async fn gather(options: &Options) -> Result<GatheredVisits, VisitFailure> {
    let default = ConnectTo { host: bare(&options.url.host).to_owned(), port: None };
    let place = options.connect.as_ref().unwrap_or(&default);
    let addresses = client::addresses(place, options.url.port).await?;
    let name =
        options.url.server_name().ok_or_else(|| VisitFailure::Http("no certificate can have that name".into()))?;
    let visitor = Visitor { options, addresses, name };

    // The two visits come first, with nothing between them: the server may react to the number of
    // visits.
    let first = visitor.visit(0, &options.url).await;
    let first = match first {
        Err(failure) if failure.is_unreachable() => return Err(failure),
        other => other,
    };
    let second = match &first {
        Ok(_) => Some(visitor.visit(1, &options.url).await),
        Err(_) => None,
    };
    let other = match &first {
        Ok(visit) => visitor.other_kind(visit).await,
        Err(_) => None,
    };
    let landing = match first.as_ref().map(|visit| &visit.response) {
        Ok(Ok(response)) => Some(visitor.land(response).await),
        _ => None,
    };
    let versions = visitor.versions(first.as_ref().ok()).await;
    let (plain_url, plain) = visitor.plain().await;
    Ok(GatheredVisits { address: visitor.addresses[0], first, second, other, landing, versions, plain_url, plain })
}

struct Visitor<'a> {
    options: &'a Options,
    addresses: Vec<SocketAddr>,
    name: ServerName<'static>,
}

impl Visitor<'_> {
    async fn visit(&self, nth: usize, url: &Url) -> Result<Visit, VisitFailure> {
        let (address, socket) = client::connect(&self.addresses, nth).await?;
        let (handshake, mut stream) = client::handshake(address, socket, &self.name, KeyTypes::Any).await?;
        let chain = self.examine(&handshake);
        let response = client::get(&mut stream, url).await;
        Ok(Visit { handshake, chain, response })
    }

    fn examine(&self, handshake: &Handshake) -> SeenChain {
        SeenChain::examine(&handshake.certificates, &self.options.trust, &self.name, self.options.now)
    }

    /// Returns the chain for clients that accept only the other kind of key, if there is one.
    async fn other_kind(&self, first: &Visit) -> Option<SeenChain> {
        let keys = if first.chain.is_rsa() { KeyTypes::Elliptic } else { KeyTypes::Rsa };
        let (address, socket) = client::connect(&self.addresses, 0).await.ok()?;
        let (handshake, _) = client::handshake(address, socket, &self.name, keys).await.ok()?;
        let chain = self.examine(&handshake);
        (chain.leaf_pin() != first.chain.leaf_pin()).then_some(chain)
    }

    /// Returns the versions that the server offers, each requested alone. The version of the first
    /// visit counts as offered in any case.
    async fn versions(&self, first: Option<&Visit>) -> Vec<VersionResult> {
        let negotiated = first.and_then(|v| v.handshake.version);
        // In parallel: a server that does not answer costs one timeout.
        let probes = TlsVersion::ALL.map(|version| client::probe(&self.addresses, &self.options.url.host, version));
        let answers = join_all(probes).await;
        let offer = |(version, answer): (TlsVersion, Result<HelloAnswer, VisitFailure>)| match answer {
            _ if negotiated == Some(version) => VersionResult { version, offered: Some(true), unknown: None },
            // A server that refuses the name says nothing about versions.
            Ok(HelloAnswer::Alert(UNRECOGNIZED_NAME)) if first.is_none() => {
                let why = "the server does not serve this name".to_owned();
                VersionResult { version, offered: None, unknown: Some(why) }
            }
            Ok(answer) => VersionResult { version, offered: Some(answer.accepts(version)), unknown: None },
            Err(failure) => VersionResult { version, offered: None, unknown: Some(failure.to_string()) },
        };
        TlsVersion::ALL.into_iter().zip(answers).map(offer).collect()
    }

    /// Follows redirects on the same host.
    async fn land(&self, first: &VisitResponse) -> Landing {
        let mut landing = Landing { url: self.options.url.clone(), elsewhere: None, response: None };
        for _ in 0..REDIRECTS_MAX {
            let current = match &landing.response {
                None => first,
                Some(Ok(response)) => response,
                Some(Err(_)) => break,
            };
            let Some(target) = leads_to(&landing.url, current) else { break };
            if target.authority() != landing.url.authority() || target.scheme != landing.url.scheme {
                landing.elsewhere = Some(target);
                break;
            }
            landing.response = Some(self.visit(0, &target).await.and_then(|visit| visit.response));
            landing.url = target;
        }
        landing
    }

    /// Requests the page by plain HTTP, at `--connect-http` or at port 80 of the TLS server.
    async fn plain(&self) -> (Url, Plain) {
        let url = self.plain_url(80);
        if let Some(place) = &self.options.connect_http {
            return match client::addresses(place, 80).await {
                Ok(addresses) => self.ask_plain(&addresses, url).await,
                Err(failure) => (url, Plain::Failed(failure)),
            };
        }
        let at = |port| self.addresses.iter().map(|a| SocketAddr::new(a.ip(), port)).collect::<Vec<_>>();
        let answer = self.ask_plain(&at(80), url).await;
        let secure = self.addresses.first().map(SocketAddr::port);
        if matches!(answer.1, Plain::Refused) && secure == Some(ALTERNATE_PORTS.0) {
            let alternate = self.ask_plain(&at(ALTERNATE_PORTS.1), self.plain_url(ALTERNATE_PORTS.1)).await;
            if !matches!(alternate.1, Plain::Refused) {
                return alternate;
            }
        }
        answer
    }

    /// Returns the http URL that corresponds to ours. If https has a port of its own, http has the
    /// port of `--connect-http`, or the guessed one.
    fn plain_url(&self, guess: u16) -> Url {
        let likely = self.options.connect_http.as_ref().and_then(|place| place.port).unwrap_or(guess);
        let port = if self.options.url.port == 443 { 80 } else { likely };
        Url { scheme: Scheme::Http, port, ..self.options.url.clone() }
    }

    async fn ask_plain(&self, addresses: &[SocketAddr], url: Url) -> (Url, Plain) {
        let mut socket = match client::connect(addresses, 0).await {
            Ok((_, socket)) => socket,
            Err(failure) if failure.is_refused() => return (url, Plain::Refused),
            Err(failure) => return (url, Plain::Failed(failure)),
        };
        let plain = match client::get(&mut socket, &url).await {
            Ok(response) => Plain::Answered(response),
            Err(failure) => Plain::Failed(failure),
        };
        (url, plain)
    }
}
