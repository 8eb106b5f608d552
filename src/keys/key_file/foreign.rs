//! Recognizes files with keys and certificates in formats that pintle does not read, and names the
//! command that converts them.

use std::path::Path;

use super::algorithm::UnusableForTls;
use crate::reason::shell_word;

/// A format that pintle does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// UTF-16, with its name for iconv.
    Utf16(&'static str),
    /// PKCS#7, in PEM or in DER: certificates without a key.
    Pkcs7 {
        /// `true` if it is in PEM.
        pem: bool,
    },
    /// PKCS#12: a certificate and its key under a password.
    Pkcs12,
    /// An OpenSSH private key.
    OpenSsh,
    /// DER with more data after its first certificate or key.
    Several {
        /// `true` if all of it is certificates.
        certificates: bool,
    },
    /// Base64 without its BEGIN and END lines.
    Base64 {
        /// `true` if it is in one line.
        one_line: bool,
    },
}

/// The part of the file that the caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The certificates in it.
    Chain,
    /// The private key in it.
    Key,
    /// The pin of any key in it.
    Pin,
}

impl Foreign {
    /// Names the format for messages, as in "is …".
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Utf16(_) => "UTF-16 text, where PEM is ASCII",
            Self::Pkcs7 { .. } => "PKCS#7, which pintle does not read",
            Self::Pkcs12 => "PKCS#12 (.pfx, .p12), which pintle does not read",
            Self::OpenSsh => "an OpenSSH private key, which TLS cannot use",
            Self::Several { certificates: true } => "several certificates in DER; a file of DER must hold one",
            Self::Several { certificates: false } => "DER with more data after its first certificate or key",
            Self::Base64 { .. } => "base64 without its BEGIN and END lines",
        }
    }

    /// Returns the command that converts it.
    pub(super) fn hint(self, path: &Path, want: Want) -> String {
        let (file, new) = (shell(path), shell(&beside(path, "new.pem")));
        match (self, want) {
            (Self::Utf16(name), _) => format!("iconv -f {name} -t UTF-8 {file} > {new}"),
            (Self::Pkcs7 { .. }, Want::Key) => {
                "it holds certificates only; name the file of the private key".to_owned()
            }
            (Self::Pkcs7 { pem: true }, _) => format!("openssl pkcs7 -print_certs -in {file} -out {new}"),
            (Self::Pkcs7 { pem: false }, _) => format!("openssl pkcs7 -inform DER -print_certs -in {file} -out {new}"),
            (Self::Pkcs12, Want::Chain) => format!("openssl pkcs12 -in {file} -nokeys -out {new}"),
            (Self::Pkcs12, Want::Key) => {
                format!("openssl pkcs12 -in {file} -nocerts -nodes -out {}", shell(&beside(path, "new.key")))
            }
            (Self::Pkcs12, Want::Pin) => format!("openssl pkcs12 -in {file} -nokeys -clcerts | pintle pin -"),
            (Self::OpenSsh, _) => {
                let key = shell(&beside(path, "new.key"));
                format!("cp {file} {key} && ssh-keygen -p -m PKCS8 -f {key}")
            }
            (Self::Several { .. }, Want::Key) => {
                format!("(umask 077; openssl storeutl -keys -out {} {file})", shell(&beside(path, "new.key")))
            }
            (Self::Several { .. }, Want::Chain) => format!("openssl storeutl -certs -out {new} {file}"),
            (Self::Several { certificates: true }, Want::Pin) => {
                format!("openssl x509 -inform DER -in {file} | pintle pin -")
            }
            (Self::Several { .. }, Want::Pin) => format!("openssl storeutl -out {new} {file}"),
            (Self::Base64 { one_line }, _) => {
                let flag = if one_line { " -A" } else { "" };
                format!("openssl base64 -d{flag} -in {file} -out {}", shell(&beside(path, "new.der")))
            }
        }
    }
}

/// Returns the same path with another extension.
pub(super) fn beside(path: &Path, ending: &str) -> std::path::PathBuf {
    path.with_extension(ending)
}

/// Returns a path quoted for a shell.
pub(super) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    // Not an option, unless it is standard input.
    shell_word(&if text.starts_with('-') && text != "-" { format!("./{text}") } else { text })
}

/// Returns the format of a file, if it is one of these.
pub(super) fn of(contents: &[u8]) -> Option<Foreign> {
    // BER with indefinite lengths, as some programs write it.
    const PKCS7: &[u8] = b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07";
    const PKCS12: &[u8] = b"\x30\x80\x02\x01\x03\x30";
    match contents {
        ber if ber.starts_with(PKCS7) => Some(Foreign::Pkcs7 { pem: false }),
        ber if ber.starts_with(PKCS12) => Some(Foreign::Pkcs12),
        _ => utf16(contents).map(Foreign::Utf16).or_else(|| if is_whole(contents) { of_der(contents) } else { None }),
    }
}

