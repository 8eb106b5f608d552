//! Public-Key-Pins (RFC 7469).
//!
//! Browsers stopped enforcing the header between 2018 and 2020; scanners still read it, and applications, curl and
//! DANE enforce the same pins. A wrong one locks them out, so the rules below refuse before anything is sent.

use std::fmt::Write as _;

use crate::keys::pin::Pin;

/// The notice wherever the header is switched on or judged.
pub const TODAY: &str =
    "browsers stopped enforcing Public-Key-Pins in 2018-2020; apps, curl and DANE enforce the same pins";

/// The cap of browsers that enforced pins on max-age (RFC 7469 section 4.1), in seconds.
pub const MAX_AGE_CAP: u64 = 60 * 86400;

/// The form of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// `Public-Key-Pins`.
    Enforce,
    /// `Public-Key-Pins-Report-Only`.
    ReportOnly,
    /// `Public-Key-Pins` with max-age=0: clients forget the pins (section 2.3.1). The rest must
    /// still be valid.
    Withdraw,
}

/// A site's policy: the contents of its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hpkp {
    /// The form of the header.
    pub mode: Mode,
    /// The time for which clients hold the pins, in seconds.
    pub max_age: u64,
    /// The live keys' pins, then the backups'.
    pub pins: Vec<Pin>,
    /// `true` if the pins bind all names below the host.
    pub include_subdomains: bool,
    /// The URI for reports of violations: absolute, http or https.
    pub report_uri: Option<String>,
}

impl Hpkp {
    /// The field's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.mode {
            Mode::ReportOnly => "Public-Key-Pins-Report-Only",
            Mode::Enforce | Mode::Withdraw => "Public-Key-Pins",
        }
    }

    /// The field's value, in the form that all old parsers accept: quoted pins, unquoted max-age,
    /// one space after each semicolon, and no semicolon at the end (sections 2.1 and 2.2.1).
    #[must_use]
    pub fn value(&self) -> String {
        let mut value = String::new();
        for pin in &self.pins {
            let _ = write!(value, "pin-sha256=\"{pin}\"; ");
        }
        let max_age = if self.mode == Mode::Withdraw { 0 } else { self.max_age };
        let _ = write!(value, "max-age={max_age}");
        if self.include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if let Some(uri) = &self.report_uri {
            let _ = write!(value, "; report-uri=\"{uri}\"");
        }
        value
    }
}

/// A fault of a set of pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinFinding {
    /// No pin matches a key of the served chain: clients would ignore the header (section 2.5).
    NoLivePin,
    /// No backup, or none outside the served chain (section 4.3).
    NoBackup,
    /// This backup is a live key, or is in the served chain.
    BackupIsServed(Pin),
    /// The same backup twice.
    BackupTwice(Pin),
    /// Only one backup: if it is lost, the next rotation locks clients out.
    SingleBackup,
    /// max-age exceeds the 60 days for which clients keep pins at most.
    MaxAgeAboveCap,
    /// Clients hold the pins longer than the certificate lasts, and there is no second backup.
    OutlivesCertificate,
}

impl PinFinding {
    /// `true` if the pins must not be sent.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::NoLivePin | Self::NoBackup | Self::BackupIsServed(_) | Self::BackupTwice(_))
    }
}

/// Judges a set of pins against the chains that are served with it. `lifetime` is the remaining
/// validity of the shortest-lived certificate, in seconds.
#[must_use]
pub fn judge(chains: &[Vec<Pin>], backups: &[Pin], max_age: u64, lifetime: u64) -> Vec<PinFinding> {
    let mut findings = Vec::new();
    // The leaf's pin is the live pin, so every chain that has one of the pins matches.
    if chains.is_empty() || chains.iter().any(Vec::is_empty) {
        findings.push(PinFinding::NoLivePin);
    }
    let mut outside = Vec::new();
    for backup in backups {
        if chains.iter().any(|chain| chain.contains(backup)) {
            findings.push(PinFinding::BackupIsServed(*backup));
        } else if outside.contains(backup) {
            findings.push(PinFinding::BackupTwice(*backup));
        } else {
            outside.push(*backup);
        }
    }
    match outside.len() {
        0 => findings.push(PinFinding::NoBackup),
        1 => {
            findings.push(PinFinding::SingleBackup);
            if max_age > lifetime {
                findings.push(PinFinding::OutlivesCertificate);
            }
        }
        _ => {}
    }
    if max_age > MAX_AGE_CAP {
        findings.push(PinFinding::MaxAgeAboveCap);
    }
    findings
}

