//! The other parts of the page of a site.

use serde_json::Value;

use crate::admin::page::moment::{DAY, Moment, duration};
use crate::admin::page::value::{WayOut, count, figure, list, some, text, texts, ways_out};
use crate::reason::counted;

/// A present problem, with its ways out.
pub(super) struct SiteNotice {
    pub(super) level: &'static str,
    pub(super) what: String,
    pub(super) since: Option<Moment>,
    /// A pair in use keeps serving meanwhile.
    pub(super) keeps: bool,
    pub(super) ways: Vec<WayOut>,
}

/// A fact above the fold.
pub(super) struct SiteFact {
    pub(super) label: &'static str,
    pub(super) figure: String,
    pub(super) note: String,
    pub(super) class: &'static str,
}

/// A certificate of a chain.
pub(super) struct ChainLink {
    pub(super) name: String,
    pub(super) ends: Option<Moment>,
    pub(super) note: String,
    pub(super) is_leaf: bool,
    pub(super) is_unsent: bool,
}

/// A policy header.
pub(super) struct SentHeader {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) why_not: Option<String>,
}

/// The upstream and its health.
pub(super) struct UpstreamView {
    pub(super) url: String,
    pub(super) level: &'static str,
    pub(super) state: &'static str,
    pub(super) note: String,
    pub(super) addresses: Vec<UpstreamAddress>,
}

/// An address of the upstream.
pub(super) struct UpstreamAddress {
    pub(super) address: String,
    pub(super) state: String,
    pub(super) class: &'static str,
}

/// The plan of a certificate that pintle obtains.
pub(super) struct PlannedRenewal {
    pub(super) words: String,
    pub(super) hint: Option<WayOut>,
}

/// A report of pins that did not match.
pub(super) struct PinReport {
    pub(super) at: Moment,
    pub(super) host: String,
    pub(super) note: String,
}

/// `2026-11-26`
pub(super) fn date_of(moment: &Moment) -> String {
    moment.iso.get(..10).unwrap_or_default().to_owned()
}

/// The problems of the site: refusals, pins that are withheld, open tasks.
pub(super) fn notices(site: &Value, now: i64) -> Vec<SiteNotice> {
    let mut found = Vec::new();
    let refused = &site["refused"];
    let keeps = !list(site, "certificates").is_empty();
    for reason in list(refused, "reasons") {
        let what = format!("A certificate was refused: {}", text(reason, "reason"));
        let since = Moment::of(&refused["since"], now);
        found.push(SiteNotice { level: "bad", what, since, keeps, ways: ways_out(reason) });
    }
    let mut add = |level, what: String, hints: Vec<String>| {
        let ways = hints.into_iter().map(WayOut::sentence).collect();
        found.push(SiteNotice { level, what, since: None, keeps, ways });
    };
    if ["open", "half-open"].iter().any(|circuit| site["upstream_health"]["circuit"] == *circuit) {
        let hint = "Start it, or mend upstream in the configuration. pintle tries again by itself.".to_owned();
        add("bad", "The upstream fails: requests get 503".to_owned(), vec![hint]);
    }
    if let Some(error) = some(site, "ledger_error") {
        let hint = "Check free space and permissions of state.directory. Everything else continues.".to_owned();
        add("bad", format!("Pins are withheld: {error}"), vec![hint]);
    } else if let Some(why) = some(&site["hpkp"], "why_not") {
        add("warn", format!("Pins are withheld: {why}"), Vec::new());
    }
    let refused_names = texts(site, "refused_names");
    if !refused_names.is_empty() {
        let what = format!("The certificate does not cover {}: pintle refuses TLS there", refused_names.join(", "));
        add("warn", what, Vec::new());
    }
    for task in texts(site, "todo") {
        add("warn", task, Vec::new());
    }
    for renewal in list(site, "renewals").iter().filter(|renewal| renewal["overdue"] == true) {
        add("bad", format!("Renewal: {}", text(renewal, "words")), some(renewal, "hint").into_iter().collect());
    }
    for lockout in list(site, "accepted_lockouts") {
        let until = text(lockout, "until");
        add("warn", format!("A lockout is accepted until {until}: clients with older pins are refused"), Vec::new());
    }
    found
}

