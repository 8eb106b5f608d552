//! Reads values of Strict-Transport-Security (RFC 6797 section 6.1) and Public-Key-Pins (RFC 7469
//! section 2.1) strictly by their grammars, and names each error.
//!
//! ```text
//! Strict-Transport-Security = [ directive ] *( ";" [ directive ] )  ; white space between any
//! parts
//! Public-Key-Directives     = directive *( OWS ";" OWS directive )  ; white space nowhere else
//! directive                 = token [ "=" ( token / quoted-string ) ]
//! ```

use std::collections::HashSet;

use super::fault::{FaultKind, GrammarFault};
use super::field::PolicyField;
use crate::keys::pin::Pin;
use crate::policy::hpkp::is_report_uri;

/// The contents of a value, as far as it is readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Seconds; numbers that do not fit are read as the largest that does.
    pub max_age: Option<u64>,
    /// `true` if the policy binds the names below the host.
    pub include_subdomains: bool,
    /// `true` if it has `preload`, which is not in any RFC.
    pub preload: bool,
    /// The pins, in their order, with repetitions.
    pub pins: Vec<Pin>,
    /// The pins, and those that would be pins with right quotes. Clients must not accept the
    /// latter.
    pub meant_pins: Vec<Pin>,
    /// The number of pin-sha256 directives, valid or not.
    pub pin_directives: usize,
    /// The URI for reports of violations.
    pub report_uri: Option<String>,
    /// The grammar errors.
    pub faults: Vec<GrammarFault>,
}

impl Reading {
    /// Returns `true` if a client that follows the RFCs accepts the value. It must not repair
    /// anything.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.faults.iter().all(|fault| !fault.kind.voids())
    }
}

/// Reads a field's value.
#[must_use]
pub fn read(field: PolicyField, value: &[u8]) -> Reading {
    let mut reader = HeaderReader { field, reading: Reading::default(), seen: HashSet::new() };
    let pieces = split(value, true).unwrap_or_else(|| {
        // A quote is not closed: without quotes, each directive can still be reported on.
        reader.fault(FaultKind::Syntax, value);
        split(value, false).unwrap_or_default()
    });
    for piece in pieces {
        if piece.behind_comma {
            reader.fault(FaultKind::Comma, value);
        }
        reader.piece(piece.bytes.trim_ascii());
    }
    // RFC 7469 section 2.1.2: required in Public-Key-Pins, meaningless in
    // Public-Key-Pins-Report-Only.
    if !reader.seen.contains("max-age") && field != PolicyField::PkpReportOnly {
        reader.fault(FaultKind::MaxAgeMissing, value);
    }
    reader.reading
}

struct HeaderPiece<'a> {
    bytes: &'a [u8],
    behind_comma: bool,
}

/// Splits at semicolons, and at commas, a frequent mistake. With `quotes`, not inside quoted
/// strings; then `None` if one of those is not closed.
fn split(value: &[u8], quotes: bool) -> Option<Vec<HeaderPiece<'_>>> {
    let (mut pieces, mut start, mut behind_comma) = (Vec::new(), 0, false);
    let (mut quoted, mut escaped) = (false, false);
    for (at, b) in value.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if quotes => quoted = !quoted,
            b';' | b',' if !quoted => {
                pieces.push(HeaderPiece { bytes: &value[start..at], behind_comma });
                (start, behind_comma) = (at + 1, *b == b',');
            }
            _ => {}
        }
    }
    pieces.push(HeaderPiece { bytes: &value[start..], behind_comma });
    (!quoted).then_some(pieces)
}

