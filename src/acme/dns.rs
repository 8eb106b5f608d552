//! dns-01 by the operator's program (RFC 8555 section 8.4), and dns-persist-01
//! (draft-ietf-acme-dns-persist).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::hook::{Action, HookProcess, TxtRecord};
use super::lookup::{Lookup, LookupAnswer};
use crate::host::without_wildcard;
use crate::reason::Reason;

/// The time between two looks at the name servers.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The most issuers of a dns-persist-01 challenge.
const ISSUERS_MAX: usize = 10;
/// The longest string of a TXT record, in bytes.
const STRING_MAX: usize = 255;

/// Returns the record of a challenge. `NAME` and `*.NAME` have the same name, and two values.
#[must_use]
pub fn record(host: &str, key_authorization: &str) -> TxtRecord {
    let base = without_wildcard(host).trim_end_matches('.');
    TxtRecord {
        name: format!("_acme-challenge.{base}"),
        value: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key_authorization)),
    }
}

/// Records that the hook has set. They are removed when this is dropped, in the background; better
/// by [`Presented::clean`], which waits for that.
#[derive(Debug)]
pub struct Presented {
    hook: Arc<HookProcess>,
    records: Vec<TxtRecord>,
    since: Instant,
}

/// Has the records set, one after the other. If one fails, those before it are removed.
///
/// # Errors
///
/// If the hook fails.
pub async fn present(hook: &Arc<HookProcess>, records: &[TxtRecord]) -> Result<Presented, Reason> {
    let mut presented = Presented { hook: hook.clone(), records: Vec::new(), since: Instant::now() };
    for record in records {
        // It may be there, whatever the program says.
        presented.records.push(record.clone());
        let (hook, record) = (hook.clone(), record.clone());
        let ran = spawn_blocking(move || hook.run(Action::Present, &record)).await;
        if let Err(why) = ran.unwrap_or_else(|panic| Err(panic.to_string())) {
            presented.clean().await;
            return Err(Reason::new(format!("acme.dns_hook: {why}"))
                .hint("run the program by hand: PROGRAM present _acme-challenge.NAME VALUE"));
        }
    }
    Ok(presented)
}

impl Presented {
    /// Records that an earlier process has set.
    #[must_use]
    pub fn of(hook: Arc<HookProcess>, records: Vec<TxtRecord>) -> Self {
        Self { hook, records, since: Instant::now() }
    }

    /// Removes the records. A failure is logged: the record does no harm but stays.
    pub async fn clean(mut self) {
        let (hook, records) = (self.hook.clone(), std::mem::take(&mut self.records));
        let _ = spawn_blocking(move || clean(&hook, &records)).await;
    }

    /// Returns the records of these that are not set.
    #[must_use]
    pub fn missing(&self, records: &[TxtRecord]) -> Vec<TxtRecord> {
        records.iter().filter(|record| !self.records.contains(record)).cloned().collect()
    }

    /// Adds the records of another one.
    pub fn join(&mut self, mut other: Self) {
        self.records.append(&mut other.records);
        self.since = other.since;
    }

