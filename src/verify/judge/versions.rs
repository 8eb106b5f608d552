//! TLS versions.

use crate::verify::finding::{Group, Level, VerifyFinding};
use crate::verify::hello::TlsVersion;

/// The result for one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionResult {
    /// The version.
    pub version: TlsVersion,
    /// `true` if the server accepts it; `None` if unknown.
    pub offered: Option<bool>,
    /// The reason why it is unknown.
    pub unknown: Option<String>,
}

/// Judges each version.
#[must_use]
pub fn judge(offers: &[VersionResult]) -> Vec<VerifyFinding> {
    let offered = |version| offers.iter().any(|o| o.version == version && o.offered == Some(true));
    offers.iter().map(|offer| row(offer, offered(TlsVersion::Tls13))).collect()
}

fn row(offer: &VersionResult, has_tls13: bool) -> VerifyFinding {
    let name = offer.version.as_str();
    let row = |level, message: String| VerifyFinding::new(Group::Tls, level, check(offer.version), message);
    match (offer.version, offer.offered) {
        (_, None) => {
            let why = offer.unknown.as_deref().unwrap_or_default();
            row(Level::Note, format!("{name}: unknown: {why}"))
        }
        (TlsVersion::Tls13 | TlsVersion::Tls12, Some(true)) => row(Level::Ok, format!("{name} is offered")),
        (TlsVersion::Tls13, Some(false)) => row(Level::Warning, format!("{name} is not offered"))
            .hint("it is faster and hides more of the handshake; all current servers have it"),
        (TlsVersion::Tls12, Some(false)) if has_tls13 => {
            row(Level::Note, format!("{name} is not offered, which excludes clients from before 2018"))
        }
        (TlsVersion::Tls12, Some(false)) => row(Level::Error, format!("neither {name} nor TLS 1.3 is offered"))
            .hint("current browsers do not connect (RFC 8996)"),
        (_, Some(false)) => row(Level::Ok, format!("{name} is not offered")),
        (version, Some(true)) => {
            let rfc = if version == TlsVersion::Ssl30 { "RFC 7568" } else { "RFC 8996" };
            row(Level::Error, format!("{name} is offered, which {rfc} forbids")).hint("offer TLS 1.2 and 1.3 only")
        }
    }
}

fn check(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls13 => "tls-1.3",
        TlsVersion::Tls12 => "tls-1.2",
        TlsVersion::Tls11 => "tls-1.1",
        TlsVersion::Tls10 => "tls-1.0",
        TlsVersion::Ssl30 => "ssl-3.0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use Level::{Error, Note, Ok, Warning};
        let check = |offered: [Option<bool>; 5], want: [Level; 5]| {
            let offers = TlsVersion::ALL.into_iter().zip(offered);
            let offers: Vec<VersionResult> =
                offers.map(|(version, offered)| VersionResult { version, offered, unknown: None }).collect();
            assert_eq!(judge(&offers).iter().map(|f| f.level).collect::<Vec<_>>(), want, "{offered:?}");
        };
        let (yes, no) = (Some(true), Some(false));
        check([yes, yes, no, no, no], [Ok; 5]);
        check([no, yes, no, no, no], [Warning, Ok, Ok, Ok, Ok]);
        check([yes, no, no, no, no], [Ok, Note, Ok, Ok, Ok]);
        check([no, no, yes, yes, yes], [Warning, Error, Error, Error, Error]);
        check([yes, yes, None, no, no], [Ok, Ok, Note, Ok, Ok]);
    }
}