/// The right side of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument<'a> {
    None,
    Token(&'a str),
    Quoted(String),
    /// Neither token nor quoted-string.
    Bad(&'a [u8]),
}

struct HeaderReader {
    field: PolicyField,
    reading: Reading,
    /// The names so far, in lower case.
    seen: HashSet<String>,
}

impl HeaderReader {
    fn fault(&mut self, kind: FaultKind, at: &[u8]) {
        match self.reading.faults.iter_mut().find(|fault| fault.kind == kind) {
            Some(fault) => fault.more += 1,
            None => self.reading.faults.push(GrammarFault::new(kind, at)),
        }
    }

    fn piece(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            // RFC 6797 section 6.1 allows empty directives; RFC 7469 section 2.1 does not, not even
            // at the end.
            if self.field != PolicyField::Sts {
                self.fault(FaultKind::EmptyDirective, b"");
            }
            return;
        }
        let (name, rest) = piece.split_at(piece.iter().position(|b| !is_token(*b)).unwrap_or(piece.len()));
        // A token is ASCII.
        let Some(name) = std::str::from_utf8(name).ok().filter(|n| !n.is_empty()) else {
            return self.fault(FaultKind::Syntax, piece);
        };
        let lower = name.to_ascii_lowercase();
        let argument = match rest.trim_ascii_start() {
            [] => Argument::None,
            [b'=', value @ ..] => {
                if rest[0] != b'=' || value.first().is_some_and(u8::is_ascii_whitespace) {
                    self.fault(FaultKind::SpaceAroundEquals(self.field), piece);
                }
                argument(value.trim_ascii_start())
            }
            [b':', ..] => {
                let kind = if lower == "max-age" { FaultKind::MaxAgeColon } else { FaultKind::Colon };
                self.reading.pin_directives += usize::from(lower == "pin-sha256");
                self.seen.insert(lower);
                return self.fault(kind, piece);
            }
            _ => {
                self.seen.insert(lower);
                return self.fault(FaultKind::Syntax, piece);
            }
        };
        // Only pins may be repeated (RFC 7469 section 2.1, rule 3).
        let is_pin = self.field != PolicyField::Sts && lower.starts_with("pin-");
        if !is_pin && !self.seen.insert(lower.clone()) {
            self.fault(FaultKind::DuplicateDirective, piece);
        }
        self.directive(&lower, &argument, piece);
    }

    fn directive(&mut self, name: &str, argument: &Argument<'_>, piece: &[u8]) {
        match (name, self.field) {
            ("max-age", _) => self.max_age(argument, piece),
            ("includesubdomains", _) => {
                self.reading.include_subdomains = true;
                self.no_value(argument, piece);
            }
            ("preload", PolicyField::Sts) => {
                self.reading.preload = true;
                self.no_value(argument, piece);
            }
            ("report-uri", PolicyField::Pkp | PolicyField::PkpReportOnly) => self.report_uri(argument, piece),
            (name, PolicyField::Pkp | PolicyField::PkpReportOnly) if name.starts_with("pin-") => {
                self.pin(name, argument, piece)
            }
            (name, _) => {
                let kind = match meant(name, self.field) {
                    Some(meant) => FaultKind::MisspeltDirective(meant),
                    None => FaultKind::UnknownDirective,
                };
                self.fault(kind, piece);
                if matches!(argument, Argument::Bad(_)) {
                    self.fault(FaultKind::Syntax, piece);
                }
            }
        }
    }

    /// RFC 6797 section 6.1.1, RFC 7469 section 2.1.2: digits, as a token or a quoted string.
    fn max_age(&mut self, argument: &Argument<'_>, piece: &[u8]) {
        let digits = match argument {
            Argument::Token(text) => text,
            Argument::Quoted(text) => text.as_str(),
            Argument::None | Argument::Bad(_) => "",
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return self.fault(FaultKind::MaxAgeInvalid, piece);
        }
        if matches!(argument, Argument::Quoted(_)) {
            self.fault(FaultKind::MaxAgeQuoted, piece);
        }
        self.reading.max_age.get_or_insert_with(|| digits.parse().unwrap_or(u64::MAX));
    }

    fn no_value(&mut self, argument: &Argument<'_>, piece: &[u8]) {
        if *argument != Argument::None {
            self.fault(FaultKind::UnexpectedValue, piece);
        }
    }

    /// RFC 7469 section 2.1.1: `"pin-" token "=" quoted-string`.
    fn pin(&mut self, name: &str, argument: &Argument<'_>, piece: &[u8]) {
        if name != "pin-sha256" {
            let kind = match meant(name, self.field) {
                Some(meant) => FaultKind::MisspeltDirective(meant),
                // Section 2.1.1: clients ignore it, like any unknown directive.
                None => FaultKind::UnknownAlgorithm,
            };
            return self.fault(kind, piece);
        }
        self.reading.pin_directives += 1;
        match argument {
            Argument::Quoted(text) => match text.parse() {
                Ok(pin) => {
                    self.reading.pins.push(pin);
                    self.reading.meant_pins.push(pin);
                }
                Err(_) => self.fault(FaultKind::InvalidPin, piece),
            },
            Argument::None => self.fault(FaultKind::InvalidPin, piece),
            Argument::Token(text) => self.pin_without_quotes(text.as_bytes(), piece),
            Argument::Bad(bytes) => self.pin_without_quotes(bytes, piece),
        }
    }

    fn pin_without_quotes(&mut self, bytes: &[u8], piece: &[u8]) {
        // Single, typographic and escaped quotes, HTML entities, and a quote that is not closed.
        const QUOTES: [char; 10] =
            ['"', '\'', '`', '\\', '&', '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}'];
        let text = String::from_utf8_lossy(bytes);
        self.reading.meant_pins.extend(text.trim_matches(QUOTES).parse::<Pin>());
        self.fault(if text.starts_with(QUOTES) { FaultKind::MisquotedPin } else { FaultKind::UnquotedPin }, piece);
    }

    /// RFC 7469 section 2.1.4.
    fn report_uri(&mut self, argument: &Argument<'_>, piece: &[u8]) {
        match argument {
            Argument::Quoted(uri) => {
                if !is_report_uri(uri) {
                    self.fault(FaultKind::InvalidReportUri, piece);
                }
                self.reading.report_uri.get_or_insert_with(|| uri.clone());
            }
            // ":" and "/" are not token characters.
            Argument::Token(_) | Argument::Bad(_) => self.fault(FaultKind::UnquotedReportUri, piece),
            Argument::None => self.fault(FaultKind::InvalidReportUri, piece),
        }
    }
}

