//! The token of commands over TCP: a secret in state.directory, for root and the user that runs
//! pintle. A port has no permissions, so every user of this host could connect otherwise.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::os::plain_file;

/// Random bytes in a token.
const RANDOM: usize = 32;
/// The longest token file, in bytes.
const FILE_MAX: u64 = 1024;
/// The operator may let the group read the file, for Prometheus. Others may not read it, and nobody
/// else may write it.
const TOO_OPEN: u32 = 0o037;

/// Device, inode and change time of the file: a write, a new mode or a new owner changes them.
type TokenStamp = (u64, u64, i64, i64);

fn stamp(is: &fs::Metadata) -> TokenStamp {
    (is.dev(), is.ino(), is.ctime(), is.ctime_nsec())
}

/// The token that requests over TCP must carry.
#[derive(Debug)]
pub(super) struct Token {
    secret: String,
    path: PathBuf,
    /// If the operator removes the file, pintle makes a new token; every other change of the file
    /// is checked.
    file: TokenStamp,
}

/// The token in force, for the threads that need it.
#[derive(Debug, Clone)]
pub(super) struct SharedToken(Arc<RwLock<Arc<Token>>>);

impl SharedToken {
    pub(super) fn new(token: Token) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(token))))
    }

    /// The token in force.
    pub(super) fn now(&self) -> Arc<Token> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another token in force.
    pub(super) fn replace(&self, token: Token) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(token);
    }
}

impl Token {
    /// Reads the token of a file, or makes a new one if the file is missing or has none.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub(super) fn provide(path: &Path) -> io::Result<Self> {
        let known = Self::of_file(path);
        known.or_else(|_| make(path).and_then(|()| Self::of_file(path)))
    }

    fn of_file(path: &Path) -> io::Result<Self> {
        let file = plain_file::open(path)?;
        let is = file.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        if is.uid() != own || is.mode() & TOO_OPEN != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others could have read it"));
        }
        let secret = secret_of(plain_file::read_opened(file, FILE_MAX)?)?;
        Ok(Self { secret, path: path.to_owned(), file: stamp(&is) })
    }

    /// `true` if the file is unchanged since it was read.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| stamp(&m) == self.file)
    }

    /// `true` if both secrets are equal.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.secret.as_bytes(), other.secret.as_bytes()).is_ok()
    }

    /// `true` if a request carries the token: `Authorization: Bearer TOKEN` (RFC 6750 section 2.1),
    /// exactly once.
    pub(super) fn fits(&self, fields: &HeaderMap) -> bool {
        let mut given = fields.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, secret)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && verify_slices_are_equal(secret, self.secret.as_bytes()).is_ok()
    }
}

/// Reads the token for a command. The caller must be root or the user that runs pintle.
///
/// # Errors
///
/// If there is no token, or this user may not read it.
pub(super) fn of_running(path: &Path) -> io::Result<String> {
    let file = plain_file::open(path).and_then(|file| plain_file::believed(file, path))?;
    secret_of(plain_file::read_opened(file, FILE_MAX)?)
}

fn secret_of(contents: Vec<u8>) -> io::Result<String> {
    let secret = String::from_utf8(contents).unwrap_or_default().trim().to_owned();
    let is_token = BASE64_URL_SAFE_NO_PAD.decode(&secret).is_ok_and(|random| random.len() >= RANDOM);
    is_token.then_some(secret).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file has no token"))
}

/// Writes a new token, whole or not at all.
fn make(path: &Path) -> io::Result<()> {
    let mut random = [0; RANDOM];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let new = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let _ = fs::remove_file(&new);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(format!("{}\n", BASE64_URL_SAFE_NO_PAD.encode(random)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_token_is_kept_unless_others_know_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let secret = || Token::provide(&path).unwrap().secret;
        let first = secret();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!((secret(), of_running(&path).unwrap()), (first.clone(), first.clone()));
        let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o640);
        assert_eq!(secret(), first);
        let mut last = first;
        for spoil in [0o644, 0o660, 0o602] {
            chmod(spoil);
            let next = secret();
            assert_ne!(next, last, "{spoil:o}");
            last = next;
        }
        fs::write(&path, "short\n").unwrap();
        assert_ne!(secret(), "short");
        // A link's target is left alone.
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(of_running(&path).is_err());
        assert_ne!(secret(), fs::read_to_string(&elsewhere).unwrap().trim());
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_fits() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::provide(&dir.path().join("admin.token")).unwrap();
        let check = |values: &[String], fits: bool| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(token.fits(&fields), fits, "{values:?}");
        };
        let secret = &token.secret;
        check(&[format!("Bearer {secret}")], true);
        check(&[format!("bearer {secret}")], true);
        check(&[], false);
        check(&[String::new()], false);
        check(&["Bearer ".into()], false);
        check(std::slice::from_ref(secret), false);
        check(&[format!("Basic {secret}")], false);
        check(&[format!("Bearer {secret}x")], false);
        check(&[format!("Bearer {}", &secret[1..])], false);
        check(&[format!("Bearer {secret}"), format!("Bearer {secret}")], false);
    }
}