    /// Returns the time since the last record was set.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// Waits until all name servers of the zone give the records, or the resolver does if the zone's own
/// servers cannot be asked.
///
/// # Errors
///
/// If that takes longer than `limit`.
pub async fn visible(records: &[TxtRecord], lookup: &Lookup, limit: Duration) -> Result<(), Reason> {
    let end = Instant::now() + limit;
    for record in records {
        let (mut target, mut servers) = (String::new(), Vec::new());
        loop {
            let now = lookup.owner(&record.name).await;
            // An alias may come with the record.
            if now != target {
                servers = lookup.authoritative(&now).await;
                target = now;
            }
            let Some(lacking) = lacking(lookup, &servers, record, &target).await else { break };
            if Instant::now() >= end {
                let what = format!(
                    "{}: the record is not visible after {} s (limits.dns_propagation): {lacking}",
                    record.name,
                    limit.as_secs()
                );
                return Err(Reason::new(what).hint(format!("dig TXT {}", record.name)));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

impl Drop for Presented {
    fn drop(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let (hook, records) = (self.hook.clone(), std::mem::take(&mut self.records));
        // Without a runtime, the process ends: the hook process removes them.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || clean(&hook, &records));
        }
    }
}

fn clean(hook: &HookProcess, records: &[TxtRecord]) {
    for record in records {
        if let Err(error) = hook.run(Action::Cleanup, record) {
            tracing::warn!(name = record.name, error, hint = "remove the record by hand", "dns hook left a record");
        }
    }
}

/// Names the servers that lack the record.
async fn lacking(lookup: &Lookup, servers: &[(String, Lookup)], record: &TxtRecord, target: &str) -> Option<String> {
    let mut asked = false;
    for (server, authoritative) in servers {
        match authoritative.txt(target).await {
            LookupAnswer::Records(values) if values.contains(&record.value) => asked = true,
            // A firewall may let no question pass; the CA asks from elsewhere.
            LookupAnswer::Failed(_) => {}
            LookupAnswer::Records(_) | LookupAnswer::Nothing => return Some(format!("{server} does not have it")),
        }
    }
    if asked {
        return None;
    }
    match lookup.txt(&record.name).await {
        LookupAnswer::Records(values) if values.contains(&record.value) => None,
        LookupAnswer::Failed(why) => Some(why),
        LookupAnswer::Records(_) | LookupAnswer::Nothing => Some("the name server does not have it".to_owned()),
    }
}

/// The TXT record of dns-persist-01.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persist {
    /// The CA: one of `issuer-domain-names`.
    pub issuer: String,
    /// The URL of the account.
    pub account: String,
    /// `true` if it covers the names below its own, too.
    pub wildcard: bool,
    /// The end of its effect, in seconds since 1970.
    pub until: Option<i64>,
}

impl Persist {
    /// Returns the name of the record for a host.
    #[must_use]
    pub fn name(host: &str) -> String {
        let base = without_wildcard(host).trim_end_matches('.');
        format!("_validation-persist.{base}")
    }

    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> String {
        let policy = if self.wildcard { "; policy=wildcard" } else { "" };
        let until = self.until.map(|until| format!("; persistUntil={until}")).unwrap_or_default();
        format!("{}; accounturi={}{policy}{until}", self.issuer, self.account)
    }

    /// Returns the record as a line of a zone file. Strings have at most 255 bytes.
    #[must_use]
    pub fn line(&self, host: &str) -> String {
        let value = self.value();
        let strings: Vec<String> = value
            .as_bytes()
            .chunks(STRING_MAX)
            .map(|part| format!("\"{}\"", String::from_utf8_lossy(part).replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        format!("{}. IN TXT {}", Self::name(host), strings.join(" "))
    }

    /// Reads a value. `None` if it is malformed, or lacks the account.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let space = [' ', '\t'];
        let mut parts = value.split(';').map(|part| part.trim_matches(space));
        let issuer = parts.next().filter(|issuer| !issuer.is_empty())?.to_ascii_lowercase();
        let (mut account, mut wildcard, mut until) = (None, false, None);
        let mut seen = Vec::new();
        for part in parts {
            let (tag, value) = part.split_once('=')?;
            let (tag, value) = (tag.trim_matches(space).to_ascii_lowercase(), value.trim_matches(space));
            if tag.is_empty() || seen.contains(&tag) || !value.bytes().all(|b| b.is_ascii_graphic()) {
                return None;
            }
            match tag.as_str() {
                "accounturi" => account = Some(value.to_owned()).filter(|uri| !uri.is_empty()),
                "policy" => wildcard = value.eq_ignore_ascii_case("wildcard"),
                "persistuntil" => until = Some(value.parse().ok()?),
                _ => {}
            }
            seen.push(tag);
        }
        Some(Self { issuer, account: account?, wildcard, until })
    }
}

/// The state of a name's dns-persist-01 records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordState {
    /// One admits this account. The end of its effect, if it has one.
    Good(Option<i64>),
    /// None does, and why.
    Bad(&'static str),
}

/// Judges the TXT values of `_validation-persist.NAME`.
#[must_use]
pub fn standing(values: &[String], issuers: &[String], account: &str, host: &str, now: i64) -> RecordState {
    let mut why = "no record of this authority";
    let mut best: Option<Option<i64>> = None;
    for value in values {
        let issuer = value.split(';').next().unwrap_or_default().trim();
        if !issuers.iter().any(|own| own.eq_ignore_ascii_case(issuer)) {
            continue;
        }
        why = match Persist::parse(value) {
            None => "the record is malformed",
            Some(record) if record.account != account => "the record is for another account",
            Some(record) if host.starts_with("*.") && !record.wildcard => "the record lacks policy=wildcard",
            Some(record) if record.until.is_some_and(|until| until < now) => "the record has expired (persistUntil)",
            Some(record) => {
                // The latest end counts; none is later than any.
                best = Some(match (best, record.until) {
                    (Some(None), _) | (_, None) => None,
                    (Some(Some(a)), Some(b)) => Some(a.max(b)),
                    (None, Some(b)) => Some(b),
                });
                continue;
            }
        };
    }
    best.map_or(RecordState::Bad(why), RecordState::Good)
}

/// Checks `issuer-domain-names` of a challenge.
///
/// # Errors
///
/// If there are none, or more than ten: the challenge is malformed.
pub fn issuers(names: &[String]) -> Result<&[String], Reason> {
    if (1..=ISSUERS_MAX).contains(&names.len()) {
        return Ok(names);
    }
    Err(Reason::new(format!(
        "dns-persist-01: the challenge has {} issuer-domain-names, not 1 to {ISSUERS_MAX}",
        names.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "https://ca.example/acct/7";

    #[test]
    fn records() {
        let of = |host: &str| record(host, "token.thumb");
        assert_eq!(of("example.com").name, "_acme-challenge.example.com");
        assert_eq!(of("*.example.com").name, "_acme-challenge.example.com");
        assert_eq!(of("example.com").value.len(), 43);
        assert_ne!(record("example.com", "a.b").value, record("*.example.com", "c.b").value);
    }

    #[test]
    fn persistent_records() {
        let mut persist =
            Persist { issuer: "ca.example".into(), account: ACCOUNT.into(), wildcard: false, until: None };
        assert_eq!(persist.value(), "ca.example; accounturi=https://ca.example/acct/7");
        persist.wildcard = true;
        persist.until = Some(1_800_000_000);
        let value = "ca.example; accounturi=https://ca.example/acct/7; policy=wildcard; persistUntil=1800000000";
        assert_eq!(persist.value(), value);
        assert_eq!(persist.line("*.example.com"), format!("_validation-persist.example.com. IN TXT \"{value}\""));
        assert_eq!(Persist::parse(value), Some(persist.clone()));
        persist.account = format!("https://ca.example/{}", "a".repeat(300));
        let line = persist.line("example.com");
        let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.concat(), persist.value());
        assert!(strings.iter().all(|string| string.len() <= 255), "{line}");
        for bad in [
            "",
            ";",
            "ca.example",
            "ca.example; x",
            "ca.example; accounturi=",
            "ca.example; accounturi=a; accounturi=b",
            "ca.example; accounturi=a; persistUntil=soon",
            "ca.example; accounturi=a;",
        ] {
            assert_eq!(Persist::parse(bad), None, "{bad}");
        }
        let odd = Persist::parse("CA.example;policy=WILDCARD;new=x; accountURI=a").unwrap();
        assert_eq!((odd.issuer.as_str(), odd.wildcard, odd.account.as_str()), ("ca.example", true, "a"));
    }

    #[test]
    fn standings() {
        let check = |values: &[&str], host: &str, want: RecordState| {
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            assert_eq!(standing(&values, &["ca.example".to_owned()], ACCOUNT, host, 1000), want, "{values:?} {host}");
        };
        let good = "ca.example; accounturi=https://ca.example/acct/7";
        check(&[good], "a.example", RecordState::Good(None));
        check(&["other.example; accounturi=x", good], "a.example", RecordState::Good(None));
        check(&[], "a.example", RecordState::Bad("no record of this authority"));
        check(&["other.example; accounturi=x"], "a.example", RecordState::Bad("no record of this authority"));
        check(&["ca.example; accounturi=x"], "a.example", RecordState::Bad("the record is for another account"));
        check(&["ca.example"], "a.example", RecordState::Bad("the record is malformed"));
        check(&[good], "*.a.example", RecordState::Bad("the record lacks policy=wildcard"));
        check(&[&format!("{good}; policy=wildcard")], "*.a.example", RecordState::Good(None));
        check(
            &[&format!("{good}; persistUntil=999")],
            "a.example",
            RecordState::Bad("the record has expired (persistUntil)"),
        );
        check(&[&format!("{good}; persistUntil=1000")], "a.example", RecordState::Good(Some(1000)));
        let two = [format!("{good}; persistUntil=2000"), format!("{good}; persistUntil=3000")];
        check(&[&two[0], &two[1]], "a.example", RecordState::Good(Some(3000)));
        check(&[&two[1], good, &two[0]], "a.example", RecordState::Good(None));
    }

    #[test]
    fn issuers_of_a_challenge() {
        let names = |count: usize| vec!["ca.example".to_owned(); count];
        assert!(issuers(&names(1)).is_ok() && issuers(&names(10)).is_ok());
        assert!(issuers(&names(0)).is_err() && issuers(&names(11)).is_err());
    }
}
