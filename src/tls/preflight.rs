//! The preflight of a chain: whether clients would accept it, judged in one place wherever the chain comes from.
//!
//! That it can be read, stands in order and fits its key is proven by [`Chain`] and [`super::Certificate`]; that it
//! breaks no promise is for the guard. What lies between is here.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::certificate::{Chain, Leaf};
use super::rule::Rule;
use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;

/// A certificate with less than this left should have been renewed.
pub(super) const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What browsers and the CA/Browser Forum's rules ask for, in bits.
const RSA_MIN: usize = 2048;

/// Something that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It has been over since then.
    Expired(Timestamp),
    /// It begins then.
    NotYetValid(Timestamp),
    /// It ends then, which is soon.
    ExpiresSoon(Timestamp),
    /// It is not for these names.
    Names(Vec<HostPattern>),
    /// The path breaks a rule.
    Path(Rule),
    /// The leaf asks clients to refuse it without an OCSP staple, and none is sent.
    MustStaple,
    /// The leaf's key may not sign handshakes.
    KeyUsage,
    /// A key that browsers do not take.
    Unusual(KeyAlgorithm),
    /// It is valid for this many days, and clients take this many.
    Lifetime {
        /// Its days.
        days: i64,
        /// Those of the rule.
        max: i64,
        /// Whether it looks like a public authority's, which have rules of their own.
        is_public: bool,
    },
    /// The leaf is for something else than servers.
    Usage,
    /// The leaf is a CA's own certificate.
    Authority,
    /// It is the leaf alone, though its issuer can be had: clients that do not fetch it cannot verify it.
    Alone,
    /// It has this many certificates, and the one in use this many.
    Shorter(usize, usize),
    /// The key is too weak.
    Weak(KeyAlgorithm),
    /// It ends before the one in use does.
    Older {
        /// When this one ends.
        ends: Timestamp,
        /// When the one in use ends.
        in_use: Timestamp,
    },
}

impl Fault {
    /// Whether the chain must not be served.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Path(rule) => rule.is_fatal(),
            Self::ExpiresSoon(_)
            | Self::Older { .. }
            | Self::Authority
            | Self::Alone
            | Self::Shorter(..)
            | Self::Unusual(_)
            | Self::Lifetime { .. } => false,
            _ => true,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self, leaf: &Leaf) -> String {
        match self {
            Self::Expired(_) => "renew it; browsers let nobody through".into(),
            Self::NotYetValid(_) => "wait until then, or set this host's clock".into(),
            Self::ExpiresSoon(_) => "renew it now".into(),
            Self::Names(_) if !leaf.unusable_names().is_empty() => format!(
                "it is for {}; clients match no host with {}: a name in a certificate has no dot at its end and no port, and \
                 an address is an IP entry of its own (`subjectAltName = IP:192.0.2.1`)",
                leaf.names(),
                leaf.unusable_names().iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            ),
            Self::Names(_) => {
                format!("it is for {}; get one for all hosts of the site, or make two sites", leaf.names())
            }
            Self::Path(rule) => rule.hint().into(),
            Self::MustStaple => {
                "get one without OCSP must-staple: certbot without --must-staple, `tlsfeature` left out of \
                                 the CSR"
                    .into()
            }
            Self::KeyUsage => "ask the CA for one with digitalSignature in its key usage".into(),
            Self::Unusual(_) => "`pintle key new --role next --algorithm ecdsa-p256` makes one for everybody".into(),
            Self::Lifetime { .. } => "have it renewed more often".into(),
            Self::Usage => "ask the CA for one with the extended key usage serverAuth".into(),
            Self::Authority => "make a certificate of its own for the site, issued by this one".into(),
            Self::Alone | Self::Shorter(..) => {
                "put the intermediates behind the leaf: certbot's fullchain.pem, and not its cert.pem".into()
            }
            Self::Weak(_) => "make a new key: `pintle key new --role next`".into(),
            Self::Older { .. } => "perhaps an old file was put in its place".into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "expired on {}", day(*at)),
            Self::NotYetValid(at) => write!(f, "not valid before {}", day(*at)),
            Self::ExpiresSoon(at) => write!(f, "expires on {}", day(*at)),
            Self::Names(missing) => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                write!(f, "does not cover {}", missing.join(", "))
            }
            Self::Path(rule) => rule.fmt(f),
            Self::MustStaple => f.write_str(
                "must be served with an OCSP staple (must-staple), which pintle does not send: clients refuse it",
            ),
            Self::KeyUsage => f.write_str("its key may not sign handshakes (no digitalSignature in its key usage)"),
            Self::Unusual(algorithm) => write!(f, "its key is one that not all browsers take: {algorithm}"),
            Self::Lifetime { days, max, is_public } => {
                let whose = if *is_public { "browsers take of public CAs" } else { "Apple's systems take of any CA" };
                write!(f, "is valid for {days} days, more than the {max} that {whose}")
            }
            Self::Usage => f.write_str("is not for servers (no serverAuth in its extended key usage)"),
            Self::Authority => f.write_str("is a CA's own certificate; some clients do not accept it from a server"),
            Self::Alone => f.write_str("has no intermediates: clients that do not know them cannot verify it"),
            Self::Shorter(one, in_use) => {
                write!(f, "the chain is shorter than the one in use: {one} in place of {in_use}")
            }
            Self::Weak(algorithm) => write!(f, "its key is too weak for today's clients: {algorithm}"),
            Self::Older { ends, in_use } => {
                write!(f, "ends on {}, before the one in use, which ends on {}", day(*ends), day(*in_use))
            }
        }
    }
}

