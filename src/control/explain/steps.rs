//! The steps of a report: each decision, its reason, and the line behind it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Inputs, fields, limits, policies, text};
use crate::compression::{Coding, Identity};
use crate::control::status;
use crate::host::{FoundBy, HostPattern, both_forms};
use crate::message::Name;
use crate::mixed::media::RewriteKind;
use crate::policy::Scheme;
use crate::policy::forwarded::{Origin, RequestField, SchemeSource};
use crate::server::explain::{Chosen, Closed, Decided};
use crate::tls::{ChosenBy, alert};
use crate::upstream::{HostHeader, Upstream};

/// One step.
pub(super) struct ExplainStep {
    name: &'static str,
    what: String,
    why: String,
    at: Option<String>,
}

impl ExplainStep {
    pub(super) fn new(name: &'static str, what: impl Into<String>, why: impl Into<String>, at: Option<String>) -> Self {
        Self { name, what: what.into(), why: why.into(), at }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "step": self.name, "what": self.what, "why": self.why, "at": self.at })
    }
}

impl Inputs<'_> {
    /// Makes the report.
    pub(super) fn report(&self) -> Value {
        let found = self.found;
        let steps: Vec<Value> = self.steps().iter().map(ExplainStep::json).collect();
        let location = match &found.decision {
            Decided::Redirect(location) => Some(text(location)),
            _ => None,
        };
        let refusal = match &found.decision {
            Decided::Refuse { cause, kind } => Some(json!({ "cause": cause, "kind": kind })),
            _ => None,
        };
        let sent = found.sent.as_deref().map(|head| fields::sent(self, head));
        let named = |(name, value): &(String, String)| json!({ "name": name, "value": text(value.as_bytes()) });
        let pair = |(name, value): &(Vec<u8>, Vec<u8>)| json!({ "name": text(name), "value": text(value) });
        let answer = found.answer.as_ref().map(|answer| answer.fields.iter().map(pair).collect::<Vec<_>>());
        json!({
            "request": {
                "url": self.url.to_string(),
                "method": found.head.as_ref().map(|head| head.method.as_str()),
                "http_version": if self.asked.http2 { "2" } else { "1.1" },
                "from": self.question.from.to_canonical().to_string(),
                "listener": self.question.listener.as_str(),
                "fields": self.asked.fields.iter().map(named).collect::<Vec<_>>(),
            },
            "live": self.live.is_some(),
            "config": self.draft.path().display().to_string(),
            "steps": steps,
            "client": found.origin.as_ref().map(|origin| origin.client.to_string()),
            "scheme": found.origin.as_ref().map(|origin| origin.scheme.as_str()),
            "site": self.site.map(|site| site.name()),
            "decision": word(&found.decision),
            "status": found.answer.as_ref().map(|answer| answer.status),
            "location": location,
            "refusal": refusal,
            "upstream": self.upstream(),
            "upstream_request": sent,
            "request_fields": fields::of_request(self),
            "response": answer,
            "response_fields": fields::of_response(self),
            "policies": policies::json(self),
            "limits": limits::json(self),
            "verdict": self.verdict(),
        })
    }

    fn steps(&self) -> Vec<ExplainStep> {
        let mut steps = vec![self.listener()];
        steps.extend(self.proxy_header());
        steps.push(self.peer());
        steps.extend(self.found.certificate.as_ref().map(|chosen| self.certificate(chosen)));
        if let Some(origin) = &self.found.origin {
            steps.extend([self.scheme(origin), self.client(origin), self.site_step()]);
        }
        if self.found.head.is_some() {
            steps.extend([self.path(), self.redirect()]);
        }
        if let Decided::Forward(upstream) = &self.found.decision {
            steps.extend(self.upstream_steps(upstream));
        }
        steps
    }

    pub(super) fn step(
        &self,
        name: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        at: &[&str],
    ) -> ExplainStep {
        ExplainStep::new(name, what, why, self.lines.at(at))
    }

    fn listener(&self) -> ExplainStep {
        let scheme = self.question.listener;
        let key = if scheme == Scheme::Https { "listen.https" } else { "listen.http" };
        let own: Vec<String> =
            self.listening.iter().filter(|(_, own)| *own == scheme).map(|(address, _)| address.to_string()).collect();
        let kind = if scheme == Scheme::Https { "TLS" } else { "plain HTTP" };
        match own.as_slice() {
            [] => self.step("listener", format!("{kind}: none"), "no client can connect", &[key, "listen"]),
            all => self.step("listener", format!("{kind}: {}", all.join(", ")), "", &[key, "listen"]),
        }
    }

    fn proxy_header(&self) -> Option<ExplainStep> {
        let is_read = self.config.snapshot.proxy_protocol;
        let is_wanted = is_read && self.found.peer.proxy.is_some();
        if !is_wanted && self.question.proxy_header.is_some() {
            let why = match is_read {
                true => "only trusted peers send one; pintle takes the bytes of others for a request or for TLS",
                false => "listen.proxy_protocol is not set; pintle takes its bytes for a request or for TLS",
            };
            return Some(self.step("PROXY header", "left out of this answer", why, &["listen.proxy_protocol"]));
        }
        is_wanted.then(|| {
            let (what, why) = match self.found.proxied {
                None => ("missing or invalid".to_owned(), "trusted peers must send it first: --proxy gives one"),
                Some(None) => ("names no client".to_owned(), ""),
                Some(Some(source)) => (format!("names {source}"), ""),
            };
            self.step("PROXY header", what, why, &["listen.proxy_protocol"])
        })
    }

    fn peer(&self) -> ExplainStep {
        let peer = &self.found.peer;
        let keys = ["listen.trusted_proxies"];
        let Some(proxy) = peer.proxy else {
            let ignored = self.ignored_fields();
            let why = match ignored.is_empty() {
                true => "pintle believes no field of it".to_owned(),
                false => format!("its {} is ignored", ignored.join(", ")),
            };
            return self.step("peer", format!("{}, not trusted", peer.address), why, &keys);
        };
        let why = match peer.believed {
            Some(RequestField::XForwarded) => "pintle believes its X-Forwarded-For, -Proto and -Host",
            Some(RequestField::Forwarded) => "pintle believes its Forwarded",
            None => "pintle believes its PROXY header, and no field",
        };
        self.step("peer", format!("{proxy}, trusted"), why, &keys)
    }

    /// The fields of an untrusted peer that state a client or a scheme.
    fn ignored_fields(&self) -> Vec<&'static str> {
        let Some(head) = &self.found.head else { return Vec::new() };
        let fields = [
            (Name::XForwardedProto, "X-Forwarded-Proto"),
            (Name::XForwardedFor, "X-Forwarded-For"),
            (Name::Forwarded, "Forwarded"),
        ];
        fields.into_iter().filter(|(name, _)| head.fields.has(*name)).map(|(_, text)| text).collect()
    }

    fn certificate(&self, chosen: &Chosen) -> ExplainStep {
        let why = match (&chosen.name, chosen.by) {
            (Some(name), Some(ChosenBy::Name(FoundBy::Exact))) => format!("SNI {name}: by its exact name"),
            (Some(name), Some(ChosenBy::Name(FoundBy::Wildcard))) => format!("SNI {name}: by a wildcard"),
            (Some(name), _) => format!("SNI {name}: no site has it, so tls.unknown_name decides"),
            (None, Some(ChosenBy::Address)) => "no SNI: by the address".to_owned(),
            (None, Some(_)) => "no SNI: tls.unknown_name decides".to_owned(),
            (None, None) => "no SNI, from a trusted peer that may ask for the health".to_owned(),
        };
        let why = match (&chosen.outcome, chosen.by) {
            (Err(_), Some(ChosenBy::Name(_) | ChosenBy::Address)) => {
                format!("{why}; its site has no usable certificate")
            }
            _ => why,
        };
        let is_default = !matches!(chosen.by, Some(ChosenBy::Name(_) | ChosenBy::Address));
        let own = ["site.certificate.chain", "site.certificate[0].chain", "site.certificate.acme", "site.certificate"];
        let keys: &[&str] = if is_default { &["tls.default_site", "tls.unknown_name"] } else { &own };
        let what = match &chosen.outcome {
            Ok(set) => {
                let leaf = |c: &std::sync::Arc<crate::tls::Certificate>| {
                    format!("{} {}", c.chain.leaf.serial, c.chain.leaf.algorithm)
                };
                set.iter().map(leaf).collect::<Vec<_>>().join(" or ")
            }
            Err(alert) => format!("none: alert {alert}"),
        };
        self.step("certificate", what, why, keys)
    }

    fn scheme(&self, origin: &Origin) -> ExplainStep {
        let (why, keys): (String, &[&str]) = match (origin.scheme_from, origin.decided_by) {
            (SchemeSource::Field(field), _) => (format!("stated by {}", field.scheme_field()), &["listen.trust"]),
            (SchemeSource::Proxy, _) => ("stated by the PROXY header's TLS TLV".to_owned(), &["listen.proxy_protocol"]),
            (SchemeSource::Listener, Some(field)) => {
                (format!("the listener's: no {}", field.scheme_field()), &["listen.trust"])
            }
            (SchemeSource::Listener, None) => ("the listener's".to_owned(), &[]),
        };
        self.step("scheme", origin.scheme.as_str(), why, keys)
    }

    fn client(&self, origin: &Origin) -> ExplainStep {
        let hops: Vec<String> = origin.hops.iter().map(IpAddr::to_string).collect();
        let why = match hops.is_empty() {
            true => "the peer".to_owned(),
            false => format!("through {}", hops.join(", ")),
        };
        let keys: &[&str] = if hops.is_empty() { &[] } else { &["listen.trusted_proxies"] };
        self.step("client", origin.client.to_string(), why, keys)
    }

    fn site_step(&self) -> ExplainStep {
        let host = self.found.head.as_ref().map(|head| head.host().to_owned()).unwrap_or_default();
        let (Some(site), Some((_, by))) = (self.site, self.found.site) else {
            let what = if host.is_empty() { "none: no Host".to_owned() } else { format!("none for {host}") };
            return self.step("site", what, "no site has this host; tls.default_site chooses certificates only", &[]);
        };
        let is_it = |pattern: HostPattern| pattern.is_wildcard() == (by == FoundBy::Wildcard) && pattern.matches(&host);
        let at = site.hosts.iter().position(|pattern| HostPattern::parse(pattern).is_ok_and(is_it)).unwrap_or_default();
        let pattern = site.hosts.get(at).map(|pattern| both_forms(pattern)).unwrap_or_default();
        let kind = if by == FoundBy::Exact { "exact name" } else { "wildcard" };
        let key = format!("site.hosts[{at}]");
        self.step("site", both_forms(site.name()), format!("by {kind} {pattern}"), &[&key, "site.hosts"])
    }

    fn path(&self) -> ExplainStep {
        let (what, keys): (&str, &[&str]) = match &self.found.decision {
            Decided::Health => ("health of this process", &["listen.health_path"]),
            Decided::Challenge => ("ACME challenge", &["acme.webroot", "acme"]),
            Decided::Report => ("reports of failed pins", &["reports.path", "reports"]),
            Decided::MixedReport => ("reports of http references", &["site.mixed_content.mode", "site.mixed_content"]),
            Decided::Options => ("OPTIONS with Max-Forwards: 0", &[]),
            _ => ("not pintle's own", &[]),
        };
        self.step("path", what, "", keys)
    }

    fn redirect(&self) -> ExplainStep {
        let scheme = self.found.origin.as_ref().map(|origin| origin.scheme);
        match &self.found.decision {
            Decided::Redirect(_) if scheme == Some(Scheme::Http) => {
                self.step("redirect", "to https", "the scheme is http", &["listen.public_https_port"])
            }
            Decided::Redirect(_) => {
                self.step("redirect", "to the first host", "the host is another one", &["site.canonical_redirect"])
            }
            _ => self.step("redirect", "no", "", &[]),
        }
    }

    fn upstream_steps(&self, upstream: &Upstream) -> Vec<ExplainStep> {
        let option = |key: &str| format!("site.upstream_options.{key}");
        let names = self.site.and_then(|site| site.upstream.as_ref());
        let mut steps: Vec<ExplainStep> = Vec::new();
        if let Some(cache) = &self.found.cache {
            steps.push(self.step("cache", cache.step.word(), cache.why, &["site.cache"]));
        }
        steps.push(self.step("upstream", &*upstream.label, "", &["site.upstream"]));
        if let Some(names) = names {
            steps.push(self.step("connect", &names.connect, "", &[&option("connect"), "site.upstream"]));
            if let Some(name) = &names.server_name {
                let verified = names.verify_name.as_deref().map_or_else(
                    || "its certificate is not verified".to_owned(),
                    |verified| format!("its certificate must have {verified}"),
                );
                steps.push(self.step("SNI", name, verified, &[&option("server_name"), "site.upstream"]));
            }
        }
        let (host, by_default) = match &upstream.host_header {
            HostHeader::Client => ("the client's".to_owned(), "by default, as the upstream is an address"),
            HostHeader::Fixed(host) => (host.to_string(), "by default, as the upstream is a name"),
        };
        let key = option("host_header");
        let why = if self.lines.at(&[&key]).is_some() { "" } else { by_default };
        steps.push(self.step("Host", host, why, &[&key, "site.upstream"]));
        steps.extend(self.found.rewriting.map(|decided| self.rewriting(decided)));
        steps.extend(self.found.compression.map(|decided| self.compression(decided)));
        if self.live.is_some() {
            let health = status::health(upstream);
            let addresses = health["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
            let list: Vec<&str> = addresses.iter().filter_map(|address| address["address"].as_str()).collect();
            let known = if list.is_empty() { "no address known yet".to_owned() } else { list.join(", ") };
            let circuit = format!("circuit {}", health["circuit"].as_str().unwrap_or("-"));
            steps.push(self.step("health", circuit, known, &["site.circuit_breaker", "site.health_check"]));
        }
        steps
    }

    fn rewriting(&self, decided: Result<RewriteKind, &'static str>) -> ExplainStep {
        let keys = ["site.mixed_content.mode", "site.mixed_content"];
        match decided {
            Ok(kind) => self.step("references", "rewritten", format!("the body is {}", kind.name()), &keys),
            Err(why) => self.step("references", "stay", why, &["site.mixed_content.types", keys[0], keys[1]]),
        }
    }

    fn compression(&self, decided: Result<Coding, Identity>) -> ExplainStep {
        let keys: &[&str] = match decided {
            Ok(_) | Err(Identity::NotAccepted) => &["site.compression.encodings", "site.compression"],
            Err(Identity::Type) => &["site.compression.types", "site.compression"],
            Err(Identity::Small) => &["site.compression.min_size", "site.compression"],
            Err(Identity::Personal) => &["site.compression.personal", "site.compression"],
            Err(_) => &["site.compression"],
        };
        match decided {
            Ok(coding) => {
                self.step("compression", coding.name(), "by Accept-Encoding and the order of encodings", keys)
            }
            Err(why) => self.step("compression", "none", why.words(), keys),
        }
    }

    fn upstream(&self) -> Value {
        let Decided::Forward(upstream) = &self.found.decision else { return Value::Null };
        let names = self.site.and_then(|site| site.upstream.as_ref());
        json!({
            "url": upstream.label,
            "connect": names.map(|names| &names.connect),
            "server_name": names.and_then(|names| names.server_name.as_ref()),
            "verify_name": names.and_then(|names| names.verify_name.as_ref()),
            "host_header": match &upstream.host_header {
                HostHeader::Client => None,
                HostHeader::Fixed(host) => Some(host),
            },
            "health": self.live.is_some().then(|| status::health(upstream)),
        })
    }

    fn verdict(&self) -> String {
        let status = self.found.answer.as_ref().map(|answer| answer.status).unwrap_or_default();
        match &self.found.decision {
            Decided::Closed(Closed::NoProxyHeader) => "the connection is closed: no valid PROXY header".to_owned(),
            Decided::Closed(Closed::NoSuchName) => "no client can send this name in SNI".to_owned(),
            Decided::Closed(Closed::Reset(code)) => {
                let name = h2::Reason::from(*code);
                format!("pintle resets the stream with {name:?}: {name}")
            }
            Decided::Closed(Closed::Alert(number)) => {
                format!("TLS is refused with alert {number} ({})", alert::name(*number))
            }
            Decided::Redirect(location) => format!("{status} to {}", text(location)),
            Decided::Options => format!("{status}: the list of methods"),
            Decided::Health => format!("{status}: the health of this process"),
            Decided::Challenge => format!("{status}: the answer to the ACME challenge"),
            Decided::Report => format!("{status} if the body is a report of failed pins, else 400"),
            Decided::MixedReport => format!("{status} if the body is a report of http references, else 400"),
            Decided::Forward(upstream) => match &self.found.cache {
                Some(cache) if cache.is_answer() => "answered from the cache".to_owned(),
                Some(cache) if cache.is_open() => {
                    format!("answered from the cache if the disk has the page, else forwarded to {}", upstream.label)
                }
                _ => format!("forwarded to {}", upstream.label),
            },
            Decided::Refuse { cause, .. } => format!("{status}: {cause}"),
        }
    }
}

fn word(decision: &Decided) -> &'static str {
    match decision {
        Decided::Closed(_) => "closed",
        Decided::Redirect(_) => "redirect",
        Decided::Options => "options",
        Decided::Health => "health",
        Decided::Challenge => "challenge",
        Decided::Report | Decided::MixedReport => "report",
        Decided::Forward(_) => "forward",
        Decided::Refuse { .. } => "refuse",
    }
}
