//! The judgement of one address of a name: whether a CA that connects there reaches this pintle.

use std::net::IpAddr;

use ipnet::IpNet;

/// Header fields by which a content delivery network shows itself: name, the beginning of the
/// value, the network.
const HEADERS: [(&str, &str, &str); 16] = [
    ("cf-ray", "", "Cloudflare"),
    ("server", "cloudflare", "Cloudflare"),
    ("x-amz-cf-id", "", "Amazon CloudFront"),
    ("server", "cloudfront", "Amazon CloudFront"),
    ("x-served-by", "cache-", "Fastly"),
    ("x-fastly-request-id", "", "Fastly"),
    ("server", "akamaighost", "Akamai"),
    ("x-akamai-request-id", "", "Akamai"),
    ("x-azure-ref", "", "Azure Front Door"),
    ("x-sucuri-id", "", "Sucuri"),
    ("x-iinfo", "", "Imperva"),
    ("server", "bunnycdn", "bunny.net"),
    ("server", "keycdn", "KeyCDN"),
    ("server", "ddos-guard", "DDoS-Guard"),
    ("x-vercel-id", "", "Vercel"),
    ("x-nf-request-id", "", "Netlify"),
];
/// The published address ranges of networks that answer for other people's names: Cloudflare and
/// Fastly (2026-08), GitHub Pages.
const RANGES: [(&str, &str); 43] = [
    ("173.245.48.0/20", "Cloudflare"),
    ("103.21.244.0/22", "Cloudflare"),
    ("103.22.200.0/22", "Cloudflare"),
    ("103.31.4.0/22", "Cloudflare"),
    ("141.101.64.0/18", "Cloudflare"),
    ("108.162.192.0/18", "Cloudflare"),
    ("190.93.240.0/20", "Cloudflare"),
    ("188.114.96.0/20", "Cloudflare"),
    ("197.234.240.0/22", "Cloudflare"),
    ("198.41.128.0/17", "Cloudflare"),
    ("162.158.0.0/15", "Cloudflare"),
    ("104.16.0.0/13", "Cloudflare"),
    ("104.24.0.0/14", "Cloudflare"),
    ("172.64.0.0/13", "Cloudflare"),
    ("131.0.72.0/22", "Cloudflare"),
    ("2400:cb00::/32", "Cloudflare"),
    ("2606:4700::/32", "Cloudflare"),
    ("2803:f800::/32", "Cloudflare"),
    ("2405:b500::/32", "Cloudflare"),
    ("2405:8100::/32", "Cloudflare"),
    ("2a06:98c0::/29", "Cloudflare"),
    ("2c0f:f248::/32", "Cloudflare"),
    ("23.235.32.0/20", "Fastly"),
    ("43.249.72.0/22", "Fastly"),
    ("103.244.50.0/24", "Fastly"),
    ("103.245.222.0/23", "Fastly"),
    ("103.245.224.0/24", "Fastly"),
    ("104.156.80.0/20", "Fastly"),
    ("140.248.64.0/18", "Fastly"),
    ("140.248.128.0/17", "Fastly"),
    ("146.75.0.0/17", "Fastly"),
    ("151.101.0.0/16", "Fastly"),
    ("157.52.64.0/18", "Fastly"),
    ("167.82.0.0/17", "Fastly"),
    ("167.82.128.0/20", "Fastly"),
    ("172.111.64.0/18", "Fastly"),
    ("185.31.16.0/22", "Fastly"),
    ("199.27.72.0/21", "Fastly"),
    ("199.232.0.0/16", "Fastly"),
    ("2a04:4e40::/32", "Fastly"),
    ("2a04:4e42::/32", "Fastly"),
    ("185.199.108.0/22", "GitHub Pages"),
    ("2606:50c0:8000::/46", "GitHub Pages"),
];

/// The answer to a probe of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The probe's own contents.
    Ours {
        /// A network that passed them on.
        cdn: Option<&'static str>,
    },
    /// Something else.
    Other {
        /// The answer in a few words.
        what: String,
        /// The network that it shows.
        cdn: Option<&'static str>,
    },
    /// No answer, and why.
    Nothing(String),
}

/// The facts about one address of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAddress {
    /// The address.
    pub address: IpAddr,
    /// The answer to the probe.
    pub answer: ProbeAnswer,
    /// The local address from which packets go there; `None` if there is no route.
    pub source: Option<IpAddr>,
    /// A certificate that is not one of pintle's, which is shown there.
    pub foreign: Option<String>,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It leads here.
    Here,
    /// It cannot be judged from here, and why.
    Unknown(&'static str),
    /// It does not lead here.
    Fault(AddressFault),
}

