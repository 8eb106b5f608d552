//! Reads PEM (RFC 7468) without skipping anything silently: each section is either understood or an
//! error with its line number.
//!
//! Accepted where the meaning is clear: a byte order mark, text between sections, any line ending,
//! white space around lines, and a BEGIN directly after an END on the same line.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

/// Base64 with optional padding, as OpenSSL takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Room for the base64 of a private key: RSA with 8192 bits needs less.
const KEY_TEXT: usize = 8 << 10;

/// The longest part of a line that a message shows, in characters.
const SHOWN_MAX: usize = 60;

/// One section of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The line of its BEGIN, from 1.
    pub line: usize,
    /// Its label: `CERTIFICATE`.
    pub label: String,
    /// `true` if its header marks it as encrypted (RFC 1421 section 4.6.1.1), as in OpenSSL's older
    /// private keys.
    pub is_encrypted: bool,
    /// Its contents, which may be a key: they are wiped. An encrypted section stays encrypted.
    pub der: Zeroizing<Vec<u8>>,
}

/// A malformed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemError {
    /// Its number, from 1.
    pub line: usize,
    /// The reason.
    pub fault: PemFault,
}

/// The reason why a line is malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemFault {
    /// It resembles a BEGIN or END line, but is not one.
    Armour(String),
    /// An END without a BEGIN.
    StrayEnd(String),
    /// A BEGIN inside the section that began in this line.
    Nested(usize),
    /// An END whose label differs from that of the BEGIN.
    WrongEnd {
        /// The label of the BEGIN.
        begun: String,
        /// The label of the END.
        ended: String,
    },
    /// The section has no END.
    NoEnd(String),
    /// It is not base64.
    NotBase64,
    /// The section is empty.
    Empty(String),
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.fault {
            PemFault::Armour(text) => write!(
                f,
                "{text:?} resembles the BEGIN or END of a section, but is not one: expected -----BEGIN LABEL----- alone"
            ),
            PemFault::StrayEnd(label) => write!(f, "END {label} without a BEGIN"),
            PemFault::Nested(line) => write!(f, "a section begins inside the section of line {line}"),
            PemFault::WrongEnd { begun, ended } => write!(f, "END {ended} ends a section that began as {begun}"),
            PemFault::NoEnd(label) => write!(f, "section {label} begins here and has no END"),
            PemFault::NotBase64 => f.write_str("not base64"),
            PemFault::Empty(label) => write!(f, "section {label} is empty"),
        }
    }
}

/// Returns `true` if a file is PEM or resembles it: one of its lines resembles a BEGIN or END.
#[must_use]
pub fn is_pem(contents: &[u8]) -> bool {
    lines(contents).any(|(_, line)| looks_like_armour(&line))
}

