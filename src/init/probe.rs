//! The requests: at most eight GETs, without cookies, each with a time limit and a bounded body.
//! Redirects are recorded and not followed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::{Instant, timeout};

use super::answer::{ProbeOutcome, SHOWN, UpstreamAnswer};
use super::choose::{HostChoice, UpstreamChoice, choose};
use super::evidence::{CertificateEvidence, Evidence};
use super::fingerprint::identify;
use super::platform::Platform;
use super::text::clean;
use crate::host::bare;
use crate::policy::Scheme;
use crate::verify::chain::{ClientTrust, Distrust, SeenChain};
use crate::verify::client::{KeyTypes, VisitFailure, VisitResponse, addresses, connect, exchange, handshake};
use crate::verify::target::{ConnectTo, Url, default_port};

/// The most requests to a blog.
pub const REQUESTS_MAX: usize = 8;
/// The most bytes of a body that are read.
const BODY_MAX: usize = 256 * 1024;
/// The time limit for each step: a connection with its handshake, a head, a body.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time limit for all requests together.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(30);
/// The program's name in the server's log.
const USER_AGENT: &str = concat!("pintle-init/", env!("CARGO_PKG_VERSION"));

/// A blog to look at.
#[derive(Debug, Clone)]
pub struct BlogTarget {
    /// Its URL.
    pub url: Url,
    /// The address to connect to instead of DNS.
    pub connect: Option<ConnectTo>,
    /// The address of plain HTTP.
    pub connect_http: Option<ConnectTo>,
    /// The certificates to trust.
    pub trust: ClientTrust,
    /// The time at which certificates must be valid.
    pub now: Timestamp,
}

impl BlogTarget {
    /// Returns the place that answers over this scheme. `None` if there is none to ask: the URL names
    /// a port of its own, which speaks one scheme only.
    #[must_use]
    pub fn place(&self, scheme: Scheme) -> Option<ConnectTo> {
        let named = self.connect.clone();
        let own = ConnectTo { host: bare(&self.url.host).to_owned(), port: Some(self.url.port) };
        let is_default = |port: u16| port == default_port(self.url.scheme);
        let of_url = match named {
            Some(ConnectTo { host, port }) => ConnectTo { host, port: Some(port.unwrap_or(self.url.port)) },
            None => own,
        };
        if scheme == Scheme::Http && self.connect_http.is_some() {
            return self
                .connect_http
                .clone()
                .map(|place| ConnectTo { port: Some(place.port.unwrap_or_else(|| default_port(scheme))), ..place });
        }
        if scheme == self.url.scheme {
            return Some(of_url);
        }
        let port = Some(default_port(scheme));
        of_url.port.is_some_and(is_default).then_some(ConnectTo { host: of_url.host, port })
    }
}

/// Sends the requests.
pub struct Prober<'a> {
    target: &'a BlogTarget,
    asked: usize,
    end: Instant,
}

/// One request.
struct ProbeRequest<'a> {
    scheme: Scheme,
    /// The Host field, and the target.
    url: Url,
    /// The name in SNI.
    sni: Option<ServerName<'static>>,
    /// More fields, each with its CRLF.
    fields: &'a str,
}

impl<'a> Prober<'a> {
    /// Begins.
    #[must_use]
    pub fn new(target: &'a BlogTarget) -> Self {
        Self { target, asked: 0, end: Instant::now() + PATIENCE_IN_ALL }
    }

    /// Asks for the start page under the blog's own name, over https and http.
    ///
    /// # Errors
    ///
    /// The reason, if the server cannot be reached.
    pub async fn first(&mut self) -> Result<Evidence, String> {
        let mut evidence = Evidence::new(self.target.url.clone());
        let name = evidence.url.server_name();
        let (look, shown) = self.ask(&self.request(Scheme::Https, name.clone(), "")).await;
        evidence.secure = look;
        if let (Some((address, chain)), Some(name)) = (&shown, &name) {
            evidence.secure_address = Some(*address);
            let distrust = self.distrust(chain, name);
            evidence.is_misnamed = distrust.as_ref().is_some_and(|distrust| distrust.check == "certificate-name");
            evidence.certificate = verdict(distrust);
        }
        let (look, shown) = self.ask(&self.request(Scheme::Http, None, "")).await;
        evidence.plain = look;
        evidence.plain_address = shown.map(|(address, _)| address);
        evidence.requests = self.asked;
        let is_lost = |look: &ProbeOutcome| {
            matches!(look, ProbeOutcome::NotAsked | ProbeOutcome::Failed { unreachable: true, .. })
        };
        if is_lost(&evidence.secure) && is_lost(&evidence.plain) {
            let looks = [("https", &evidence.secure), ("http", &evidence.plain)];
            let reasons = looks.iter().filter_map(|(scheme, look)| match look {
                ProbeOutcome::Failed { why, .. } => Some(format!("{scheme}: {why}")),
                _ => None,
            });
            return Err(reasons.collect::<Vec<_>>().join("; "));
        }
        Ok(evidence)
    }

