//! A client by RFC 7469, and by RFC 6797 as far as what it is told, from the RFCs alone: here pins are what stands in the
//! field of an answer, and chains are what came in a handshake.

use rustls::pki_types::CertificateDer;

/// Seconds since 1970, as the clients' clocks have them.
pub type Seconds = i64;

/// The content of a Public-Key-Pins field (section 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub pins: Vec<String>,
    pub max_age: u64,
    pub include_subdomains: bool,
}

impl Policy {
    /// Reads a field; none if it is not valid, as it is to be ignored then.
    pub fn read(value: &str) -> Option<Self> {
        let (mut pins, mut max_age, mut include_subdomains) = (Vec::new(), None, false);
        for directive in value.split(';').map(str::trim) {
            match directive.split_once('=') {
                Some(("pin-sha256", text)) => pins.push(text.strip_prefix('"')?.strip_suffix('"')?.to_owned()),
                Some(("max-age", text)) if max_age.is_none() => max_age = Some(text.parse().ok()?),
                Some(("report-uri", _)) => {}
                None if directive == "includeSubDomains" && !include_subdomains => include_subdomains = true,
                _ => return None,
            }
        }
        pins.sort();
        Some(Self { pins, max_age: max_age?, include_subdomains })
    }

    /// `true` if it is noted over this chain (section 2.5): one of its pins is in the chain, and another one is not.
    pub fn is_noted_over(&self, chain: &[String]) -> bool {
        self.pins.iter().any(|pin| chain.contains(pin)) && self.pins.iter().any(|pin| !chain.contains(pin))
    }
}

/// The max-age of a field of Strict-Transport-Security.
pub fn hsts_age(value: &str) -> Option<u64> {
    value.split(';').find_map(|d| d.trim().strip_prefix("max-age=")?.trim_matches('"').parse().ok())
}

/// The pins of a chain, the leaf's first.
pub fn pins_of(chain: &[CertificateDer<'_>]) -> Vec<String> {
    let pin = |der: &CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
        pintle::keys::pin::Pin::of_spki(certificate.public_key().raw).to_string()
    };
    chain.iter().map(pin).collect()
}

/// A client that came once, noted the policy that it got, and has not come back since; or an app with an export.
#[derive(Debug, Clone)]
pub struct Ghost {
    /// The names that it noted it for: one, or those of an export.
    pub hosts: Vec<String>,
    pub policy: Policy,
    /// An app that looks at the leaf alone.
    pub leaf_only: bool,
    pub is_app: bool,
    /// Until when it holds it.
    pub until: Seconds,
    /// The node cannot know how much longer: clocks that were set since, in seconds.
    pub slack: Seconds,
    /// It came by while the node's clock was behind, and the node has not learned better yet.
    pub is_early: bool,
    /// Leaves that it was told to be locked out by, before anything could be done about it.
    pub excused: Vec<String>,
}

impl Ghost {
    /// Pin validation (section 2.6).
    pub fn accepts(&self, host: &str, chain: &[String], now: Seconds) -> bool {
        let looked_at = if self.leaf_only { &chain[..1] } else { chain };
        now > self.until || !self.concerns(host) || looked_at.iter().any(|pin| self.policy.pins.contains(pin))
    }

    /// `true` if it may reject this.
    pub fn may_reject(&self, host: &str, chain: &[String], now: Seconds) -> bool {
        let ahead = pintle::lease::ahead(self.policy.max_age) + 2;
        let late = Self { until: self.until + self.slack + ahead, ..self.clone() };
        !late.accepts(host, chain, now)
    }

    fn concerns(&self, host: &str) -> bool {
        self.hosts.iter().any(|noted| match noted.strip_prefix("*.") {
            Some(base) => host.split_once('.').is_some_and(|(_, rest)| rest == base),
            None => host == noted || self.policy.include_subdomains && is_subdomain(host, noted),
        })
    }
}

fn is_subdomain(host: &str, of: &str) -> bool {
    host.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'))
}

#[test]
fn a_client_by_the_rfc() {
    let policy = Policy::read("pin-sha256=\"a\"; pin-sha256=\"b\"; max-age=10; includeSubDomains").unwrap();
    assert_eq!((policy.pins.len(), policy.max_age, policy.include_subdomains), (2, 10, true));
    let chain = |pins: &[&str]| pins.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(policy.is_noted_over(&chain(&["b", "c"])));
    assert!(!policy.is_noted_over(&chain(&["c"])) && !policy.is_noted_over(&chain(&["a", "b"])));
    for bad in ["pin-sha256=\"a\"", "max-age=1; max-age=2", "pin-sha256=a; max-age=1"] {
        assert_eq!(Policy::read(bad), None, "{bad}");
    }
    assert_eq!(hsts_age("max-age=31536000; includeSubDomains"), Some(31_536_000));
    let ghost = Ghost {
        hosts: vec!["a.example".into()],
        policy,
        leaf_only: false,
        is_app: false,
        until: 10,
        slack: 0,
        is_early: false,
        excused: Vec::new(),
    };
    assert!(ghost.accepts("a.example", &chain(&["x", "a"]), 5) && !ghost.accepts("a.example", &chain(&["x"]), 10));
    assert!(ghost.accepts("a.example", &chain(&["x"]), 11) && ghost.may_reject("a.example", &chain(&["x"]), 11));
    assert!(!ghost.accepts("b.a.example", &chain(&["x"]), 5) && ghost.accepts("ba.example", &chain(&["x"]), 5));
}