pub(super) fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

/// Judges a chain that is to be served under these names from now on, in place of the one in use.
#[must_use]
pub fn judge(chain: &Chain, hosts: &[HostPattern], now: Timestamp, in_use: Option<&Chain>) -> Vec<Fault> {
    let leaf = &chain.leaf;
    let mut faults = Vec::new();
    if now > leaf.not_after {
        faults.push(Fault::Expired(leaf.not_after));
    } else if now < leaf.not_before {
        faults.push(Fault::NotYetValid(leaf.not_before));
    } else if now + SOON > leaf.not_after {
        faults.push(Fault::ExpiresSoon(leaf.not_after));
    }
    // Every certificate of a site is for all of its names, as the client chooses among them by algorithm only.
    let missing: Vec<HostPattern> = hosts.iter().filter(|h| !leaf.covers_pattern(h)).cloned().collect();
    if !missing.is_empty() {
        faults.push(Fault::Names(missing));
    }
    faults.extend(chain.broken_rules(now).into_iter().map(Fault::Path));
    if !leaf.is_for_servers {
        faults.push(Fault::Usage);
    }
    if leaf.is_authority {
        faults.push(Fault::Authority);
    }
    if leaf.must_staple {
        faults.push(Fault::MustStaple);
    }
    if !leaf.may_sign {
        faults.push(Fault::KeyUsage);
    }
    faults.extend(lifetime(leaf));
    if matches!(leaf.algorithm, KeyAlgorithm::Ed25519 | KeyAlgorithm::EcdsaP521) {
        faults.push(Fault::Unusual(leaf.algorithm));
    }
    if matches!(leaf.algorithm, KeyAlgorithm::Rsa(bits) if bits < RSA_MIN) {
        faults.push(Fault::Weak(leaf.algorithm));
    }
    if leaf.has_issuer_elsewhere && chain.pins.len() == 1 {
        faults.push(Fault::Alone);
    }
    if let Some(in_use) = in_use {
        if in_use.leaf.not_after > leaf.not_after {
            faults.push(Fault::Older { ends: leaf.not_after, in_use: in_use.leaf.not_after });
        }
        if in_use.pins.len() > chain.pins.len() {
            faults.push(Fault::Shorter(chain.pins.len(), in_use.pins.len()));
        }
    }
    faults
}

/// How long a certificate may be valid that begins at a time: CA/Browser Forum, Baseline Requirements section 6.3.2.
const PUBLIC_LIFETIMES: [(Timestamp, i64); 4] = [
    // 2029-03-15, 2027-03-15, 2026-03-15
    (Timestamp::constant(1_868_227_200, 0), 47),
    (Timestamp::constant(1_805_068_800, 0), 100),
    (Timestamp::constant(1_773_532_800, 0), 200),
    (Timestamp::constant(0, 0), 398),
];
/// Of a private CA: what Apple's systems take (support.apple.com/HT210176).
const PRIVATE_LIFETIME: i64 = 825;