    /// Asks for the rest, once the site's names are known. Returns the choice that the rehearsal was
    /// made with.
    pub async fn rest(&mut self, evidence: &mut Evidence) -> UpstreamChoice {
        let is_secure = evidence.secure.answer().is_some();
        if is_secure || evidence.plain.answer().is_some() {
            self.foreign(evidence, if is_secure { Scheme::Https } else { Scheme::Http }).await;
        }
        if evidence.plain.answer().is_some() {
            let ask = self.request(Scheme::Http, None, "X-Forwarded-Proto: https\r\n");
            evidence.declared = self.ask(&ask).await.0;
        }
        let choice = choose(evidence);
        let has_answer = match choice.scheme.value {
            Scheme::Https => is_secure,
            Scheme::Http => evidence.plain.answer().is_some(),
        };
        if has_answer {
            evidence.rehearsal = self.as_pintle(evidence, &choice, &self.target.url.target.clone()).await;
            let robots = Url { target: "/robots.txt".into(), ..self.target.url.clone() };
            evidence.robots = self.page(&choice, evidence, &robots.target).await;
            if let Some(feed) = feed_of(evidence) {
                evidence.feed = self.page(&choice, evidence, &feed).await;
            }
            if identify(evidence).platform == Some(Platform::WordPress) {
                evidence.login = self.as_pintle(evidence, &choice, "/wp-login.php").await;
            }
        }
        evidence.requests = self.asked;
        choice
    }

    /// Asks for the public name. An address has no name in SNI, so the public one is sent.
    async fn foreign(&mut self, evidence: &mut Evidence, scheme: Scheme) {
        if evidence.is_own_public() {
            return;
        }
        let public = ServerName::try_from(evidence.public.clone()).ok();
        let sni = if evidence.url.address().is_some() { public.clone() } else { evidence.url.server_name() };
        // Without TLS, an answer to a visitor by http would only be a redirect.
        let fields = if scheme == Scheme::Http { "X-Forwarded-Proto: https\r\n" } else { "" };
        let mut ask = self.request(scheme, sni.clone(), fields);
        ask.url = public_url(ask.url, evidence);
        let (look, shown) = self.ask(&ask).await;
        evidence.foreign = look;
        if let (Some((_, chain)), true, Some(name)) = (shown, scheme == Scheme::Https && sni == public, public) {
            evidence.foreign_certificate = verdict(self.distrust(&chain, &name));
        }
    }

    /// Asks as pintle will ask for its clients.
    async fn as_pintle(&mut self, evidence: &Evidence, choice: &UpstreamChoice, target: &str) -> ProbeOutcome {
        let public = &evidence.public;
        let fields = format!("X-Forwarded-Proto: https\r\nX-Forwarded-Host: {public}\r\nVia: 1.1 pintle\r\n");
        self.chosen(choice, evidence, target, &fields).await
    }

    async fn page(&mut self, choice: &UpstreamChoice, evidence: &Evidence, target: &str) -> ProbeOutcome {
        self.chosen(choice, evidence, target, "X-Forwarded-Proto: https\r\n").await
    }

    async fn chosen(
        &mut self,
        choice: &UpstreamChoice,
        evidence: &Evidence,
        target: &str,
        fields: &str,
    ) -> ProbeOutcome {
        let public = || ServerName::try_from(evidence.public.clone()).ok();
        let sni = if evidence.url.address().is_some() { public() } else { evidence.url.server_name() };
        let mut ask = self.request(choice.scheme.value, sni, fields);
        if choice.host.value == HostChoice::Client {
            ask.url = public_url(ask.url, evidence);
        }
        ask.url.target = target.to_owned();
        self.ask(&ask).await.0
    }

