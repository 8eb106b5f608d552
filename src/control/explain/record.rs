//! A record of the access log in words: the end of its request or handshake, the reason, and the line of the limit behind
//! it. Then the decisions of the configuration in use about such a request.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::steps::ExplainStep;
use super::{DescribedRequest, limits};
use crate::config::Lines;
use crate::control::Control;
use crate::policy::Scheme;
use crate::policy::forwarded::{Peer, RequestField};
use crate::policy::rate::RateRule;
use crate::telemetry::access::{Ended, RecordField, Redact};
use crate::upstream::Upstream;

/// A request that took longer counts as one of a day, in milliseconds.
const DAY_MS: f64 = 86_400_000.0;

/// A record, and the places where its site and its limits are set.
struct ExplainedRecord<'a> {
    record: &'a Value,
    control: &'a Control,
    lines: Lines,
    site: Option<usize>,
}

impl Control {
    /// Explains the end of a record's request, and the decisions of the configuration in use about it.
    pub(in crate::control) async fn explain_record(&self, record: &Value, shows_secrets: bool) -> Value {
        let site = record["site"].as_str().and_then(|name| self.config.sites().position(|site| site.name() == name));
        let explained = ExplainedRecord { record, control: self, lines: self.draft.lines(site), site };
        let steps: Vec<Value> = explained.steps().iter().map(ExplainStep::json).collect();
        let (explanation, why_not) = match explained.asked() {
            Ok(asked) => match self.explain(&asked, shows_secrets).await {
                Ok(report) => (report, None),
                Err(reason) => (Value::Null, Some(reason.line())),
            },
            Err(why) => (Value::Null, Some(why)),
        };
        // The configuration of its begin has decided about it.
        let ended: Option<Timestamp> = text(record, "time").and_then(|time| time.parse().ok());
        let lasted =
            Duration::from_secs_f64(record["duration_ms"].as_f64().unwrap_or_default().clamp(0.0, DAY_MS) / 1e3);
        let began = ended.and_then(|ended| ended.checked_sub(lasted).ok());
        let is_older = began.is_some_and(|began| began < self.loads.changed);
        json!({
            "record": record,
            "steps": steps,
            "verdict": explained.verdict(),
            "notes": explained.notes(),
            "config": self.draft.path().display().to_string(),
            "config_changed": is_older.then(|| self.loads.changed.to_string()),
            "explanation": explanation,
            "why_no_explanation": why_not,
        })
    }
}

fn text<'r>(record: &'r Value, field: &str) -> Option<&'r str> {
    record[field].as_str()
}

/// A time as people read it.
fn millis(record: &Value, field: &str) -> Option<String> {
    let millis = record[field].as_f64()?;
    Some(if millis >= 1000.0 { format!("{:.2} s", millis / 1000.0) } else { format!("{millis:.1} ms") })
}