/// The consequence of the findings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PinStanding {
    /// The site must not be served like this.
    pub is_refused: bool,
    /// The site may be served without pins: its last backup has become live.
    pub is_withheld: bool,
    /// The backups that have become live, as backups are meant to.
    pub promoted: Vec<Pin>,
}

/// Sums up findings. A backup that is served has become live, as backups are meant to: the site
/// continues, without pins until there is another backup.
#[must_use]
pub fn standing(findings: &[PinFinding]) -> PinStanding {
    let mut standing = PinStanding::default();
    for finding in findings.iter().filter(|f| f.is_fatal()) {
        match finding {
            PinFinding::BackupIsServed(pin) => standing.promoted.push(*pin),
            PinFinding::NoBackup if !standing.promoted.is_empty() => standing.is_withheld = true,
            _ => standing.is_refused = true,
        }
    }
    standing
}

/// `true` if a text can be a report-uri: absolute, http or https, without bytes that the quoted
/// string or the header cannot hold (section 2.1.4).
#[must_use]
pub fn is_report_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    (scheme == "http" || scheme == "https")
        && !rest.is_empty()
        && !rest.starts_with('/')
        && uri.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pin(n: u8) -> Pin {
        Pin::of_spki(&[n])
    }

    fn hpkp(mode: Mode) -> Hpkp {
        Hpkp { mode, max_age: 2_592_000, pins: vec![pin(1), pin(2)], include_subdomains: false, report_uri: None }
    }

    #[test]
    fn rendering() {
        let (a, b) = (pin(1), pin(2));
        let want = format!("pin-sha256=\"{a}\"; pin-sha256=\"{b}\"; max-age=2592000");
        assert_eq!(hpkp(Mode::Enforce).value(), want);
        assert_eq!(hpkp(Mode::Enforce).name(), "Public-Key-Pins");
        assert_eq!(hpkp(Mode::ReportOnly).name(), "Public-Key-Pins-Report-Only");
        assert_eq!(hpkp(Mode::Withdraw).value(), format!("pin-sha256=\"{a}\"; pin-sha256=\"{b}\"; max-age=0"));
        let full = Hpkp {
            include_subdomains: true,
            report_uri: Some("https://r.example/p?a=1;b".into()),
            ..hpkp(Mode::Enforce)
        };
        assert_eq!(full.value(), want + "; includeSubDomains; report-uri=\"https://r.example/p?a=1;b\"");
    }

    #[test]
    fn judgement() {
        let day = 86400;
        let check = |chains: &[&[u8]], backups: &[u8], max_age: u64, want: &[PinFinding]| {
            let chains: Vec<Vec<Pin>> = chains.iter().map(|c| c.iter().map(|n| pin(*n)).collect()).collect();
            let backups: Vec<Pin> = backups.iter().map(|n| pin(*n)).collect();
            assert_eq!(judge(&chains, &backups, max_age, 90 * day), want, "{backups:?}");
        };
        check(&[&[1, 9]], &[2, 3], 30 * day, &[]);
        check(&[&[1, 9], &[5, 9]], &[2, 3], 30 * day, &[]);
        check(&[&[1, 9]], &[2], 30 * day, &[PinFinding::SingleBackup]);
        check(&[&[1, 9]], &[], 30 * day, &[PinFinding::NoBackup]);
        check(&[&[1, 9]], &[1], 30 * day, &[PinFinding::BackupIsServed(pin(1)), PinFinding::NoBackup]);
        check(&[&[1, 9]], &[9, 2, 3], 30 * day, &[PinFinding::BackupIsServed(pin(9))]);
        check(&[&[1, 9], &[5, 9]], &[5, 2], 30 * day, &[PinFinding::BackupIsServed(pin(5)), PinFinding::SingleBackup]);
        check(&[&[1]], &[2, 2], 30 * day, &[PinFinding::BackupTwice(pin(2)), PinFinding::SingleBackup]);
        check(&[], &[2, 3], 30 * day, &[PinFinding::NoLivePin]);
        check(&[&[1]], &[2, 3], 61 * day, &[PinFinding::MaxAgeAboveCap]);
        check(
            &[&[1]],
            &[2],
            91 * day,
            &[PinFinding::SingleBackup, PinFinding::OutlivesCertificate, PinFinding::MaxAgeAboveCap],
        );
        check(&[&[1]], &[2, 3], 91 * day, &[PinFinding::MaxAgeAboveCap]);
    }

    #[test]
    fn a_backup_that_became_live() {
        let check = |backups: &[u8], want: (bool, bool, usize)| {
            let backups: Vec<Pin> = backups.iter().map(|n| pin(*n)).collect();
            let found = judge(&[vec![pin(1), pin(9)]], &backups, 1, 2);
            let standing = standing(&found);
            assert_eq!((standing.is_refused, standing.is_withheld, standing.promoted.len()), want, "{backups:?}");
        };
        check(&[2], (false, false, 0));
        check(&[1, 2], (false, false, 1));
        check(&[1], (false, true, 1));
        check(&[1, 9], (false, true, 2));
        // Faults that time cannot cause.
        check(&[], (true, false, 0));
        check(&[2, 2], (true, false, 0));
    }

    #[test]
    fn report_uris() {
        for good in ["https://reports.example.net/hpkp", "http://r.example", "https://r.example/a?b=c;d"] {
            assert!(is_report_uri(good), "{good}");
        }
        for bad in [
            "",
            "/relative",
            "ftp://r.example/",
            "https://",
            "https:///x",
            "https://r.example/\"",
            "https://r.example/ x",
            "https://r.example/\r\nX: y",
            "https://r/\\",
        ] {
            assert!(!is_report_uri(bad), "{bad:?}");
        }
    }

    /// A parser by the grammar of RFC 7469 section 2.1, as strict as the strictest browser, and
    /// written independently of the writer. Returns pins, max-age, includeSubDomains, report-uri.
    fn read(value: &str) -> Option<(Vec<Pin>, u64, bool, Option<String>)> {
        let (mut pins, mut age, mut subdomains, mut uri) = (Vec::new(), None, false, None);
        let mut rest = value;
        loop {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
            let name = &rest[..end];
            rest = &rest[end..];
            let mut argument = None;
            if let Some(after) = rest.strip_prefix('=') {
                if let Some(quoted) = after.strip_prefix('"') {
                    let close = quoted.find('"')?;
                    argument = Some((true, &quoted[..close]));
                    rest = &quoted[close + 1..];
                } else {
                    let end = after.find(';').unwrap_or(after.len());
                    argument = Some((false, &after[..end]));
                    rest = &after[end..];
                }
            }
            match (name, argument) {
                ("pin-sha256", Some((true, text))) if text.len() == 44 => pins.push(text.parse().ok()?),
                ("max-age", Some((false, text))) if age.is_none() => age = Some(text.parse().ok()?),
                ("includeSubDomains", None) if !subdomains => subdomains = true,
                ("report-uri", Some((true, text))) if uri.is_none() => uri = Some(text.to_owned()),
                _ => return None,
            }
            if rest.is_empty() {
                return Some((pins, age?, subdomains, uri));
            }
            rest = rest.strip_prefix("; ")?;
        }
    }

    proptest! {
        #[test]
        fn round_trip(keys in prop::collection::vec(any::<u8>(), 1..6), max_age in any::<u64>(), sub in any::<bool>(),
                      uri in prop::option::of("https://[a-z.]{1,20}/[!#-~&&[^\\\\]]{0,30}")) {
            let pins: Vec<Pin> = keys.iter().map(|n| pin(*n)).collect();
            prop_assume!(uri.as_deref().is_none_or(is_report_uri));
            let hpkp = Hpkp { mode: Mode::Enforce, max_age, pins: pins.clone(), include_subdomains: sub, report_uri: uri.clone() };
            prop_assert_eq!(read(&hpkp.value()), Some((pins, max_age, sub, uri)));
        }

        #[test]
        fn what_is_admitted_has_a_live_and_a_backup_pin(
            chain in prop::collection::vec(0u8..6, 0..3), backups in prop::collection::vec(0u8..6, 0..4)
        ) {
            let chain: Vec<Pin> = chain.into_iter().map(pin).collect();
            let backups: Vec<Pin> = backups.into_iter().map(pin).collect();
            let fatal = judge(std::slice::from_ref(&chain), &backups, 1, 2).iter().any(|f| f.is_fatal());
            let sound = !chain.is_empty() && !backups.is_empty() && backups.iter().all(|b| !chain.contains(b));
            if !fatal {
                prop_assert!(sound);
            }
        }
    }
}