/// Returns a section in PEM.
#[must_use]
pub fn written(label: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    let text = Zeroizing::new(STANDARD.encode(der));
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

/// Returns certificates in PEM.
#[must_use]
pub fn certificates(der: &[CertificateDer<'_>]) -> String {
    der.iter().map(|one| written("CERTIFICATE", one)).collect()
}

/// Reads all sections of a file.
///
/// # Errors
///
/// [`PemError`] for the first malformed line.
pub fn read(contents: &[u8]) -> Result<Vec<Section>, PemError> {
    let mut sections = Vec::new();
    let mut open: Option<OpenSection> = None;
    for (number, line) in lines(contents) {
        for part in parts(&line) {
            let error = |fault| PemError { line: number, fault };
            match (armour(part), open.take()) {
                (Armour::Begin(label), None) => open = Some(OpenSection::new(number, label)),
                (Armour::Begin(_), Some(section)) => return Err(error(PemFault::Nested(section.line))),
                (Armour::End(label), None) => return Err(error(PemFault::StrayEnd(shown(label)))),
                (Armour::End(label), Some(section)) => sections.push(section.end(number, label)?),
                (Armour::Odd, _) => return Err(error(PemFault::Armour(shown(part)))),
                (Armour::None, Some(mut section)) => {
                    section.take(number, part)?;
                    open = Some(section);
                }
                (Armour::None, None) => {}
            }
        }
    }
    match open {
        Some(section) => Err(PemError { line: section.line, fault: PemFault::NoEnd(shown(&section.label)) }),
        None => Ok(sections),
    }
}

/// A section whose END has not been read yet.
struct OpenSection {
    line: usize,
    label: String,
    is_encrypted: bool,
    /// Inside its header: fields of RFC 1421, up to an empty line.
    in_header: bool,
    /// The base64 read so far, and the line where it began.
    text: Zeroizing<Vec<u8>>,
    begin: usize,
}

impl OpenSection {
    fn new(line: usize, label: &str) -> Self {
        // Whatever outgrows this leaves copies behind.
        let text = Zeroizing::new(Vec::with_capacity(KEY_TEXT));
        Self { line, label: label.to_owned(), is_encrypted: false, in_header: false, text, begin: 0 }
    }

    fn take(&mut self, number: usize, line: &str) -> Result<(), PemError> {
        if self.text.is_empty() && line.contains(':') {
            self.in_header = true;
            let (name, value) = line.split_once(':').unwrap_or_default();
            self.is_encrypted |= name.trim() == "Proc-Type" && value.contains("ENCRYPTED");
            return Ok(());
        }
        if line.is_empty() {
            self.in_header = false;
            return Ok(());
        }
        // A folded field.
        if self.in_header {
            return Ok(());
        }
        let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b' ' | b'\t');
        if !line.bytes().all(is_base64) {
            return Err(PemError { line: number, fault: PemFault::NotBase64 });
        }
        if self.text.is_empty() {
            self.begin = number;
        }
        self.text.extend(line.bytes().filter(|b| !b.is_ascii_whitespace()));
        Ok(())
    }

    fn end(self, number: usize, label: &str) -> Result<Section, PemError> {
        if self.label != label {
            let fault = PemFault::WrongEnd { begun: shown(&self.label), ended: shown(label) };
            return Err(PemError { line: number, fault });
        }
        if self.text.is_empty() {
            return Err(PemError { line: self.line, fault: PemFault::Empty(shown(&self.label)) });
        }
        let der = BASE64
            .decode(self.text.as_slice())
            .map_err(|_| PemError { line: self.begin, fault: PemFault::NotBase64 })?;
        let der = Zeroizing::new(der);
        Ok(Section { line: self.line, label: self.label, is_encrypted: self.is_encrypted, der })
    }
}

/// The kind of a line.
enum Armour<'a> {
    Begin(&'a str),
    End(&'a str),
    /// It resembles one of them.
    Odd,
    None,
}

fn armour(line: &str) -> Armour<'_> {
    let inner = line.strip_prefix("-----").and_then(|rest| rest.strip_suffix("-----"));
    let is_label = |label: &&str| {
        !label.is_empty()
            && label.trim() == *label
            && label.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
            && !label.contains("--")
    };
    if let Some(label) = inner.and_then(|i| i.strip_prefix("BEGIN ")).filter(is_label) {
        return Armour::Begin(label);
    }
    if let Some(label) = inner.and_then(|i| i.strip_prefix("END ")).filter(is_label) {
        return Armour::End(label);
    }
    if looks_like_armour(line) { Armour::Odd } else { Armour::None }
}

/// Returns the lines with their numbers, without surrounding white space and byte order marks. A
/// byte that is not UTF-8 is replaced, which makes its line malformed.
fn lines(contents: &[u8]) -> impl Iterator<Item = (usize, Zeroizing<String>)> + '_ {
    let mut rest = Some(contents);
    let mut number = 0;
    std::iter::from_fn(move || {
        let all = rest?;
        number += 1;
        let end = all.iter().position(|b| matches!(b, b'\n' | b'\r'));
        let line = &all[..end.unwrap_or(all.len())];
        rest = end.map(|end| {
            let width = if all[end..].starts_with(b"\r\n") { 2 } else { 1 };
            &all[end + width..]
        });
        let text = String::from_utf8_lossy(line);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').to_owned();
        Some((number, Zeroizing::new(text)))
    })
}

/// Splits a BEGIN from a preceding END on the same line: `cat` makes such lines if a file lacks its
/// last line ending.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    const JOINT: &str = "----------BEGIN ";
    let at = line.find(JOINT).filter(|_| line.starts_with("-----END ")).map(|at| at + 5);
    let (first, second) = at.map_or((line, None), |at| (&line[..at], Some(&line[at..])));
    // A byte order mark between them belongs to the second file.
    std::iter::once(first).chain(second)
}