/// Recognizes UTF-16, with or without a byte order mark: each `-` has a NUL beside it.
fn utf16(contents: &[u8]) -> Option<&'static str> {
    let has = |dashes: &[u8; 4]| contents.windows(4).any(|w| w == dashes);
    match contents {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ if has(b"-\0-\0") && !has(b"----") && contents.iter().position(|b| *b == 0)? % 2 == 1 => Some("UTF-16LE"),
        _ if has(b"\0-\0-") && !has(b"----") => Some("UTF-16BE"),
        _ => None,
    }
}

fn of_der(contents: &[u8]) -> Option<Foreign> {
    let (_, outer, _) = tlv(contents)?;
    let (tag, first, rest) = tlv(outer)?;
    // ContentInfo of PKCS#7: an OID of the arc 1.2.840.113549.1.7 (RFC 2315 section 14).
    const PKCS7: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07";
    if tag == OID {
        return first.starts_with(PKCS7).then_some(Foreign::Pkcs7 { pem: false });
    }
    // PFX of PKCS#12: version 3, then a ContentInfo (RFC 7292 section 4).
    let (_, info, _) = tlv(rest)?;
    let (inner, oid, _) = tlv(info)?;
    (tag == INTEGER && first == [3] && inner == OID && oid.starts_with(PKCS7)).then_some(Foreign::Pkcs12)
}