    /// A request for the start page under the own name.
    fn request<'f>(&self, scheme: Scheme, sni: Option<ServerName<'static>>, fields: &'f str) -> ProbeRequest<'f> {
        ProbeRequest { scheme, url: self.target.url.over(scheme), sni, fields }
    }

    fn distrust(&self, chain: &[CertificateDer<'static>], name: &ServerName<'_>) -> Option<Distrust> {
        let BlogTarget { trust, now, .. } = self.target;
        SeenChain::examine(chain, trust, name, *now).distrust
    }

    /// Sends a request, unless there were enough or too little time is left.
    async fn ask(&mut self, ask: &ProbeRequest<'_>) -> (ProbeOutcome, Option<Shown>) {
        let Some(place) = self.target.place(ask.scheme) else { return (ProbeOutcome::NotAsked, None) };
        let left = self.end.saturating_duration_since(Instant::now());
        if self.asked >= REQUESTS_MAX || left.is_zero() || (ask.scheme == Scheme::Https && ask.sni.is_none()) {
            return (ProbeOutcome::NotAsked, None);
        }
        self.asked += 1;
        let mut shown = None;
        let asking = send(ask, &place, PATIENCE.min(left), &mut shown);
        let look = match timeout(left, asking).await {
            Ok(Ok(response)) => ProbeOutcome::Answered(Box::new(UpstreamAnswer::new(ask.url.clone(), response))),
            Ok(Err(failure)) => ProbeOutcome::Failed {
                why: clean(failure.to_string().as_bytes(), 2 * SHOWN),
                unreachable: failure.is_unreachable() || failure.is_not_tls(),
            },
            Err(_) => ProbeOutcome::Failed { why: "the time was up".into(), unreachable: false },
        };
        (look, shown)
    }
}

fn verdict(distrust: Option<Distrust>) -> CertificateEvidence {
    match distrust {
        None => CertificateEvidence::Trusted,
        Some(distrust) => CertificateEvidence::Refused(clean(distrust.message.as_bytes(), 2 * SHOWN)),
    }
}

/// The URL with the Host field of visitors: they come to pintle's port, not to that of the blog.
fn public_url(url: Url, evidence: &Evidence) -> Url {
    Url { host: evidence.public.clone(), port: default_port(url.scheme), ..url }
}

/// The address that answered, and its chain.
type Shown = (SocketAddr, Vec<CertificateDer<'static>>);

async fn send(
    ask: &ProbeRequest<'_>,
    place: &ConnectTo,
    patience: Duration,
    shown: &mut Option<Shown>,
) -> Result<VisitResponse, VisitFailure> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept: text/html, */*;q=0.8\r\n\
         Accept-Encoding: identity\r\n{}Connection: close\r\n\r\n",
        ask.url.target,
        ask.url.authority(),
        ask.fields
    );
    let slow = |step| move |_| VisitFailure::Timeout(step, patience);
    let all = addresses(place, ask.url.port).await?;
    let (address, mut socket) = timeout(patience, connect(&all, 0)).await.map_err(slow("connecting"))??;
    *shown = Some((address, Vec::new()));
    let Some(name) = ask.sni.as_ref().filter(|_| ask.scheme == Scheme::Https) else {
        return exchange(&mut socket, request.as_bytes(), BODY_MAX, patience).await;
    };
    let secured = timeout(patience, handshake(address, socket, name, KeyTypes::Any)).await;
    let (hand, mut stream) = secured.map_err(slow("the TLS handshake"))??;
    *shown = Some((address, hand.certificates));
    exchange(&mut stream, request.as_bytes(), BODY_MAX, patience).await
}

/// The feed that the start page names, if it is the blog's own.
fn feed_of(evidence: &Evidence) -> Option<String> {
    let pages = [&evidence.rehearsal, &evidence.secure, &evidence.plain];
    let page = pages.into_iter().filter_map(ProbeOutcome::answer).find(|answer| answer.is_page())?;
    let feed = page.url.join(std::str::from_utf8(page.page.feed()?).ok()?)?;
    let is_own = feed.host == evidence.url.host || evidence.is_public(&feed.host);
    is_own.then_some(feed.target)
}

/// Returns an address as it is written in a configuration.
#[must_use]
pub fn written(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => format!("{ip}:{}", address.port()),
        IpAddr::V6(ip) => format!("[{ip}]:{}", address.port()),
    }
}
