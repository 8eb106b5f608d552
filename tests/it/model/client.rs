//! A client that enforces pins, from RFC 7469 alone: nothing here knows of the code under test. Keys are small numbers,
//! names are texts, times are milliseconds.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// A key, by its number: its SubjectPublicKeyInfo is the one byte.
pub type Key = u8;
/// Milliseconds since 1970.
pub type Millis = i64;
/// Keys that there are.
pub const KEYS: Key = 9;

/// Fingerprints (section 2.4), as they stand in headers.
static FINGERPRINTS: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..KEYS).map(|key| STANDARD.encode(Sha256::digest([key]))).collect());

/// The content of a Public-Key-Pins field (section 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub pins: Vec<Key>,
    pub max_age: u64,
    pub include_subdomains: bool,
}

impl Policy {
    /// Reads a field; none if it is not valid, as it is to be ignored then.
    pub fn read(value: &str) -> Option<Self> {
        let (mut pins, mut max_age, mut include_subdomains) = (Vec::new(), None, false);
        for directive in value.split("; ") {
            match directive.split_once('=') {
                Some(("pin-sha256", text)) => {
                    let text = text.strip_prefix('"')?.strip_suffix('"')?;
                    pins.push(FINGERPRINTS.iter().position(|known| known == text)? as Key);
                }
                Some(("max-age", text)) if max_age.is_none() => max_age = Some(text.parse().ok()?),
                None if directive == "includeSubDomains" && !include_subdomains => include_subdomains = true,
                _ => return None,
            }
        }
        Some(Self { pins, max_age: max_age?, include_subdomains })
    }
}

/// The notes of a client about a Known Pinned Host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    host: &'static str,
    policy: Policy,
    until: Millis,
}

/// A browser, say.
#[derive(Debug, Clone, Default)]
pub struct Client {
    noted: Vec<Noted>,
}

impl Client {
    /// Pin validation (section 2.6): with the pins of the host, and those of the hosts above it that have
    /// includeSubDomains; each of them must be met.
    pub fn accepts(&self, host: &str, chain: &[Key], now: Millis) -> bool {
        self.noted.iter().all(|noted| noted.is_met(host, chain, now))
    }

    /// Asks a host, and notes what it says in a field of that name. False if the chain was not accepted; then nothing
    /// was asked.
    pub fn visit(&mut self, host: &'static str, chain: &[Key], field: Option<(&str, &Policy)>, now: Millis) -> bool {
        if !self.accepts(host, chain, now) {
            return false;
        }
        // Of a report-only field, nothing is remembered for later connections (section 2.3.2).
        if let Some(("Public-Key-Pins", policy)) = field {
            self.note(host, chain, policy, now);
        }
        true
    }

    /// Noting pins (sections 2.3.1 and 2.5): one of them must be in the chain, and one must not be. What is noted takes
    /// the place of what was; max-age=0 ends it.
    fn note(&mut self, host: &'static str, chain: &[Key], policy: &Policy, now: Millis) {
        let is_in_chain = |pin: &Key| chain.contains(pin);
        if !policy.pins.iter().any(is_in_chain) || policy.pins.iter().all(is_in_chain) {
            return;
        }
        self.noted.retain(|noted| noted.host != host);
        if policy.max_age > 0 {
            let until = now + policy.max_age as Millis * 1000;
            self.noted.push(Noted { host, policy: policy.clone(), until });
        }
    }

    /// `true` if it knows any pins.
    pub fn holds_any(&self, now: Millis) -> bool {
        self.noted.iter().any(|noted| now <= noted.until)
    }

    /// The time at which it has forgotten all that it knows.
    pub fn end(&self) -> Millis {
        self.noted.iter().map(|noted| noted.until).max().unwrap_or(Millis::MIN)
    }

    /// The names whose pins a chain does not meet.
    pub fn unmet(&self, host: &str, chain: &[Key], now: Millis) -> Vec<(&'static str, &Policy)> {
        let unmet = self.noted.iter().filter(|noted| !noted.is_met(host, chain, now));
        unmet.map(|noted| (noted.host, &noted.policy)).collect()
    }
}