/// The reason why an address does not lead here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressFault {
    /// It belongs to this host, and nothing answers there.
    Closed(String),
    /// Nothing answers there.
    Dead(String),
    /// Another server answers.
    Elsewhere(String),
    /// A content delivery network answers, or passes the request on.
    Cdn(&'static str),
    /// TLS ends at another server, with this certificate.
    Tls(String),
}

/// Judges an address. `behind_proxy`: pintle trusts proxies in front of it.
#[must_use]
pub fn judge(seen: &SeenAddress, behind_proxy: bool) -> AddressVerdict {
    match &seen.answer {
        ProbeAnswer::Ours { cdn: Some(cdn) } => AddressVerdict::Fault(AddressFault::Cdn(cdn)),
        ProbeAnswer::Ours { cdn: None } => match &seen.foreign {
            // Behind an offloader, the certificate is the offloader's.
            Some(certificate) if !behind_proxy => AddressVerdict::Fault(AddressFault::Tls(certificate.clone())),
            _ => AddressVerdict::Here,
        },
        ProbeAnswer::Other { what, cdn } => match cdn.or_else(|| cdn_of(seen.address)) {
            Some(cdn) => AddressVerdict::Fault(AddressFault::Cdn(cdn)),
            None => AddressVerdict::Fault(AddressFault::Elsewhere(what.clone())),
        },
        ProbeAnswer::Nothing(why) => silent(seen, why, behind_proxy),
    }
}

/// No answer: a router that does not lead its own network's packets back in (no hairpin) is the one
/// innocent reason.
fn silent(seen: &SeenAddress, why: &str, behind_proxy: bool) -> AddressVerdict {
    let address = seen.address;
    if is_own(address, seen.source) {
        return AddressVerdict::Fault(AddressFault::Closed(why.to_owned()));
    }
    if let Some(cdn) = cdn_of(address) {
        return AddressVerdict::Fault(AddressFault::Cdn(cdn));
    }
    if !is_public(address) {
        return AddressVerdict::Fault(AddressFault::Dead(why.to_owned()));
    }
    if behind_proxy {
        return AddressVerdict::Unknown("a proxy in front of pintle may have this address");
    }
    match seen.source {
        Some(source) if is_translated(source) => {
            AddressVerdict::Unknown("this host has a private address, and its router may not return packets to it")
        }
        _ => AddressVerdict::Fault(AddressFault::Dead(why.to_owned())),
    }
}

/// Returns `true` for an address of this host: packets to it come from itself.
#[must_use]
pub fn is_own(address: IpAddr, source: Option<IpAddr>) -> bool {
    source == Some(address) || address.to_canonical().is_loopback()
}

/// Returns `true` for an address that its network translates on the way out.
fn is_translated(source: IpAddr) -> bool {
    match source.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Returns `true` for an address of carrier-grade NAT (RFC 6598).
fn is_shared(v4: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    a == 100 && b & 0xc0 == 64
}

/// Returns `true` for an address that a CA can reach.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_reserved = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a, b & 0xfe) == (198, 18);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || is_shared(v4)
                || is_reserved)
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let is_documentation = (first, second) == (0x2001, 0x0db8) || first == 0x3fff && second < 0x1000;
            // Global unicast addresses begin with 001.
            first & 0xe000 == 0x2000 && !is_documentation
        }
    }
}

/// Returns the network that an address belongs to.
#[must_use]
pub fn cdn_of(address: IpAddr) -> Option<&'static str> {
    let within = |range: &str| range.parse::<IpNet>().is_ok_and(|net| net.contains(&address.to_canonical()));
    RANGES.iter().find(|(range, _)| within(range)).map(|(_, cdn)| *cdn)
}