fn list(record: &Value, field: &str) -> String {
    let words = record[field].as_array().map(Vec::as_slice).unwrap_or_default();
    words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

impl ExplainedRecord<'_> {
    fn text(&self, field: &str) -> Option<&str> {
        text(self.record, field)
    }

    fn is_request(&self) -> bool {
        self.text("kind") == Some("request")
    }

    fn step(&self, name: &'static str, what: impl Into<String>, why: impl Into<String>, keys: &[&str]) -> ExplainStep {
        ExplainStep::new(name, what, why, self.lines.at(keys))
    }

    fn steps(&self) -> Vec<ExplainStep> {
        let mut steps = Vec::new();
        steps.extend(self.asked_for());
        steps.extend(self.client());
        steps.extend(self.tls());
        steps.extend(self.offered());
        if let Some(site) = self.text("site") {
            steps.push(self.step("site", site, "", &["site.hosts"]));
        }
        if self.is_request() {
            steps.extend(self.upstream());
            steps.extend(self.times());
        } else if let Some(time) = millis(self.record, "duration_ms") {
            steps.push(self.step("handshake", time, "from the accepted connection to the failure", &[]));
        }
        steps.push(self.end());
        steps
    }

    fn asked_for(&self) -> Option<ExplainStep> {
        if !self.is_request() {
            return None;
        }
        let method = self.text("method").unwrap_or("(method left out)");
        let version = self.text("version").map(|version| format!("HTTP/{version}")).unwrap_or_default();
        if method == "-" {
            return Some(self.step("request", "the head could not be read", version, &[]));
        }
        let scheme = self.text("scheme").map(|scheme| format!("{scheme}://")).unwrap_or_default();
        let (host, target) = (self.text("host").unwrap_or_default(), self.text("target").unwrap_or_default());
        let from = self.text("scheme_from").map(|from| format!("; scheme by {from}")).unwrap_or_default();
        Some(self.step("request", format!("{method} {scheme}{host}{target}"), format!("{version}{from}"), &[]))
    }

    fn client(&self) -> Option<ExplainStep> {
        let client = self.text("client")?;
        let (why, keys): (String, &[&str]) = match self.text("peer") {
            Some(peer) if peer != client => (format!("through {peer}"), &["listen.trusted_proxies"]),
            Some(_) => ("the peer of the connection".to_owned(), &[]),
            None => (String::new(), &[]),
        };
        Some(self.step("client", client, why, keys))
    }

    fn tls(&self) -> Option<ExplainStep> {
        let version = self.text("tls_version")?;
        let mut words = vec![format!("TLS {version}")];
        words.extend(["tls_cipher", "tls_group"].into_iter().filter_map(|field| self.text(field)).map(str::to_owned));
        words.extend(self.text("sni").map(|name| format!("SNI {name}")));
        words.extend(self.text("alpn").map(|alpn| format!("ALPN {alpn}")));
        let kind = match self.record["tls_resumed"].as_bool() {
            Some(true) => "resumed session",
            Some(false) => "full handshake",
            None => "handshake",
        };
        let time = millis(self.record, "handshake_ms").map(|time| format!(" in {time}")).unwrap_or_default();
        Some(self.step("TLS", words.join(", "), format!("{kind}{time}, once for the connection"), &[]))
    }

    /// The offers of a handshake that failed.
    fn offered(&self) -> Option<ExplainStep> {
        if self.is_request() {
            return None;
        }
        if let Some(count) = self.record["count"].as_u64() {
            let seconds = self.record["period_s"].as_u64().unwrap_or_default();
            return Some(self.step("handshakes", format!("{count} more of this network in {seconds} s"), "", &[]));
        }
        let name = self.text("sni").map_or_else(|| "no SNI".to_owned(), |name| format!("SNI {name}"));
        let offers = [("versions_offered", "TLS"), ("groups_offered", "groups"), ("alpn_offered", "ALPN")];
        let offers = offers.map(|(field, word)| (list(self.record, field), word));
        let offers: Vec<String> = offers
            .into_iter()
            .filter(|(list, _)| !list.is_empty())
            .map(|(list, word)| format!("{word} {list}"))
            .collect();
        Some(self.step("ClientHello", name, offers.join("; "), &[]))
    }

    fn upstream(&self) -> Vec<ExplainStep> {
        let Some(retries) = self.record["retries"].as_u64() else {
            let is_left_out = !self.control.config.snapshot.log.fields.has(RecordField::Retries);
            let what = if is_left_out { "left out by log.fields" } else { "not asked" };
            return vec![self.step("upstream", what, "", if is_left_out { &["log.fields"] } else { &[] })];
        };
        let connection = match self.record["upstream_reused"].as_bool() {
            Some(true) => "over a connection that existed",
            Some(false) => "over a new connection",
            None => "",
        };
        let address = self.text("upstream").unwrap_or("no address known");
        let tries = match retries {
            0 => "1 attempt, no retry".to_owned(),
            1 => "2 attempts, as 1 retry was made".to_owned(),
            more => format!("{} attempts, as {more} retries were made", more + 1),
        };
        let mut steps = vec![
            self.step("upstream", address, connection, &["site.upstream_options.connect", "site.upstream"]),
            self.step("attempts", tries, "", &[]),
        ];
        let times: [(&str, &'static str, &str, &[&str]); 4] = [
            ("wait_ms", "wait", "for a connection to the upstream", &["limits.upstream_queue_wait"]),
            ("connect_ms", "connect", "DNS and TCP", &["site.upstream_options.connect_timeout"]),
            ("tls_ms", "upstream TLS", "handshake with the upstream", &["site.upstream_options.connect_timeout"]),
            (
                "upstream_ms",
                "response",
                "from asking the upstream to the head of its response, or to its failure",
                &["site.upstream_options.response_timeout"],
            ),
        ];
        let known = times
            .into_iter()
            .filter_map(|(field, name, why, keys)| Some(self.step(name, millis(self.record, field)?, why, keys)));
        steps.extend(known);
        steps
    }

    fn times(&self) -> Vec<ExplainStep> {
        let mut steps = Vec::new();
        let times = [
            ("first_byte_ms", "first byte", "from the request's head to the beginning of the response"),
            ("duration_ms", "total", "from the request's head to the end of the response"),
        ];
        let known = times.into_iter().filter_map(|(field, name, why)| Some((name, millis(self.record, field)?, why)));
        steps.extend(known.map(|(name, time, why)| self.step(name, time, why, &[])));
        let bytes = |field: &str| self.record[field].as_u64();
        if let Some(sent) = bytes("bytes") {
            let received = bytes("received_bytes").map(|n| format!("{n} received")).unwrap_or_default();
            steps.push(self.step("body bytes", format!("{sent} sent"), received, &[]));
        }
        if let Some(status) = bytes("status") {
            let why = if status == 499 { "the client left before the response" } else { "" };
            steps.push(self.step("status", status.to_string(), why, &[]));
        }
        steps
    }

    /// The limit that was reached: its key, and its value in the configuration in use.
    fn limit(&self) -> Option<(String, String)> {
        let name = self.text("limit")?;
        if let Some(part) = limits::part_of_rule(name) {
            return Some(self.limit_of_rule(part));
        }
        let key = limits::key_of(name);
        let config = &self.control.config;
        let upstream: Option<&Upstream> = self.site.and_then(|at| config.snapshot.upstreams.get(at)?.as_deref());
        let shown =
            |key: &str| limits::value(&config.snapshot.limits, upstream, key).map(|value| format!("{key} = {value}"));
        let text = match name {
            // Both end a body that pauses or crawls.
            "body_progress" => {
                [shown(&key), shown("limits.body_rate")].into_iter().flatten().collect::<Vec<_>>().join(", ")
            }
            _ => shown(&key).unwrap_or_else(|| key.clone()),
        };
        Some((key, text))
    }

    /// The limit of a table of limits, which the record has by the table's name.
    fn limit_of_rule(&self, part: &str) -> (String, String) {
        let value = |rule: &&RateRule| limits::value_of_rule(rule, part, &self.lines);
        match self.rules().find_map(|rule| Some((rule, value(&rule)?))) {
            Some((rule, value)) => {
                let key = format!("{}.{part}", limits::written_key(rule, &self.lines));
                let text = format!("{key} = {value}");
                (key, text)
            }
            None => {
                let of = self.text("rule").map(|rule| format!(" ({rule})")).unwrap_or_default();
                (String::new(), format!("{part} of a table of limits{of} that the configuration in use lacks"))
            }
        }
    }

    /// The tables of limits that have the name in the record.
    fn rules(&self) -> impl Iterator<Item = &RateRule> {
        let rates = self.control.config.snapshot.rates.as_ref();
        let of_site = rates.zip(self.site).and_then(|(rates, site)| rates.sites.get(site)?.as_ref());
        let name = self.text("rule");
        of_site.into_iter().flat_map(|site| &site.rules).filter(move |rule| name == Some(&*rule.name))
    }

    /// The end, by its data.
    fn end(&self) -> ExplainStep {
        let mut why = Vec::new();
        why.extend(self.text("cause").map(|cause| format!("cause: {cause}")));
        why.extend(self.text("errno").map(|errno| format!("system error {errno}")));
        let from = if self.text("ended") == Some(Ended::Upstream.name()) { "the upstream" } else { "the client" };
        why.extend(self.text("alert_received").map(|alert| format!("TLS alert {alert} from {from}")));
        why.extend(self.text("alert_sent").map(|alert| format!("pintle sent the TLS alert {alert}")));
        why.extend(self.text("error").map(str::to_owned));
        let limit = self.limit();
        let what = match (&limit, self.how()) {
            (Some((_, limit)), how) => format!("{how}: limit reached, {limit}"),
            (None, how) => how.to_owned(),
        };
        // A table of limits that refuses without a limit denies the address.
        let denied = || self.rules().next().map(|rule| format!("{}.deny", limits::written_key(rule, &self.lines)));
        let key = limit.map(|(key, _)| key).or_else(denied).unwrap_or_default();
        self.step("end", what, why.join("; "), &[&key])
    }

    /// The words of `ended`.
    fn how(&self) -> &'static str {
        let ended = self.text("ended").unwrap_or_default();
        let is = |of: Ended| ended == of.name();
        match self.is_request() {
            _ if is(Ended::Limit) => "pintle ended it",
            _ if is(Ended::Upstream) => "the upstream failed",
            true if is(Ended::Complete) => "the whole response went out",
            true if is(Ended::Refused) => "pintle refused the request",
            true if is(Ended::Client) => "the client left",
            false if is(Ended::Client) => "the client broke the handshake off",
            false if is(Ended::Pintle) => "pintle broke the handshake off",
            false if !self.record["count"].is_null() => "several handshakes failed",
            _ => "unknown: log.fields leaves out ended",
        }
    }

    /// The end in one sentence.
    fn verdict(&self) -> String {
        let status = self.record["status"].as_u64().map(|status| format!("{status}: ")).unwrap_or_default();
        let reason = match self.limit() {
            Some((_, limit)) => format!(" ({limit})"),
            None => {
                let words = ["error", "cause", "alert_sent", "alert_received"];
                words.into_iter().find_map(|field| self.text(field)).map(|why| format!(" ({why})")).unwrap_or_default()
            }
        };
        format!("{status}{}{reason}", self.how())
    }

    /// The gaps of the record: cut, redacted and omitted fields.
    fn notes(&self) -> Vec<String> {
        let log = &self.control.config.snapshot.log;
        let Redact { query, client } = log.redact;
        let mut notes = Vec::new();
        let cut = list(self.record, "truncated");
        if !cut.is_empty() {
            notes.push(format!("cut in the record: {cut}"));
        }
        if query {
            notes.push("log.redact leaves queries out".to_owned());
        }
        if client {
            notes.push("log.redact shortens addresses of clients to the first one of the network".to_owned());
        }
        let left_out: Vec<&str> =
            RecordField::ALL.iter().filter(|field| !log.fields.has(**field)).map(|field| field.name()).collect();
        if !left_out.is_empty() {
            notes.push(format!("log.fields leaves out: {}", left_out.join(", ")));
        }
        notes
    }

    /// A request that leaves such a record. The reason if the record knows too little.
    fn asked(&self) -> Result<DescribedRequest, String> {
        let missing = |field: &str| format!("the record lacks {field}");
        if !self.is_request() {
            let name = self.text("sni").ok_or("the client sent no name")?;
            return Ok(DescribedRequest {
                url: format!("https://{name}/"),
                from: self.address("peer"),
                ..DescribedRequest::default()
            });
        }
        let method = self.text("method").ok_or_else(|| missing("method"))?;
        if method == "-" {
            return Err("the request's head could not be read".to_owned());
        }
        let host = self.text("host").filter(|host| !host.is_empty()).ok_or_else(|| missing("host"))?;
        let target = self.text("target").ok_or_else(|| missing("target"))?;
        if !target.starts_with('/') {
            return Err(format!("the target {target} is not a path"));
        }
        let scheme = self.text("scheme").ok_or_else(|| missing("scheme"))?;
        let has_tls = self.text("tls_version").is_some();
        if !has_tls && !self.control.config.snapshot.log.fields.has(RecordField::TlsVersion) {
            return Err(missing("tls_version"));
        }
        let mut asked = DescribedRequest {
            url: format!("{}://{host}{target}", if has_tls { "https" } else { "http" }),
            from: self.address("peer").or_else(|| self.address("client")),
            method: Some(method.to_owned()),
            sni: self.text("sni").map(str::to_owned),
            http2: self.text("version") == Some("2"),
            ..DescribedRequest::default()
        };
        for (field, name) in [("user_agent", "User-Agent"), ("referer", "Referer")] {
            asked.fields.extend(self.text(field).map(|value| (name.to_owned(), value.to_owned())));
        }
        self.add_stated_client(&mut asked, scheme);
        Ok(asked)
    }

    fn address(&self, field: &str) -> Option<IpAddr> {
        self.text(field)?.parse().ok()
    }

    /// Adds the client and the scheme that a trusted proxy states.
    fn add_stated_client(&self, asked: &mut DescribedRequest, scheme: &str) {
        let snapshot = &self.control.config.snapshot;
        let Some(from) = asked.from else { return };
        let peer = Peer::new(from, Scheme::Https, &snapshot.trust);
        let client = self.address("client").filter(|client| *client != from);
        if snapshot.proxy_protocol && peer.proxy.is_some() {
            let family = client.map(|client| if client.is_ipv4() { ("TCP4", "0.0.0.0") } else { ("TCP6", "::") });
            asked.proxy = Some(match (client, family) {
                (Some(client), Some((family, own))) => format!("PROXY {family} {client} {own} 1 1"),
                _ => "PROXY UNKNOWN".to_owned(),
            });
            return;
        }
        let states_scheme = self.text("scheme_from").is_some_and(|from| from != "listener");
        let mut add = |name: &str, value: String| asked.fields.push((name.to_owned(), value));
        match peer.believed {
            Some(RequestField::XForwarded) => {
                if let Some(client) = client {
                    add("X-Forwarded-For", client.to_string());
                }
                if states_scheme {
                    add("X-Forwarded-Proto", scheme.to_owned());
                }
            }
            Some(RequestField::Forwarded) => {
                let client = client.map(|client| match client {
                    IpAddr::V4(client) => format!("for={client}"),
                    IpAddr::V6(client) => format!("for=\"[{client}]\""),
                });
                let proto = states_scheme.then(|| format!("proto={scheme}"));
                let parameters: Vec<String> = client.into_iter().chain(proto).collect();
                if !parameters.is_empty() {
                    add("Forwarded", parameters.join(";"));
                }
            }
            None => {}
        }
    }
}
