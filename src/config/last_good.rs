//! The pairs that were served last, kept beside the ledger: if a renewal in place is refused, its files have replaced
//! the only copy of the key that readers are promised, and the next start needs it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::key_file::{FILE_MAX, KeyKind, public_key};
use crate::pin::Pin;
use crate::plain_file;

/// The folder in `state.directory`.
pub const FOLDER: &str = "last-good";
/// Bytes of a hash in a copy's name.
const HASH: usize = 8;
/// Characters of a file's stem in a copy's name: for people, so that a few will do.
const STEM_MAX: usize = 40;

/// The copies of one `state.directory`: one PEM file for each pair, mode 0600, with the chain and then its key.
///
/// A copy's name says whose it is: a hash of the path of the chain in the configuration, and one of the leaf's pin. So a
/// list of names is enough to know that no copy is of another key than the one that was served last.
#[derive(Debug, Clone)]
pub struct LastGood {
    folder: PathBuf,
    /// The names of the copies that may be there; `None` before anybody has said so. Who writes copies takes its time, on
    /// a thread of its own: a pair that is not served any more by then gets none.
    wanted: Arc<Mutex<Option<HashSet<String>>>>,
}

impl LastGood {
    /// Those in a folder of the state.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join(FOLDER), wanted: Arc::default() }
    }

    /// Where the copy of a pair lies: of the one whose chain is configured with this path, and has this pin.
    #[must_use]
    pub fn path(&self, chain: &Path, pin: Pin) -> PathBuf {
        self.folder.join(name(chain, pin))
    }

    /// Chain and key as they were served last, in PEM; `None` if there is no copy that can be read.
    #[must_use]
    pub fn read(&self, chain: &Path) -> Option<Vec<u8>> {
        let prefix = prefix(chain);
        let names = self.names().ok()?;
        let name = names.iter().find(|name| name.starts_with(&prefix))?;
        read(&self.folder.join(name)).ok()
    }

    /// Removes all copies but those of these pairs. To be done before anything is promised under other pairs: a copy
    /// must never be of a key that was served before the one that readers were sent pins for last.
    ///
    /// # Errors
    ///
    /// If a copy may still be there.
    pub fn retain<'p>(&self, pairs: impl Iterator<Item = (&'p Path, Pin)>) -> io::Result<()> {
        let pairs: HashSet<String> = pairs.map(|(chain, pin)| name(chain, pin)).collect();
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.insert(pairs);
        let names = match self.names() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            names => names?,
        };
        let mut removed = false;
        for name in names.iter().filter(|name| !wanted.contains(*name)) {
            fs::remove_file(self.folder.join(name))?;
            removed = true;
        }
        if removed { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    /// Keeps a pair, on the disk before it says so. Returns `false` if the copy was the same already, or if the pair is
    /// not served any more.
    ///
    /// # Errors
    ///
    /// If the copy cannot be written; the one before is left as it was.
    pub fn keep(&self, chain: &Path, pin: Pin, contents: &[u8]) -> io::Result<bool> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&name(chain, pin))) {
            return Ok(false);
        }
        let path = self.path(chain, pin);
        if read(&path).is_ok_and(|known| known == contents) {
            return Ok(false);
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(no_follow()).open(&new);
        let written = options.and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.map(|()| true)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

/// Pairs that have come into use, to be copied.
pub struct Fresh(pub(super) Vec<Pair>);

/// A pair as it is served, and where its key lies.
pub(super) struct Pair {
    pub(super) path: PathBuf,
    pub(super) pin: Pin,
    pub(super) chain: Box<dyn Fn() -> String + Send>,
    pub(super) key: Option<PathBuf>,
}

impl Fresh {
    /// Whether there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies them. A key that cannot be read, or has been replaced meanwhile, is left out: then, the copy only says
    /// which chain was served.
    ///
    /// # Errors
    ///
    /// The first failure; what can be copied is copied all the same.
    pub fn keep(self, copies: &LastGood) -> io::Result<()> {
        let mut outcome = Ok(());
        for pair in self.0 {
            let mut contents = (pair.chain)().into_bytes();
            let key = pair.key.and_then(|path| read_key(&path)).filter(|key| is_of(key, pair.pin));
            if key.is_none() && fs::exists(copies.path(&pair.path, pair.pin)).unwrap_or(false) {
                // The copy may have the key, which is nowhere else then.
                continue;
            }
            contents.extend_from_slice(key.as_deref().map_or(&[], Vec::as_slice));
            let kept = copies.keep(&pair.path, pair.pin, &contents);
            contents.zeroize();
            if let (Ok(()), Err(error)) = (&outcome, kept) {
                outcome = Err(error);
            }
        }
        outcome
    }
}

fn read_key(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut contents = Zeroizing::new(Vec::new());
    File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut contents).ok()?;
    Some(contents)
}