/// Recognizes base64 alone: at least a few bytes of DER. DER begins with a SEQUENCE, so the text
/// begins with `M`.
pub(super) fn bare_base64(contents: &[u8]) -> Option<Foreign> {
    let text = contents.trim_ascii();
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n' | b'\r');
    let fits = text.len() >= 40 && text.starts_with(b"M") && text.iter().all(is_base64);
    fits.then(|| Foreign::Base64 { one_line: !text.contains(&b'\n') })
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const BYTE_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// Splits off one element: returns tag, contents and the remaining bytes (X.690 section 8.1,
/// definite lengths).
fn tlv(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0usize, |n, o| n << 8 | usize::from(*o)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

/// Returns `true` if the contents are exactly one SEQUENCE.
pub(super) fn is_whole(contents: &[u8]) -> bool {
    matches!(tlv(contents), Some((SEQUENCE, _, [])))
}

/// Returns the first element alone: OpenSSL's TRUSTED CERTIFICATE has trust settings after the
/// certificate.
pub(super) fn first_element(der: &[u8]) -> Option<&[u8]> {
    let (tag, _, rest) = tlv(der)?;
    (tag == SEQUENCE).then(|| &der[..der.len() - rest.len()])
}

fn wrap(tag: u8, contents: &[u8]) -> Vec<u8> {
    let bytes = contents.len().to_be_bytes();
    let significant = bytes.iter().position(|o| *o != 0).unwrap_or(bytes.len() - 1);
    let length = &bytes[significant..];
    let mut der = vec![tag];
    if contents.len() >= 0x80 {
        der.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
    }
    der.extend_from_slice(length);
    der.extend_from_slice(contents);
    der
}

/// Wraps an RSAPublicKey of PKCS#1 in a SubjectPublicKeyInfo (RFC 3279 section 2.3.1).
pub(super) fn spki_of_pkcs1(der: &[u8]) -> Vec<u8> {
    const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let bits = wrap(BIT_STRING, &[&[0], der].concat());
    wrap(SEQUENCE, &[RSA, &bits].concat())
}

/// Returns `true` for a PKCS#8 private key under a password: an algorithm, then the key (RFC 5958
/// section 3).
pub(super) fn is_encrypted(der: &[u8]) -> bool {
    let algorithm = || {
        let (_, outer, _) = tlv(der)?;
        let (SEQUENCE, algorithm, rest) = tlv(outer)? else { return None };
        let (BYTE_STRING, _, []) = tlv(rest)? else { return None };
        let (OID, oid, _) = tlv(algorithm)? else { return None };
        Some(oid)
    };
    // PKCS#5 (1.2.840.113549.1.5) and the older ciphers of PKCS#12 (1.2.840.113549.1.12.1).
    const PKCS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01";
    algorithm().and_then(|oid| oid.strip_prefix(PKCS)).is_some_and(|arc| matches!(arc, [5, ..] | [12, 1, ..]))
}

/// Algorithms and curves that TLS cannot use, by their OIDs.
const UNSUPPORTED: [(&[u8], &str); 19] = [
    (b"\x2b\x81\x04\x00\x0a", "secp256k1"),
    (b"\x2b\x81\x04\x00\x21", "secp224r1"),
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x01", "secp192r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x07", "brainpoolP256r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b", "brainpoolP384r1"),
    (b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d", "brainpoolP512r1"),
    (b"\x2b\x65\x71", "Ed448"),
    (b"\x2b\x65\x6e", "X25519"),
    (b"\x2b\x65\x6f", "X448"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "RSA-PSS"),
    (b"\x2a\x86\x48\xce\x38\x04\x01", "DSA"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x03\x01", "Diffie-Hellman"),
    (b"\x2a\x86\x48\xce\x3e\x02\x01", "Diffie-Hellman"),
    (b"\x2a\x81\x1c\xcf\x55\x01\x82\x2d", "SM2"),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x11", "ML-DSA-44"),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x12", "ML-DSA-65"),
    (b"\x60\x86\x48\x01\x65\x03\x04\x03\x13", "ML-DSA-87"),
    (b"\x2b\x81\x04\x00\x1f", "secp192k1"),
    (b"\x2b\x81\x04\x00\x20", "secp224k1"),
];

/// Returns why TLS cannot use a private key in PKCS#8 or SEC1; `None` if its algorithm is usable or
/// unknown.
pub(super) fn unsupported_private(der: &[u8]) -> Option<UnusableForTls> {
    let (SEQUENCE, outer, _) = tlv(der)? else { return None };
    let (INTEGER, _, rest) = tlv(outer)? else { return None };
    match tlv(rest)? {
        // PKCS#8 (RFC 5958 section 2).
        (SEQUENCE, algorithm, _) => unsupported_algorithm(algorithm),
        // SEC1 (RFC 5915 section 3): the key, then its curve.
        (BYTE_STRING, _, rest) => {
            let (0xa0, parameters, _) = tlv(rest)? else { return None };
            unsupported_curve(parameters)
        }
        // OpenSSL's own form of DSA: three parameters, then the two halves of the key.
        (INTEGER, ..) => (integers(rest) == 5).then_some(UnusableForTls::Algorithm("DSA")),
        _ => None,
    }
}

/// Returns the modulus size of an RSA private key in bits, in PKCS#8 or PKCS#1 (RFC 8017 appendix
/// A.1.2).
pub(super) fn rsa_bits(der: &[u8]) -> Option<usize> {
    const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    let (SEQUENCE, outer, _) = tlv(der)? else { return None };
    let (INTEGER, _, rest) = tlv(outer)? else { return None };
    match tlv(rest)? {
        (SEQUENCE, algorithm, rest) => {
            let (OID, RSA, _) = tlv(algorithm)? else { return None };
            let (BYTE_STRING, key, _) = tlv(rest)? else { return None };
            let (SEQUENCE, key, _) = tlv(key)? else { return None };
            let (INTEGER, _, rest) = tlv(key)? else { return None };
            let (INTEGER, modulus, _) = tlv(rest)? else { return None };
            bits(modulus)
        }
        (INTEGER, modulus, more) => (integers(more) >= 4).then(|| bits(modulus))?,
        _ => None,
    }
}

/// Returns the bit length of a number; `None` for zero.
fn bits(number: &[u8]) -> Option<usize> {
    let start = number.iter().position(|byte| *byte != 0)?;
    let unused = usize::try_from(number[start].leading_zeros()).ok()?;
    Some((number.len() - start) * 8 - unused)
}

/// Returns the number of INTEGERs; 0 if there is anything else.
fn integers(mut der: &[u8]) -> usize {
    let mut count = 0;
    while let Some((INTEGER, _, rest)) = tlv(der) {
        (count, der) = (count + 1, rest);
    }
    if der.is_empty() { count } else { 0 }
}

/// Returns why TLS cannot use the algorithm of a SubjectPublicKeyInfo.
pub(super) fn unsupported_public(der: &[u8]) -> Option<UnusableForTls> {
    let (SEQUENCE, outer, []) = tlv(der)? else { return None };
    let (SEQUENCE, algorithm, rest) = tlv(outer)? else { return None };
    let (BIT_STRING, _, []) = tlv(rest)? else { return None };
    unsupported_algorithm(algorithm)
}

fn unsupported_algorithm(algorithm: &[u8]) -> Option<UnusableForTls> {
    const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
    let (OID, oid, parameters) = tlv(algorithm)? else { return None };
    if oid == EC { unsupported_curve(parameters) } else { named(oid) }
}

fn unsupported_curve(parameters: &[u8]) -> Option<UnusableForTls> {
    match tlv(parameters)? {
        (OID, curve, _) => named(curve),
        (SEQUENCE, ..) => Some(UnusableForTls::ExplicitCurve),
        _ => None,
    }
}

fn named(oid: &[u8]) -> Option<UnusableForTls> {
    UNSUPPORTED.iter().find(|(known, _)| *known == oid).map(|(_, name)| UnusableForTls::Algorithm(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_for_a_shell() {
        let check = |path: &str, want: &str| assert_eq!(shell(Path::new(path)), want);
        check("../certs/blog.pem", "../certs/blog.pem");
        check("my key.pem", "'my key.pem'");
        check("it's", r"'it'\''s'");
        check("-out", "./-out");
        check("-", "-");
    }

    proptest! {
        #[test]
        fn bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), sequence in any::<bool>()) {
            if sequence {
                bytes.splice(..0, [0x30, 0x82]);
            }
            let _ = (of(&bytes), is_encrypted(&bytes), unsupported_private(&bytes), unsupported_public(&bytes));
            let _ = rsa_bits(&bytes);
            let _ = (first_element(&bytes), bare_base64(&bytes));
        }

        #[test]
        fn wrapped_elements_read_the_same(contents in prop::collection::vec(any::<u8>(), 0..700)) {
            let der = wrap(SEQUENCE, &contents);
            prop_assert_eq!(tlv(&der), Some((SEQUENCE, &contents[..], &[][..])));
        }
    }
}