fn lifetime(leaf: &Leaf) -> Option<Fault> {
    // Both ends are part of it (RFC 5280 section 4.1.2.5); a second more than the last day is not held against anybody.
    let seconds = leaf.not_after.duration_since(leaf.not_before).as_secs();
    let days = seconds.saturating_add(86399) / 86400;
    let public = || PUBLIC_LIFETIMES.iter().find(|(from, _)| leaf.not_before >= *from).map_or(398, |(_, max)| *max);
    let max = if leaf.looks_public { public() } else { PRIVATE_LIFETIME };
    (seconds > max * 86400).then_some(Fault::Lifetime { days, max, is_public: leaf.looks_public })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    fn authority() -> (rcgen::Certificate, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap(), Issuer::new(params, key))
    }

    fn chain(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let (ca, issuer) = authority();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = time::OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - time::Duration::days(1), now + time::Duration::days(90));
        change(&mut params);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        Chain::from_pem((leaf.pem() + &ca.pem()).as_bytes()).unwrap()
    }

    fn faults(chain: &Chain, host: &str, now: Timestamp) -> Vec<String> {
        judge(chain, &[HostPattern::parse(host).unwrap()], now, None).iter().map(|f| format!("{f:?}")).collect()
    }

    #[test]
    fn judgement() {
        let now = Timestamp::now();
        let good = chain(&["a.example"], |_| {});
        assert_eq!(faults(&good, "a.example", now), Vec::<String>::new());
        assert!(faults(&good, "b.example", now)[0].starts_with("Names"));
        assert!(faults(&good, "a.example", now + (24 * 91).hours())[0].starts_with("Expired"));
        assert!(faults(&good, "a.example", now + (24 * 88).hours())[0].starts_with("ExpiresSoon"));
        assert!(faults(&good, "a.example", now - (24 * 2).hours())[0].starts_with("NotYetValid"));
        let for_clients = chain(&["a.example"], |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(faults(&for_clients, "a.example", now), ["Usage"]);
        let for_both = chain(&["a.example"], |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        });
        assert_eq!(faults(&for_both, "a.example", now), Vec::<String>::new());
        let older = judge(&good, &[], now, Some(&chain(&["a.example"], |p| p.not_after += time::Duration::days(9))));
        assert!(matches!(older[..], [Fault::Older { .. }]) && !older[0].is_fatal());
    }

    #[test]
    fn without_its_intermediates() {
        // Authority information access (RFC 5280 section 4.2.2.1): caIssuers, at http://.
        let access = b"\x30\x15\x30\x13\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x07http://".to_vec();
        let extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access);
        let whole = chain(&["a.example"], |p| p.custom_extensions.push(extension));
        let now = Timestamp::now();
        assert_eq!(faults(&whole, "a.example", now), Vec::<String>::new());
        let mut alone = whole.clone();
        alone.pins.truncate(1);
        let found = judge(&alone, &[], now, Some(&whole));
        assert_eq!(found, [Fault::Alone, Fault::Shorter(1, 2)]);
        assert!(!found.iter().any(Fault::is_fatal));
        // A private CA that issues leaves itself is nobody's fault.
        let mut private = chain(&["a.example"], |_| {});
        private.pins.truncate(1);
        assert_eq!(faults(&private, "a.example", now), Vec::<String>::new());
    }

    /// Two CAs of one name: the order looks right, the signature is not.
    #[test]
    fn a_stranger_of_the_same_name() {
        let (_, issuer) = authority();
        let (other, _) = authority();
        let mut leaf = CertificateParams::new(vec!["a.example".into()]).unwrap();
        leaf.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        leaf.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(90);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let chain = Chain::from_pem((leaf.pem() + &other.pem()).as_bytes()).unwrap();
        assert_eq!(faults(&chain, "a.example", Timestamp::now()), ["Path(Signature { at: 1, by: 2 })"]);
    }

    /// Public authorities are held to the Baseline Requirements, private ones to what clients take of them.
    #[test]
    fn lifetimes() {
        let check = |begins: &str, days: i64, is_public: bool, want: Option<i64>| {
            let chain = chain(&["a.example"], |_| {});
            let not_before: Timestamp = begins.parse().unwrap();
            let not_after = not_before + SignedDuration::from_hours(days * 24);
            let mut leaf = chain.leaf;
            (leaf.not_before, leaf.not_after, leaf.looks_public) = (not_before, not_after, is_public);
            let found = lifetime(&leaf).map(|fault| match fault {
                Fault::Lifetime { max, .. } => max,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, want, "{begins} {days} {is_public}");
        };
        check("2026-01-01T00:00:00Z", 398, true, None);
        check("2026-01-01T00:00:00Z", 399, true, Some(398));
        check("2026-03-15T00:00:00Z", 200, true, None);
        check("2026-03-15T00:00:00Z", 201, true, Some(200));
        check("2027-03-14T23:59:59Z", 101, true, None);
        check("2027-03-15T00:00:00Z", 101, true, Some(100));
        check("2029-03-15T00:00:00Z", 47, true, None);
        check("2029-03-15T00:00:00Z", 48, true, Some(47));
        check("2029-03-15T00:00:00Z", 825, false, None);
        check("2026-01-01T00:00:00Z", 826, false, Some(825));
    }
}