impl Noted {
    fn is_met(&self, host: &str, chain: &[Key], now: Millis) -> bool {
        let concerns = self.host == host || self.policy.include_subdomains && is_subdomain(host, self.host);
        !concerns || now > self.until || chain.iter().any(|key| self.policy.pins.contains(key))
    }
}

fn is_subdomain(host: &str, of: &str) -> bool {
    host.len() > of.len() && host.ends_with(of) && host.as_bytes()[host.len() - of.len() - 1] == b'.'
}

/// An app that was built with an export: it checks the export's names until a day, whatever headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub id: String,
    /// `a.example`, or `*.a.example` for any one label.
    pub names: Vec<&'static str>,
    pub include_subdomains: bool,
    pub pins: Vec<Key>,
    /// `true` if it looks at the first certificate only.
    pub leaf_only: bool,
    pub until: Millis,
}

impl App {
    pub fn accepts(&self, host: &str, chain: &[Key], now: Millis) -> bool {
        let looked_at = if self.leaf_only { &chain[..1] } else { chain };
        now >= self.until || !self.concerns(host) || looked_at.iter().any(|key| self.pins.contains(key))
    }

    fn concerns(&self, host: &str) -> bool {
        let mut above = Some(host);
        while let Some(name) = above {
            let is_named = |pattern: &&'static str| match pattern.strip_prefix("*.") {
                Some(base) => name.split_once('.').is_some_and(|(_, rest)| rest == base),
                None => *pattern == name,
            };
            if self.names.iter().any(is_named) {
                return true;
            }
            above = name.split_once('.').map(|(_, rest)| rest).filter(|_| self.include_subdomains);
        }
        false
    }
}

#[test]
fn a_client_by_the_rfc() {
    let policy =
        |pins: &[Key], max_age, include_subdomains| Policy { pins: pins.to_vec(), max_age, include_subdomains };
    let name = "Public-Key-Pins";
    let mut client = Client::default();
    // One pin only, or none that is served: ignored.
    for pins in [&[1][..], &[2, 3], &[1, 8]] {
        assert!(client.visit("example.com", &[1, 8], Some((name, &policy(pins, 10, false))), 0));
        assert!(!client.holds_any(0));
    }
    assert!(client.visit("example.com", &[1], Some(("Public-Key-Pins-Report-Only", &policy(&[1, 2], 10, true))), 0));
    assert!(!client.holds_any(0));
    assert!(client.visit("example.com", &[1], Some((name, &policy(&[1, 2], 10, true))), 0));
    assert!(client.accepts("example.com", &[7, 2], 5) && !client.accepts("example.com", &[7], 10_000));
    assert!(client.accepts("example.com", &[7], 10_001) && !client.accepts("a.b.example.com", &[7], 5));
    assert!(client.accepts("badexample.com", &[7], 5) && client.accepts("com", &[7], 5));
    // The newest word counts, and a name below has a word of its own.
    assert!(client.visit("a.example.com", &[2], Some((name, &policy(&[2, 3], 10, false))), 5));
    assert!(!client.accepts("a.example.com", &[1], 5) && !client.accepts("a.example.com", &[3], 5));
    assert!(client.visit("example.com", &[2], Some((name, &policy(&[2, 4], 10, false))), 6));
    assert!(!client.accepts("example.com", &[1], 7) && client.accepts("a.example.com", &[3], 7));
    assert!(client.visit("example.com", &[2], Some((name, &policy(&[2, 4], 0, false))), 8));
    assert!(client.accepts("example.com", &[1], 9) && client.holds_any(9));
    assert!(!client.visit("a.example.com", &[4], Some((name, &policy(&[4, 5], 10, false))), 9));
    let text = format!("pin-sha256=\"{}\"; max-age=5; includeSubDomains", FINGERPRINTS[3]);
    assert_eq!(Policy::read(&text), Some(policy(&[3], 5, true)));
}