/// Returns the network that a response's fields show.
pub fn cdn_by<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<&'static str> {
    let mut fields = fields;
    fields.find_map(|(name, value)| {
        let value = value.to_ascii_lowercase();
        let fits = |(field, begin, _): &&(&str, &str, &str)| {
            name.eq_ignore_ascii_case(field) && value.starts_with(begin.as_bytes())
        };
        HEADERS.iter().find(fits).map(|(.., cdn)| *cdn)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(address: &str, answer: ProbeAnswer, source: Option<&str>) -> SeenAddress {
        SeenAddress {
            address: address.parse().unwrap(),
            answer,
            source: source.map(|s| s.parse().unwrap()),
            foreign: None,
        }
    }

    fn nothing() -> ProbeAnswer {
        ProbeAnswer::Nothing("timeout".into())
    }

    #[test]
    fn silent_addresses() {
        let dead = AddressVerdict::Fault(AddressFault::Dead("timeout".into()));
        let closed = AddressVerdict::Fault(AddressFault::Closed("timeout".into()));
        let hairpin =
            |address, source| matches!(judge(&seen(address, nothing(), source), false), AddressVerdict::Unknown(_));
        let check = |address, source, want: &AddressVerdict| {
            assert_eq!(&judge(&seen(address, nothing(), source), false), want, "{address} from {source:?}");
        };
        check("127.0.0.2", Some("127.0.0.1"), &closed);
        check("::1", Some("::1"), &closed);
        check("8.8.8.8", Some("8.8.8.8"), &closed);
        // Behind NAT, a public address may be the router's own.
        assert!(hairpin("8.8.8.8", Some("192.168.1.7")));
        assert!(hairpin("8.8.8.8", Some("100.64.0.9")));
        assert!(hairpin("2a01:4f8::1", Some("fd00::7")));
        // Addresses for documentation, private and reserved ones never are.
        for address in ["192.0.2.1", "198.51.100.7", "203.0.113.9", "10.9.9.9", "169.254.1.1", "240.0.0.1", "0.0.0.0"] {
            check(address, Some("192.168.1.7"), &dead);
        }
        check("2001:db8::1", Some("fd00::7"), &dead);
        check("2001:db8::1", None, &dead);
        // This host has a public address, or none of this family.
        check("8.8.8.8", Some("9.9.9.9"), &dead);
        check("2a01:4f8::1", Some("2a01:4f8::2"), &dead);
        check("2a01:4f8::1", None, &dead);
        check("104.16.1.1", Some("192.168.1.7"), &AddressVerdict::Fault(AddressFault::Cdn("Cloudflare")));
        assert!(matches!(judge(&seen("8.8.8.8", nothing(), Some("9.9.9.9")), true), AddressVerdict::Unknown(_)));
    }

    #[test]
    fn answers() {
        let ours = |cdn| ProbeAnswer::Ours { cdn };
        assert_eq!(judge(&seen("8.8.8.8", ours(None), Some("10.0.0.1")), false), AddressVerdict::Here);
        let through = judge(&seen("8.8.8.8", ours(Some("Fastly")), Some("10.0.0.1")), false);
        assert_eq!(through, AddressVerdict::Fault(AddressFault::Cdn("Fastly")));
        let other = |cdn| ProbeAnswer::Other { what: "status 404".into(), cdn };
        let elsewhere = AddressVerdict::Fault(AddressFault::Elsewhere("status 404".into()));
        assert_eq!(judge(&seen("8.8.8.8", other(None), Some("10.0.0.1")), false), elsewhere);
        let cdn = AddressVerdict::Fault(AddressFault::Cdn("Cloudflare"));
        assert_eq!(judge(&seen("8.8.8.8", other(Some("Cloudflare")), Some("10.0.0.1")), false), cdn);
        assert_eq!(judge(&seen("2606:4700::1", other(None), None), false), cdn);
        let foreign = SeenAddress { foreign: Some("x".into()), ..seen("8.8.8.8", ours(None), None) };
        assert_eq!(judge(&foreign, false), AddressVerdict::Fault(AddressFault::Tls("x".into())));
        assert_eq!(judge(&foreign, true), AddressVerdict::Here);
    }

    #[test]
    fn networks() {
        let by = |name: &str, value: &str| cdn_by([("content-type", &b"x"[..]), (name, value.as_bytes())].into_iter());
        assert_eq!(by("CF-Ray", "8a"), Some("Cloudflare"));
        assert_eq!(by("Server", "CloudFront"), Some("Amazon CloudFront"));
        assert_eq!(by("X-Served-By", "cache-fra-1"), Some("Fastly"));
        assert_eq!(by("x-served-by", "backend-7"), None);
        assert_eq!(by("Server", "nginx"), None);
        assert!(RANGES.iter().all(|(range, _)| range.parse::<IpNet>().is_ok()));
        assert_eq!(cdn_of("::ffff:104.16.0.1".parse().unwrap()), Some("Cloudflare"));
        assert_eq!(cdn_of("8.8.8.8".parse().unwrap()), None);
    }
}