fn argument(value: &[u8]) -> Argument<'_> {
    match value.split_first() {
        Some((b'"', quoted)) => unquote(quoted).map_or(Argument::Bad(value), Argument::Quoted),
        Some(_) if value.iter().all(|b| is_token(*b)) => {
            std::str::from_utf8(value).map_or(Argument::Bad(value), Argument::Token)
        }
        _ => Argument::Bad(value),
    }
}

/// Returns the text of a quoted string after its first quote. `None` if the quoted string is not
/// the whole of it (RFC 9110 section 5.6.4).
fn unquote(quoted: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => text.push(*bytes.next().filter(|b| is_text(**b))?),
            b if is_text(*b) => text.push(*b),
            _ => return None,
        }
    }
    bytes.as_slice().is_empty().then(|| String::from_utf8_lossy(&text).into_owned())
}

fn is_text(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

/// RFC 9110 section 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Returns the known directive that a name resembles.
fn meant(name: &str, field: PolicyField) -> Option<&'static str> {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match letters.as_str() {
        "maxage" | "age" => Some("max-age"),
        "includesubdomains" | "includesubdomain" | "includessubdomains" | "includesubdomians" | "includesub"
        | "includesubs" | "subdomains" => Some("includeSubDomains"),
        "preloaded" | "preloading" if field == PolicyField::Sts => Some("preload"),
        "pinsha256" | "sha256" if field != PolicyField::Sts => Some("pin-sha256"),
        "reporturi" | "reporturl" | "report" if field != PolicyField::Sts => Some("report-uri"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hpkp::{Hpkp, Mode};
    use crate::policy::hsts::{Hsts, UpstreamHeader};
    use proptest::prelude::*;

    const A: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const B: &str = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=";

    /// Returns the errors of a value in which pins replace `A` and `B`.
    #[track_caller]
    fn check(field: PolicyField, value: &str, want: &[FaultKind]) -> Reading {
        let value = value.replace("{A}", A).replace("{B}", B);
        let reading = read(field, value.as_bytes());
        let kinds: Vec<FaultKind> = reading.faults.iter().map(|f| f.kind).collect();
        assert_eq!(kinds, want, "{value}");
        reading
    }

    #[test]
    fn strict_transport_security() {
        use FaultKind as K;
        let sts = |value: &str, want: &[FaultKind]| check(PolicyField::Sts, value, want);
        let plain = sts("max-age=31536000", &[]);
        assert_eq!((plain.max_age, plain.include_subdomains, plain.preload), (Some(31_536_000), false, false));
        let full = sts("MAX-AGE=63072000 ;includesubdomains;\tpreload;", &[]);
        assert_eq!((full.max_age, full.include_subdomains, full.preload), (Some(63_072_000), true, true));
        sts(";; max-age=0 ;;", &[]);
        assert_eq!(sts("max-age=99999999999999999999999", &[]).max_age, Some(u64::MAX));
        assert_eq!(sts("max-age=\"5\"", &[K::MaxAgeQuoted]).max_age, Some(5));
        assert!(sts("max-age = 5", &[K::SpaceAroundEquals(PolicyField::Sts)]).is_valid());
        assert!(sts("max-age=5; other; x=\"a;b,c\"", &[K::UnknownDirective]).is_valid());
        assert!(sts("max-age=5; includeSubDomain", &[K::MisspeltDirective("includeSubDomains")]).is_valid());
        for (value, fault) in [
            ("max-age: 31536000", K::MaxAgeColon),
            ("max-age:31536000; includeSubDomains", K::MaxAgeColon),
            ("includeSubDomains", K::MaxAgeMissing),
            ("", K::MaxAgeMissing),
            ("max-age", K::MaxAgeInvalid),
            ("max-age=", K::MaxAgeInvalid),
            ("max-age=1y", K::MaxAgeInvalid),
            ("max-age=-1", K::MaxAgeInvalid),
            ("max-age=1.5", K::MaxAgeInvalid),
            ("max-age=\"\"", K::MaxAgeInvalid),
            ("max-age=31536000 includeSubDomains", K::MaxAgeInvalid),
            ("max-age='5'", K::MaxAgeInvalid),
            ("max-age 5", K::Syntax),
            ("max-age=5; max-age=5", K::DuplicateDirective),
            ("max-age=5; preload; Preload", K::DuplicateDirective),
            ("max-age=5; x; X", K::DuplicateDirective),
            ("max-age=5; includeSubDomains=true", K::UnexpectedValue),
            ("max-age=5; includeSubDomains=\"\"", K::UnexpectedValue),
            ("max-age=5, includeSubDomains", K::Comma),
            ("max-age=5; includeSubDomains: true", K::Colon),
            ("max-age=5; =", K::Syntax),
            ("max-age=5; \u{fc}", K::Syntax),
        ] {
            let reading = read(PolicyField::Sts, value.as_bytes());
            assert!(!reading.is_valid() && reading.faults.iter().any(|f| f.kind == fault), "{value}: {reading:?}");
        }
        assert!(!read(PolicyField::Sts, b"\"max-age=31536000; includeSubDomains\"").is_valid());
    }

    #[test]
    fn public_key_pins() {
        use FaultKind as K;
        let pkp = |value: &str, want: &[FaultKind]| check(PolicyField::Pkp, value, want);
        let full = "pin-sha256=\"{A}\"; max-age=5184000;includeSubDomains ; pin-sha256=\"{B}\"; report-uri=\"https://r.example/a;b,c\"";
        let reading = pkp(full, &[]);
        assert_eq!(reading.pins, [A.parse().unwrap(), B.parse().unwrap()]);
        assert_eq!(reading.report_uri.as_deref(), Some("https://r.example/a;b,c"));
        assert!(reading.include_subdomains);
        assert!(pkp("PIN-SHA256=\"{A}\"; Max-Age=\"5\"", &[K::MaxAgeQuoted]).is_valid());
        assert!(pkp("pin-sha256=\"{A}\"; pin-sha1=\"AAAA\"; max-age=5", &[K::UnknownAlgorithm]).is_valid());
        for (value, fault) in [
            ("pin-sha256={A}; max-age=5", K::UnquotedPin),
            ("pin-sha256='{A}'; max-age=5", K::MisquotedPin),
            ("pin-sha256=\u{201c}{A}\u{201d}; max-age=5", K::MisquotedPin),
            ("pin-sha256=\\\"{A}\\\"; max-age=5", K::MisquotedPin),
            ("pin-sha256=\\\"{A}\\\"; pin-sha256=\\\"{B}\\\"; max-age=5", K::MisquotedPin),
            ("pin-sha256=\"{A}; max-age=5", K::MisquotedPin),
            ("pin-sha256=\"{A}\"x; max-age=5", K::MisquotedPin),
            ("pin-sha256=\"AAAA\"; max-age=5", K::InvalidPin),
            ("pin-sha256=\"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=\"; max-age=5", K::InvalidPin),
            ("pin-sha256=\"\"; max-age=5", K::InvalidPin),
            ("pin-sha256; max-age=5", K::InvalidPin),
            ("pin-sha256=\"{A}\"; max-age: 5", K::MaxAgeColon),
            ("pin-sha256: \"{A}\"; max-age=5", K::Colon),
            ("pin-sha256=\"{A}\"", K::MaxAgeMissing),
            ("pin-sha256=\"{A}\"; max-age=5;", K::EmptyDirective),
            ("pin-sha256=\"{A}\";; max-age=5", K::EmptyDirective),
            ("; pin-sha256=\"{A}\"; max-age=5", K::EmptyDirective),
            ("", K::EmptyDirective),
            ("pin-sha256 = \"{A}\"; max-age=5", K::SpaceAroundEquals(PolicyField::Pkp)),
            ("pin-sha256=\"{A}\", pin-sha256=\"{B}\", max-age=5", K::Comma),
            ("pin-sha256=\"{A}\"; max-age=5; max-age=6", K::DuplicateDirective),
            ("pin-sha256=\"{A}\"; max-age=5; includeSubDomains=1", K::UnexpectedValue),
            ("pin-sha256=\"{A}\"; max-age=5; report-uri=https://r.example/", K::UnquotedReportUri),
            ("pin-sha256=\"{A}\"; max-age=5 report-uri=\"https://r.example/\"", K::MaxAgeInvalid),
        ] {
            let value = value.replace("{A}", A).replace("{B}", B);
            let reading = read(PolicyField::Pkp, value.as_bytes());
            assert!(!reading.is_valid() && reading.faults.iter().any(|f| f.kind == fault), "{value}: {reading:?}");
        }
        for (value, fault) in [
            ("pin-sha-256=\"{A}\"; max-age=5", K::MisspeltDirective("pin-sha256")),
            ("pin-sha256=\"{A}\"; max-age=5; report-uri=\"/relative\"", K::InvalidReportUri),
            ("pin-sha256=\"{A}\"; max-age=5; report-url=\"https://r.example/\"", K::MisspeltDirective("report-uri")),
            ("pin-sha256=\"{A}\"; max-age=5; strict", K::UnknownDirective),
        ] {
            assert!(pkp(value, &[fault]).is_valid());
        }
        check(PolicyField::PkpReportOnly, "pin-sha256=\"{A}\"; report-uri=\"https://r.example/\"", &[]);
    }

    #[test]
    fn the_same_fault_is_told_once() {
        let reading = check(PolicyField::Pkp, "pin-sha256={A}; pin-sha256={B}; max-age=5", &[FaultKind::UnquotedPin]);
        assert_eq!((reading.faults[0].more, reading.pin_directives, reading.pins.len()), (1, 2, 0));
        assert!(reading.faults[0].at.starts_with("pin-sha256=47DE"), "{:?}", reading.faults);
        assert_eq!(reading.meant_pins, [A.parse().unwrap(), B.parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn bytes_never_panic(value in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"max-ge=pin\";, \\:'"[..])], 0..120)) {
            for field in [PolicyField::Sts, PolicyField::Pkp, PolicyField::PkpReportOnly] {
                let reading = read(field, &value);
                for fault in &reading.faults {
                    let _ = fault.finding(field);
                }
            }
        }

        #[test]
        fn what_pintle_sends_is_without_fault(
            keys in prop::collection::vec(any::<u8>(), 1..6), max_age in any::<u64>(), subdomains in any::<bool>(),
            preload in any::<bool>(), uri in prop::option::of("https://[a-z.]{1,20}/[!#-~&&[^\\\\]]{0,30}")
        ) {
            let pins: Vec<Pin> = keys.iter().map(|n| Pin::of_spki(&[*n])).collect();
            let hpkp = Hpkp { mode: Mode::Enforce, max_age, pins: pins.clone(), include_subdomains: subdomains, report_uri: uri.clone() };
            let got = read(PolicyField::Pkp, hpkp.value().as_bytes());
            prop_assert_eq!(&got.faults, &[]);
            prop_assert_eq!((got.pins, got.max_age, got.include_subdomains, got.report_uri), (pins, Some(max_age), subdomains, uri));
            let hsts = Hsts { max_age, include_subdomains: subdomains, preload, upstream: UpstreamHeader::Replace };
            let got = read(PolicyField::Sts, hsts.to_string().as_bytes());
            prop_assert_eq!(&got.faults, &[]);
            prop_assert_eq!((got.max_age, got.include_subdomains, got.preload), (Some(max_age), subdomains, preload));
        }
    }
}