/// Four facts.
pub(super) fn facts(site: &Value, rotation: &Value, now: i64) -> Vec<SiteFact> {
    let ends = list(site, "certificates").iter().filter_map(|c| Moment::of(&c["not_after"], now)).min_by_key(|m| m.at);
    let certificate = match &ends {
        Some(end) => (end.day.clone(), end.left(), end.tone()),
        None => ("none".to_owned(), "TLS is refused".to_owned(), "t-bad"),
    };
    let next = list(rotation, "keys").iter().find(|key| key["role"] != "live");
    let safe = next.map(|key| (key, Moment::of(&key["safe_from"], now)));
    let next = match safe {
        None => ("no next key".to_owned(), "make one before you need it".to_owned(), "quiet"),
        Some((key, _)) if key["is_safe_now"] == true => ("today".to_owned(), "in every set".to_owned(), "t-ok"),
        Some((_, Some(from))) => {
            let spare = ends.as_ref().map(|end| (end.at - from.at).div_euclid(DAY));
            let note = match spare {
                Some(days @ 0..) => format!("{} before the end", counted(days, "day")),
                Some(_) => "after the certificate ends".to_owned(),
                None => from.distance(),
            };
            (from.day.clone(), note, if spare.is_some_and(|days| days < 0) { "t-bad" } else { "quiet" })
        }
        Some((_, None)) => ("not promised".to_owned(), "clients get no set with it".to_owned(), "t-warn"),
    };
    let sets = count(site, "promises_alive");
    let held = match Moment::of(&site["promised_until"], now) {
        Some(until) => (until.day.clone(), format!("{}, {}", counted(sets, "set"), until.distance()), "quiet"),
        None => ("nobody holds any".to_owned(), "any key may be served".to_owned(), "quiet"),
    };
    let rate =
        site["requests_per_second"].as_f64().map_or_else(|| "–".to_owned(), |rate| format!("{} /s", figure(rate)));
    let (upstream, health) = match UpstreamView::of(site) {
        None => ("none", "quiet"),
        Some(up) if up.level == "ok" => (up.state, "t-ok"),
        Some(up) if up.level == "warn" => (up.state, "t-warn"),
        Some(up) => (up.state, "t-bad"),
    };
    let fact = |label, (figure, note, class): (String, String, &'static str)| SiteFact { label, figure, note, class };
    vec![
        fact("Certificate ends", certificate),
        fact("Next key safe from", next),
        fact("Pins held until", held),
        fact("Requests", (rate, format!("upstream: {}", upstream.to_lowercase()), health)),
    ]
}

/// The chains, each from the leaf to the root.
pub(super) fn chains(site: &Value, now: i64) -> Vec<Vec<ChainLink>> {
    let names = texts(site, "hosts").into_iter().skip(1).collect::<Vec<_>>();
    let chain = |chain: &Value| {
        let served = chain.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut shown: Vec<ChainLink> = served
            .iter()
            .enumerate()
            .map(|(at, one)| {
                let is_root = one["is_root"] == true;
                let kind = match (at, is_root) {
                    (0, _) if names.is_empty() => String::new(),
                    (0, _) => format!("also {} · ", names.join(", ")),
                    (_, true) => "root, sent · ".to_owned(),
                    (_, false) => "intermediate, sent · ".to_owned(),
                };
                let since = Moment::of(&one["not_before"], now).map(|since| since.day).unwrap_or_default();
                let (algorithm, serial) = (text(one, "algorithm"), text(one, "serial"));
                ChainLink {
                    name: text(one, "subject"),
                    ends: Moment::of(&one["not_after"], now),
                    note: format!("{kind}{algorithm} · serial {serial} · since {since}"),
                    is_leaf: at == 0,
                    is_unsent: false,
                }
            })
            .collect();
        if let Some(last) = served.last().filter(|last| last["is_root"] != true) {
            let note = "root, known to clients, not sent".to_owned();
            let name = text(last, "issuer");
            shown.push(ChainLink { name, ends: None, note, is_leaf: false, is_unsent: true });
        }
        shown
    };
    list(site, "chains").iter().map(chain).collect()
}

/// The policy headers as pintle sends them.
pub(super) fn headers(site: &Value) -> Vec<SentHeader> {
    let hsts = some(site, "hsts");
    let hsts = hsts.map(|value| SentHeader { name: "Strict-Transport-Security".to_owned(), value, why_not: None });
    let pins = &site["hpkp"];
    let pins = pins.is_object().then(|| SentHeader {
        name: text(pins, "name"),
        value: text(pins, "value"),
        why_not: (pins["sent"] != true).then(|| some(pins, "why_not").unwrap_or_else(|| "they are withheld".into())),
    });
    hsts.into_iter().chain(pins).collect()
}

impl UpstreamView {
    /// The upstream; `None` if the site has none.
    pub(super) fn of(site: &Value) -> Option<Self> {
        let url = some(site, "upstream")?;
        let health = &site["upstream_health"];
        let is_closed = health["circuit"].as_str().is_none_or(|circuit| circuit == "closed");
        let address = |one: &Value| {
            let out = one["left_out_for"].as_u64().unwrap_or_default();
            let (state, class) = match (one["check_fails"] == true, out) {
                (true, _) => ("its check fails".to_owned(), "t-bad"),
                (false, 1..) => (format!("left out for {}", duration(out)), "t-warn"),
                (false, 0) if is_closed => ("used".to_owned(), "t-ok"),
                (false, 0) => ("waits for the next try".to_owned(), "t-warn"),
            };
            UpstreamAddress { address: text(one, "address"), state, class }
        };
        let addresses: Vec<UpstreamAddress> = list(health, "addresses").iter().map(address).collect();
        let failures = health["failures_in_a_row"].as_u64().unwrap_or_default();
        let is_partly_out = addresses.iter().any(|address| address.class != "t-ok");
        let (level, state) = match health["circuit"].as_str() {
            Some("open") => ("bad", "Fails: requests get 503"),
            Some("half-open") => ("warn", "Is tried again"),
            _ if is_partly_out => ("warn", "Partly fails"),
            _ if failures > 0 => ("warn", "Failed last"),
            _ if health["checked"] == true => ("ok", "Healthy"),
            // Perhaps nobody has asked it yet.
            _ => ("ok", "No failure seen"),
        };
        let tried = health["tried_in"].as_u64().map(|seconds| match seconds {
            0 => "the next request tries it again".to_owned(),
            seconds => format!("pintle tries again in {}", duration(seconds)),
        });
        let failed = (failures > 0).then(|| format!("{} in a row", counted(failures, "failure")));
        let check = (health["checked"] == true).then(|| "a check asks it at intervals".to_owned());
        let note: Vec<String> = tried.into_iter().chain(failed).chain(check).collect();
        Some(Self { url, level, state, note: note.join(", "), addresses })
    }
}

/// The plans of the certificates that pintle obtains.
pub(super) fn renewals(site: &Value, now: i64) -> Vec<PlannedRenewal> {
    let renewal = |one: &Value| {
        let algorithm = text(one, "algorithm");
        let words = match (one["overdue"] == true || one["problem"].is_string(), Moment::of(&one["due"], now)) {
            (false, Some(due)) if due.days > 0 => {
                format!("{algorithm}: due {}, {}, by itself.", due.day, due.distance())
            }
            _ => format!("{algorithm}: {}.", text(one, "words")),
        };
        PlannedRenewal { words, hint: some(one, "hint").map(WayOut::sentence) }
    };
    list(site, "renewals").iter().map(renewal).collect()
}

/// `2 reports, from 1 client network`
pub(super) fn report_sum(site: &Value) -> String {
    let (reports, networks) = (count(site, "reports"), count(site, "report_networks"));
    format!("{}, from {}", counted(reports, "report"), counted(networks, "client network"))
}

/// The last reports, the latest first.
pub(super) fn reports(site: &Value, now: i64) -> Vec<PinReport> {
    let report = |one: &Value| {
        let (chain, pins) = (count(one, "chain_length"), count(one, "known_pins"));
        Some(PinReport {
            at: Moment::of(&one["at"], now)?,
            host: text(one, "hostname"),
            note: format!("{}, {} held", counted(chain, "certificate"), counted(pins, "pin")),
        })
    };
    list(site, "recent_reports").iter().filter_map(report).collect()
}

/// Mixed content of a site: its tools, and the reported references.
pub(super) struct MixedView {
    pub(super) tools: String,
    pub(super) sum: String,
    pub(super) references: Vec<ReferenceRow>,
}

/// A reported reference.
pub(super) struct ReferenceRow {
    pub(super) page: String,
    pub(super) reference: String,
    pub(super) note: String,
}

/// Mixed content of a site; `None` if it has no tools.
pub(super) fn mixed(site: &Value) -> Option<MixedView> {
    let mixed = &site["mixed_content"];
    let tools: Vec<&str> = mixed["mode"].as_array()?.iter().filter_map(Value::as_str).collect();
    let row = |one: &Value| {
        let own = if one["own"] == true { "own host, " } else { "" };
        ReferenceRow {
            page: text(one, "page"),
            reference: text(one, "reference"),
            note: format!("{}: {own}{}", text(one, "kind"), counted(count(one, "reports"), "report")),
        }
    };
    Some(MixedView {
        tools: tools.join(", "),
        sum: counted(count(mixed, "references_known"), "reference"),
        references: list(mixed, "references").iter().map(row).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_795_651_200; // 2026-11-26

    #[test]
    fn upstreams() {
        let of = |health: Value| {
            UpstreamView::of(&json!({ "upstream": "https://a.example", "upstream_health": health })).unwrap()
        };
        let words = |health: Value| (of(health.clone()).level, of(health).state);
        // Nobody has asked it yet.
        assert_eq!(words(json!({ "circuit": "closed", "addresses": [] })), ("ok", "No failure seen"));
        assert_eq!(words(json!({ "circuit": "closed", "checked": true })), ("ok", "Healthy"));
        let failed = json!({ "circuit": "closed", "checked": true, "failures_in_a_row": 1 });
        assert_eq!(words(failed), ("warn", "Failed last"));
        let out = of(json!({ "circuit": "closed", "addresses": [{ "address": "192.0.2.1:443", "left_out_for": 30 }] }));
        assert_eq!((out.level, out.addresses[0].state.as_str()), ("warn", "left out for 30 seconds"));
        let open = of(json!({ "circuit": "open", "tried_in": 5, "failures_in_a_row": 3 }));
        assert_eq!((open.level, open.note.as_str()), ("bad", "pintle tries again in 5 seconds, 3 failures in a row"));
        let address = json!([{ "address": "192.0.2.1:443" }]);
        let open = of(json!({ "circuit": "open", "tried_in": 0, "addresses": address }));
        assert_eq!((open.level, open.note.as_str()), ("bad", "the next request tries it again"));
        assert_eq!((open.addresses[0].state.as_str(), open.addresses[0].class), ("waits for the next try", "t-warn"));
        assert!(UpstreamView::of(&json!({})).is_none());
    }

    #[test]
    fn chains_end_at_a_root() {
        let one = |subject: &str, issuer: &str, is_root: bool| json!({ "subject": subject, "issuer": issuer, "is_root": is_root, "not_after": "2027-01-24T00:00:00Z" });
        let of = |certificates: Vec<Value>| {
            let site = json!({ "hosts": ["a.example"], "chains": [certificates] });
            chains(&site, NOW).remove(0).into_iter().map(|c| (c.name, c.is_unsent)).collect::<Vec<_>>()
        };
        let named = |name: &str, is_unsent: bool| (name.to_owned(), is_unsent);
        assert_eq!(of(vec![one("a.example", "R12", false)]), [named("a.example", false), named("R12", true)]);
        assert_eq!(of(vec![one("a", "R", false), one("R", "R", true)]), [named("a", false), named("R", false)]);
    }

    #[test]
    fn problems_and_facts() {
        let site = json!({
            "hpkp": { "name": "Public-Key-Pins", "value": "x", "sent": false, "why_not": "no backup left" },
            "refused": { "since": "2026-11-23T00:00:00Z", "reasons": [{ "reason": "its key is in no set", "hints": ["pintle key new"], "commands": ["pintle key new"] }] },
            "certificates": [], "upstream": "https://a.example",
        });
        let notices = notices(&site, NOW);
        assert_eq!(notices.iter().map(|n| n.level).collect::<Vec<_>>(), ["bad", "warn"]);
        assert!(notices[0].ways[0].is_command && notices[0].since.is_some() && !notices[0].keeps);
        assert_eq!(headers(&site)[0].why_not.as_deref(), Some("no backup left"));
        let facts = facts(&site, &json!({}), NOW);
        assert_eq!(
            facts.iter().map(|f| f.figure.as_str()).collect::<Vec<_>>(),
            ["none", "no next key", "nobody holds any", "–"]
        );
    }
}