/// Recognizes BEGIN or END beside two or more dashes (including those that word processors make),
/// or such a word at the beginning of a line in capitals.
fn looks_like_armour(line: &str) -> bool {
    // Most lines are base64.
    if !line.bytes().any(|b| b == b' ' || b == b'-' || b >= 0x80) {
        return false;
    }
    let mut plain = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\u{2014}' | '\u{2015}' => plain.push_str("--"),
            '\u{2010}'..='\u{2013}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}' => plain.push('-'),
            '\u{a0}' | '\u{feff}' | '\u{200b}' => plain.push(' '),
            c => plain.push(c.to_ascii_uppercase()),
        }
    }
    for word in ["BEGIN", "END"] {
        for (at, _) in plain.match_indices(word) {
            let (before, after) = (&plain[..at], &plain[at + word.len()..]);
            let is_word = !before.ends_with(|c: char| c.is_ascii_alphanumeric())
                && !after.starts_with(|c: char| c.is_ascii_alphanumeric());
            if is_word && (before.trim_end().ends_with("--") || (before.is_empty() && after.ends_with("--"))) {
                return true;
            }
        }
    }
    let is_capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, ' ' | '.' | '#');
    let inner = line.strip_prefix("-----").and_then(|rest| rest.strip_suffix("-----")).unwrap_or_default();
    if inner.contains(|c: char| c.is_ascii_uppercase()) && inner.chars().all(is_capital) {
        return true;
    }
    let begins = ["BEGIN ", "END "].iter().any(|word| line.starts_with(word));
    begins && line.chars().all(is_capital)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "-----BEGIN A-----\nAAAA\n-----END A-----\n";

    fn labels(text: &str) -> Vec<(usize, String)> {
        read(text.as_bytes()).unwrap().into_iter().map(|s| (s.line, s.label)).collect()
    }

    #[test]
    fn what_is_plain_is_accepted() {
        let a = |line| (line, "A".to_owned());
        assert_eq!(labels(GOOD), [a(1)]);
        assert_eq!(labels(&format!("\u{feff}{GOOD}")), [a(1)]);
        assert_eq!(labels(&format!("{GOOD}\u{feff}{GOOD}")), [a(1), a(4)]);
        assert_eq!(labels(&format!("subject=CN = a, C = b\nissuer:\n{GOOD}\nthe end\n")), [a(3)]);
        assert_eq!(labels(&format!("{}{GOOD}", GOOD.trim_end())), [a(1), a(3)]);
        assert_eq!(labels(&GOOD.replace('\n', "\r\n")), [a(1)]);
        assert_eq!(labels(&GOOD.replace('\n', "\r")), [a(1)]);
        assert_eq!(labels(&GOOD.replace('\n', " \t\n  ")), [a(1)]);
        assert_eq!(labels("-----BEGIN A-----\nComment: x\n\nAA\nA\n-----END A-----"), [a(1)]);
        assert!(labels("nothing here\n").is_empty());
    }

    #[test]
    fn what_is_not_names_its_line() {
        let check = |text: &str, want: &str| {
            let message = read(text.as_bytes()).unwrap_err().to_string();
            assert!(message.starts_with(want), "{text:?}: {message}");
        };
        for odd in [
            "<pre>-----BEGIN A-----",
            "----BEGIN A-----",
            "-----BEGIN A----",
            "-----BEGIN A",
            "BEGIN A-----",
            "BEGIN CERTIFICATE",
            "-----begin a-----",
            "\u{2014}\u{2014}-BEGIN A\u{2014}\u{2014}-",
            "# -----BEGIN A-----",
            "-----BEGIN A-----MIIB",
            "---- BEGIN SSH2 PUBLIC KEY ----",
            "-----BEGIN-----",
            "-----BEGINCERTIFICATE-----",
            "-----BEGIM CERTIFICATE-----",
            "----- BEGIN A -----",
            "-----BEGIN\u{a0}A-----",
        ] {
            check(&format!("{GOOD}{odd}\nAAAA\n"), "line 4: ");
            check(&format!("-----BEGIN A-----\n{odd}\nAAAA\n"), "line 2: ");
        }
        check("-----END A-----", "line 1: END A without a BEGIN");
        check("-----BEGIN A-----\nAAAA\n-----END B-----", "line 3: END B ends a section that began as A");
        check(
            "
        -----BEGIN A-----
        AAAA
        ",
            "line 2: section A begins here and has no END",
        );
        check(
            "-----BEGIN A-----
        AAAA
        -----BEGIN A-----
        ",
            "line 3: a section begins inside the section of line 1",
        );
        check("-----BEGIN A-----\nAAAA\nA!AA\n-----END A-----", "line 3: not base64");
        check("-----BEGIN A-----\nAAAAA\n-----END A-----", "line 2: not base64");
        check(
            "-----BEGIN A-----
        -----END A-----",
            "line 1: section A is empty",
        );
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[-BEGINDA \n\r\u{feff}—]{0,80}") {
            let _ = (read(&bytes), is_pem(&bytes), read(text.as_bytes()));
        }

        /// A change to one line of a file never loses a section silently.
        #[test]
        fn no_section_is_lost(at in 0usize..48, with in "[-<>a \u{feff}]{1,3}") {
            let whole = GOOD.repeat(3);
            let at = (0..=at).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
            let damaged = format!("{}{with}{}", &whole[..at], &whole[at..]);
            if let Ok(sections) = read(damaged.as_bytes()) {
                prop_assert_eq!(sections.len(), 3, "{:?}", damaged);
            }
        }
    }
}
