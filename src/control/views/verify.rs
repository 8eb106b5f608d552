//! The verdict of a strict client on a site of this process: `pintle verify`, over real connections to its own listeners.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::acme::request::ask;
use crate::admin::api::Answer;
use crate::control::Control;
use crate::control::admin::refusal::parameter;
use crate::control::admin::{AdminCommand, Answered, PageQuestion, PageRefusal};
use crate::host::bracketed;
use crate::policy::Scheme;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_word};
use crate::verify::chain::ClientTrust;
use crate::verify::client::VisitFailure;
use crate::verify::options::Options;
use crate::verify::target::{ConnectTo, Url};
use crate::verify::{json as report, trust, verify as visit};

/// The time limit of all visits together.
const VISITS_MAX: Duration = Duration::from_secs(60);
/// One verification at a time: each makes about ten connections.
static RUNNING: Semaphore = Semaphore::const_new(1);

/// Verifies the site of a host. Runs on the caller's thread, beside the workers that answer it. `roots` are certificates in
/// PEM to trust instead of Mozilla's; empty for those.
pub(in crate::control) async fn verify(query: &str, roots: &[u8], commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let trust = match trusted(roots) {
        Ok(trust) => trust,
        Err(reason) => return Answer::refused(StatusCode::BAD_REQUEST, &reason),
    };
    let host = parameter(query, "host");
    let question = PageQuestion::OwnPlace { host };
    let place = match ask(commands, |reply| AdminCommand::View { question, reply }).await {
        Some(Ok(place)) => place,
        Some(Err(refusal)) => return refusal.answer(),
        None => return Answer::gone(),
    };
    let Some(options) = options(&place, trust) else {
        let what = format!("{}: no URL can have this host", place["url"].as_str().unwrap_or_default());
        return Answer::refused(StatusCode::CONFLICT, &Reason::new(what).hint("ask about another host of the site"));
    };
    let Ok(_running) = RUNNING.try_acquire() else {
        let reason = Reason::new("another verification is under way").hint("ask again when it has ended");
        return Answer::refused(StatusCode::CONFLICT, &reason);
    };
    let (site, outside) = (&place["site"], outside(&options.url));
    let seen = match timeout(VISITS_MAX, visit(&options)).await {
        Ok(Ok(seen)) => report::report(&options, &seen),
        Ok(Err(failure)) if is_forbidden(&failure) => {
            return Answer::refused(StatusCode::CONFLICT, &forbidden(&outside));
        }
        Ok(Err(failure)) => report::unreachable(&options, &failure),
        Err(_) => {
            let what = format!("the visits took longer than {} seconds", VISITS_MAX.as_secs());
            return Answer::refused(StatusCode::GATEWAY_TIMEOUT, &Reason::new(what).hint(outside));
        }
    };
    let mut body = seen;
    body["site"] = site.clone();
    body["command"] = json!(outside);
    Answer::json(StatusCode::OK, body)
}

fn trusted(roots: &[u8]) -> Result<ClientTrust, Reason> {
    match roots.trim_ascii() {
        [] => Ok(trust::of_browsers()),
        roots => trust::of_file(roots, Path::new("roots"), "send certificates in PEM: roots, or the site's own"),
    }
}

fn options(place: &Value, trust: ClientTrust) -> Option<Options> {
    let url: Url = place["url"].as_str()?.parse().ok()?;
    let connect = |name: &str| place[name].as_str().and_then(|text| text.parse::<ConnectTo>().ok());
    let (connect, connect_http) = (Some(connect("https")?), connect("http"));
    url.server_name()?;
    Some(Options { url, connect, connect_http, trust, pins: None, now: Timestamp::now() })
}

/// The command for a look from outside.
fn outside(url: &Url) -> String {
    format!("pintle verify {}", shell_word(&url.to_string()))
}

/// `true` if the sandbox of this process forbids the connection.
fn is_forbidden(failure: &VisitFailure) -> bool {
    matches!(failure, VisitFailure::Connect(_, error) if error.kind() == ErrorKind::PermissionDenied)
}

fn forbidden(outside: &str) -> Reason {
    let what = "the sandbox of this process permits no connection to its own port, which is newer than the process";
    Reason::new(what).command(pintle("upgrade")).hint(outside.to_owned())
}

/// The address at which a listener is reached from this host.
fn near(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A host that a pattern matches.
fn example(pattern: &str) -> String {
    match pattern.strip_prefix("*.") {
        Some(rest) => format!("www.{rest}"),
        None => pattern.to_owned(),
    }
}

impl Control {
    /// The URL of a host, and where this process serves it.
    pub(super) fn own_place(&self, host: &str) -> Answered {
        let site = self.config.sites().nth(self.index_of(host)?).ok_or_else(|| PageRefusal::no_site(host))?;
        let refused = |reason| PageRefusal::new(StatusCode::CONFLICT, "refused", reason);
        let at = |scheme: Scheme| {
            let listening = self.listening().iter().filter(|(_, of)| *of == scheme).map(|(address, _)| near(*address));
            // Loopback is reached whatever a firewall says.
            listening.min_by_key(|address| !address.ip().is_loopback())
        };
        let Some(https) = at(Scheme::Https) else {
            return Err(refused(Reason::new("pintle does not listen for https").hint("https in [listen]")));
        };
        let snapshot = &self.config.snapshot;
        let port = snapshot.public_https_port.unwrap_or_else(|| https.port());
        let url = format!("https://{}:{port}/", bracketed(&example(host)));
        if snapshot.proxy_protocol && snapshot.trust.contains(https.ip()) {
            let what = format!("pintle expects a PROXY header from {}, and a client sends none", https.ip());
            return Err(refused(Reason::new(what).hint(format!("from another host: pintle verify {url}"))));
        }
        Ok(json!({
            "site": site.name(), "url": url, "https": https.to_string(),
            "http": at(Scheme::Http).map(|address| address.to_string()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_own_listeners() {
        for (bound, reached) in [
            ("0.0.0.0:443", "127.0.0.1:443"),
            ("[::]:8443", "[::1]:8443"),
            ("192.0.2.1:443", "192.0.2.1:443"),
            ("127.0.0.1:1", "127.0.0.1:1"),
        ] {
            assert_eq!(near(bound.parse().unwrap()), reached.parse().unwrap(), "{bound}");
        }
        assert_eq!((example("*.a.example").as_str(), example("a.example").as_str()), ("www.a.example", "a.example"));
    }

    #[test]
    fn roots_of_a_call() {
        assert!(trusted(b" \n").unwrap().file.is_none());
        assert!(!trusted(b"nothing").unwrap_err().hints.is_empty());
    }
}
