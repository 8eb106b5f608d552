//! Files that may have a private key, whatever their form.

use zeroize::Zeroizing;

use super::{Foreign, KeyFileError, has_private_key};

/// `true` if a file has a private key, or may have one: the reason why it is unreadable does not matter then.
#[must_use]
pub fn may_be_private(contents: &[u8], error: Option<&KeyFileError>) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY";
    let is_marked = || contents.windows(MARK.len()).any(|part| part.eq_ignore_ascii_case(MARK));
    let without_zeros = || {
        let mut narrow = Zeroizing::new(Vec::with_capacity(contents.len()));
        narrow.extend(contents.iter().filter(|byte| **byte != 0));
        narrow
    };
    let is_of_key = matches!(
        error,
        Some(
            KeyFileError::Encrypted { .. }
                | KeyFileError::Unsupported(_)
                | KeyFileError::NoPrivateKey
                | KeyFileError::Foreign(Foreign::OpenSsh | Foreign::Pkcs12 | Foreign::Several { certificates: false })
        )
    );
    is_of_key
        || has_private_key(contents)
        || is_marked()
        // Text in UTF-16.
        || without_zeros().windows(MARK.len()).any(|part| part.eq_ignore_ascii_case(MARK))
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;
    use crate::keys::key_file::public_key;

    #[test]
    fn anything_like_a_private_key() {
        let refuses = |contents: &[u8]| may_be_private(contents, public_key(contents).as_ref().err());
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = key.serialize_pem();
        assert!(refuses(pem.as_bytes()) && refuses(key.serialized_der()));
        assert!(refuses(pem.replace("-----END", "-----FIN").as_bytes()), "damaged");
        assert!(refuses(format!("{}{pem}", key.public_key_pem()).as_bytes()), "behind a public key");
        let wide: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(refuses(&wide), "in UTF-16");
        assert!(refuses(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "encrypted");
        assert!(refuses(b"-----begin openssh private key-----\n"), "OpenSSH");
        assert!(refuses(&[key.serialized_der(), b"\0more"].concat()), "with more data behind it");
        for public in [key.public_key_pem().as_bytes(), &key.subject_public_key_info()[..], b"", b"hello"] {
            assert!(!refuses(public), "{}", String::from_utf8_lossy(public));
        }
    }
}