fn is_of(key: &[u8], pin: Pin) -> bool {
    public_key(key).is_ok_and(|key| key.pin == pin && key.kind == KeyKind::PrivateKey)
}

/// By root's commands, too, in a folder that the user that serves has: neither links nor FIFOs.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = plain_file::open(path).and_then(|file| plain_file::believed(file, path))?;
    plain_file::read_opened(file, 2 * FILE_MAX)
}

/// `blog-0123456789abcdef-0123456789abcdef.pem`
fn name(chain: &Path, pin: Pin) -> String {
    format!("{}{}.pem", prefix(chain), short(pin.to_string().as_bytes()))
}

fn prefix(chain: &Path) -> String {
    let stem = chain.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let stem: String = stem.chars().filter(|c| c.is_alphanumeric() || matches!(c, '.' | '_')).take(STEM_MAX).collect();
    format!("{stem}-{}-", short(chain.as_os_str().as_encoded_bytes()))
}

fn short(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(HASH).map(|b| format!("{b:02x}")).collect()
}

fn no_follow() -> i32 {
    i32::from_ne_bytes(OFlags::NOFOLLOW.bits().to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn kept_and_read() {
        let state = tempfile::TempDir::new().unwrap();
        let copies = LastGood::of(state.path());
        let (one, two) = (Path::new("/etc/a/blog.pem"), Path::new("/etc/b/blog.pem"));
        let (old, new) = (Pin::of_spki(b"old"), Pin::of_spki(b"new"));
        assert_eq!(copies.read(one), None);
        copies.retain(std::iter::empty()).unwrap();
        assert!(copies.keep(one, old, b"first").unwrap());
        assert!(!copies.keep(one, old, b"first").unwrap());
        assert!(copies.keep(two, old, b"other").unwrap() && copies.keep(one, old, b"second").unwrap());
        assert_eq!((copies.read(one).unwrap(), copies.read(two).unwrap()), (b"second".to_vec(), b"other".to_vec()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&copies.path(one, old)), mode(&state.path().join(FOLDER))), (0o600, 0o700));
        // Another key: the copy of the old one goes before the new one is there.
        copies.retain([(one, new), (two, old)].into_iter()).unwrap();
        assert_eq!((copies.read(one), copies.read(two).unwrap()), (None, b"other".to_vec()));
        // Whoever was still at work on the old one is too late.
        assert!(!copies.clone().keep(one, old, b"second").unwrap());
        assert_eq!(copies.read(one), None);
        assert!(copies.keep(one, new, b"third").unwrap());
        assert_eq!(copies.read(one).unwrap(), b"third");
        copies.retain(std::iter::empty()).unwrap();
        assert_eq!((copies.read(one), copies.read(two)), (None, None));
    }

    #[test]
    fn links_are_not_followed() {
        let state = tempfile::TempDir::new().unwrap();
        let copies = LastGood::of(state.path());
        let (chain, pin) = (Path::new("/etc/a/blog.pem"), Pin::of_spki(b"key"));
        copies.keep(chain, pin, b"first").unwrap();
        let elsewhere = state.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        fs::remove_file(copies.path(chain, pin)).unwrap();
        symlink(&elsewhere, copies.path(chain, pin)).unwrap();
        assert_eq!(copies.read(chain), None);
        assert!(copies.keep(chain, pin, b"second").unwrap());
        assert_eq!(
            (fs::read(&elsewhere).unwrap(), copies.read(chain).unwrap()),
            (b"mine".to_vec(), b"second".to_vec())
        );
    }
}
