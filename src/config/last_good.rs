//! Copies of the pairs that were served last, beside the ledger. If pintle refuses a renewal in place, its files have
//! replaced the only copy of the key that readers are promised, and the next start needs that key.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::host::HostPattern;
use crate::keys::key_file::{FILE_MAX, KeyKind, private_key, public_key};
use crate::keys::pin::Pin;
use crate::ledger::set_id;
use crate::os::plain_file;
use crate::policy::promise::{Promise, SiteNames};
use crate::tls::key_process;

/// The folder in `state.directory`.
pub const FOLDER: &str = "last-good";
/// The end of a copy's name; a copy that is being written has another.
const SUFFIX: &str = ".pem";
/// Bytes of a hash in a copy's name.
const HASH: usize = 8;
/// The beginning of a section.
const ARMOUR: &[u8] = b"-----BEGIN";
/// Characters of a file's stem in a copy's name: for people only, so a few are enough.
const STEM_MAX: usize = 40;

/// The copies of one `state.directory`: one PEM file for each pair, mode 0600, with the chain and then its key.
///
/// A copy's name identifies its pair: a hash of the path of the chain in the configuration, and one of the leaf's pin.
/// So the names alone prove that no copy has another key than the one that was served last.
#[derive(Debug, Clone)]
pub struct LastGood {
    folder: PathBuf,
    /// The names of the allowed copies; `None` before they are known. Copies are written on a thread of their own: a pair
    /// that is no longer served by then gets none.
    wanted: Arc<Mutex<Option<HashSet<String>>>>,
    /// A pair could not be copied when that was last tried.
    failed: Arc<AtomicBool>,
}

impl LastGood {
    /// The copies in a folder of the state.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join(FOLDER), wanted: Arc::default(), failed: Arc::default() }
    }

    /// Returns `true` if a pair could not be copied when that was last tried.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns `true` while a thread copies pairs: it has a clone of this value. A second thread would find the keys taken,
    /// and could replace a copy with one that lacks its key.
    #[must_use]
    pub fn is_copying(&self) -> bool {
        Arc::strong_count(&self.wanted) > 1
    }

    /// Returns `true` if a wanted copy is missing: somebody has deleted it, or it was never written.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wanted) = wanted.as_ref().filter(|wanted| !wanted.is_empty()) else { return false };
        let there: HashSet<String> = self.names().unwrap_or_default().into_iter().collect();
        !wanted.is_subset(&there)
    }

    /// Notes whether copying has failed; returns `true` if that is news.
    pub fn note(&self, failed: bool) -> bool {
        self.failed.swap(failed, Ordering::Relaxed) != failed
    }

    /// The file for the copy of a pair: its chain is configured with this path, and has this pin.
    #[must_use]
    pub fn path(&self, chain: &Path, pin: Pin) -> PathBuf {
        self.folder.join(name(chain, pin))
    }

    /// Chain and key as they were served last, in PEM; `None` if there is no copy that can be read.
    #[must_use]
    pub fn read(&self, chain: &Path) -> Option<Vec<u8>> {
        let prefix = prefix(chain);
        let names = self.names().ok()?;
        // There is one, unless one that is not served any more could not be removed.
        let is_whole = |name: &&String| name.starts_with(&prefix) && name.ends_with(SUFFIX);
        let of_chain = names.iter().filter(is_whole).map(|name| self.folder.join(name));
        let newest = of_chain.max_by_key(|path| fs::symlink_metadata(path).and_then(|file| file.modified()).ok())?;
        read(&newest).ok()
    }

    /// Also allows copies of these pairs, which are about to be served.
    pub fn allow<'p>(&self, pairs: impl Iterator<Item = (&'p Path, Pin)>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get_or_insert_default().extend(pairs.map(|(chain, pin)| name(chain, pin)));
    }

    /// Removes all copies except those of these pairs, and those of the chains in `missing`, which nothing has replaced yet:
    /// such a copy may have the only live key. Call it before anything is promised under other pairs: a copy must
    /// never have an older key than the one whose pins readers got last.
    ///
    /// # Errors
    ///
    /// If a copy may still be there.
    pub fn retain<'p>(
        &self,
        pairs: impl Iterator<Item = (&'p Path, Pin)>,
        missing: impl Iterator<Item = &'p Path>,
    ) -> io::Result<()> {
        let missing: Vec<String> = missing.map(prefix).collect();
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
        let is_spared = |name: &&String| missing.iter().any(|prefix| name.starts_with(prefix));
        for name in names.iter().filter(|name| !wanted.contains(*name) && !is_spared(name)) {
            fs::remove_file(self.folder.join(name))?;
            removed = true;
        }
        if removed { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    /// Keeps a pair, and returns once it is on the disk. Returns `false` if the copy was the same already, or if the pair
    /// is no longer served.
    ///
    /// # Errors
    ///
    /// If the copy cannot be written. The previous copy stays as it was.
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

/// Pairs that have come into use, and need copies.
pub struct Fresh(pub(super) Vec<Pair>);

/// The promises that a pair breaks already, and for which names: those of other nodes, for one. A copy has them as text
/// before its first section: a start may lock out only readers who were locked out before. So an old copy, of a key that
/// was replaced since, excuses nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Breaches {
    hosts: Vec<HostPattern>,
    /// The names that wildcards among the hosts do not cover.
    except: Vec<HostPattern>,
    sets: Vec<String>,
}

/// The words before the hosts and before the sets in a copy. Hosts are in base64: a name may look like a line of PEM.
const HOSTS: &str = "Served for: ";
const EXCEPT: &str = "Except: ";
const SETS: &str = "Breaks: ";

impl Breaches {
    /// The breaches of a pair that is served for these names.
    pub(super) fn of(names: SiteNames<'_>, promises: Vec<&Promise>) -> Self {
        let mut sets: Vec<String> = promises.into_iter().map(set_id).collect();
        sets.sort_unstable();
        if sets.is_empty() {
            return Self::default();
        }
        Self { hosts: names.hosts.to_vec(), except: names.except.to_vec(), sets }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.hosts.extend(more.hosts);
        self.except.extend(more.except);
        self.sets.extend(more.sets);
        self.sets.sort_unstable();
        self.sets.dedup();
    }

    /// The breaches that a copy names.
    pub(super) fn read(contents: &[u8]) -> Self {
        let text = contents.split(|b| *b == b'\n').take_while(|line| !line.starts_with(b"-----"));
        let lines: Vec<&str> = text.filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let line = |of: &str| lines.iter().find_map(|line| line.strip_prefix(of)).unwrap_or_default();
        let names = |of: &str| {
            let names = STANDARD.decode(line(of)).ok().and_then(|names| String::from_utf8(names).ok());
            let names = names.unwrap_or_default();
            names.split_whitespace().filter_map(|name| HostPattern::parse(name).ok()).collect()
        };
        Self {
            hosts: names(HOSTS),
            except: names(EXCEPT),
            sets: line(SETS).split_whitespace().map(str::to_owned).collect(),
        }
    }

    pub(super) fn has(&self, promise: &Promise) -> bool {
        self.sets.contains(&set_id(promise))
    }

    pub(super) fn names(&self) -> SiteNames<'_> {
        SiteNames { hosts: &self.hosts, except: &self.except }
    }

    fn text(&self) -> String {
        if self.sets.is_empty() {
            return String::new();
        }
        let line = |of: &str, names: &[HostPattern]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            format!("{of}{}\n", STANDARD.encode(names.join(" ")))
        };
        let except = if self.except.is_empty() { String::new() } else { line(EXCEPT, &self.except) };
        format!("{}{except}{SETS}{}\n", line(HOSTS, &self.hosts), self.sets.join(" "))
    }
}

/// A pair as it is served, with the file of its key.
pub(super) struct Pair {
    pub(super) breaches: Breaches,
    pub(super) path: PathBuf,
    pub(super) pin: Pin,
    pub(super) chain: Box<dyn Fn() -> String + Send>,
    pub(super) key: Option<PathBuf>,
    pub(super) text: KeyText,
}

/// The contents of a key's file as they were read, until they are copied: the file may change at any moment.
#[derive(Clone, Default)]
pub(super) struct KeyText(Arc<Mutex<Option<Zeroizing<Vec<u8>>>>>);

impl KeyText {
    pub(super) fn new(contents: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Some(Zeroizing::new(contents.to_vec())))))
    }

    /// Returns the text of the key in a copy, so that the copy can be written again.
    pub(super) fn of_copy(contents: &[u8]) -> Self {
        private_key(contents).map(|key| Self::new(pem_of(&key).as_bytes())).unwrap_or_default()
    }

    fn take(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put_back(&self, contents: Option<Zeroizing<Vec<u8>>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = contents;
    }
}

impl Fresh {
    /// `true` if there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the keys, if there is no place for copies.
    pub fn forget(self) {
        for pair in self.0 {
            drop(pair.text.take());
        }
    }

    /// Copies the pairs. A copy lacks the key if that is not here, or no longer readable: it then has the chain only.
    ///
    /// # Errors
    ///
    /// The first failure. All other pairs are copied all the same.
    pub fn keep(self, copies: &LastGood) -> io::Result<()> {
        let mut outcome = Ok(());
        for pair in self.0 {
            let mut contents = pair.breaches.text().into_bytes();
            let text = pair.text.take();
            let key = text.clone().or_else(|| read_key(pair.key.as_deref()?)).filter(|key| is_of(key, pair.pin));
            let key = key.and_then(|key| private_key(&key).ok()).map(|key| pem_of(&key));
            let path = copies.path(&pair.path, pair.pin);
            // A pair in use whose key is in the key process has its key in its own file: no copy needs it.
            if key.is_none() && key_process::running().is_none() && fs::exists(&path).unwrap_or(false) {
                // The copy may have the only key.
                let Ok(known) = read(&path).map(Zeroizing::new) else { continue };
                let begin = known.windows(ARMOUR.len()).position(|at| at == ARMOUR).unwrap_or_default();
                contents.extend_from_slice(&known[begin..]);
            } else {
                contents.extend_from_slice((pair.chain)().as_bytes());
                contents.extend_from_slice(key.as_ref().map_or(&[], |key| key.as_bytes()));
            }
            let kept = copies.keep(&pair.path, pair.pin, &contents);
            contents.zeroize();
            if kept.is_err() {
                pair.text.put_back(text);
            }
            if let (Ok(()), Err(error)) = (&outcome, kept) {
                outcome = Err(error);
            }
        }
        outcome
    }
}

/// Reads the file of a key; `None` if it cannot be read.
pub(super) fn read_key(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut contents = Zeroizing::new(Vec::new());
    File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut contents).ok()?;
    Some(contents)
}

/// The key in PEM, whatever the form of its file.
fn pem_of(key: &PrivateKeyDer<'_>) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    Zeroizing::new(pem(label, key.secret_der()))
}

/// A section of PEM.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    let text = Zeroizing::new(STANDARD.encode(der));
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

fn is_of(key: &[u8], pin: Pin) -> bool {
    public_key(key).is_ok_and(|key| key.pin == pin && key.kind == KeyKind::PrivateKey)
}

/// Reads a copy. Root's commands read it, too, in a folder of the serving user: so neither links nor FIFOs.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = plain_file::open(path).and_then(|file| plain_file::believed(file, path))?;
    plain_file::read_opened(file, 2 * FILE_MAX)
}

/// `blog-0123456789abcdef-0123456789abcdef.pem`
fn name(chain: &Path, pin: Pin) -> String {
    format!("{}{}{SUFFIX}", prefix(chain), short(pin.to_string().as_bytes()))
}

fn prefix(chain: &Path) -> String {
    let stem = chain.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let stem: String = stem.chars().filter(|c| c.is_alphanumeric() || matches!(c, '.' | '_')).take(STEM_MAX).collect();
    // `-c pintle.toml` and `-c /etc/pintle/pintle.toml` are one configuration.
    let chain = std::path::absolute(chain).unwrap_or_else(|_| chain.to_owned());
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
        LastGood::of(state.path()).retain(std::iter::empty(), std::iter::empty()).unwrap();
        assert!(copies.keep(one, old, b"first").unwrap());
        assert!(!copies.keep(one, old, b"first").unwrap());
        assert!(copies.keep(two, old, b"other").unwrap() && copies.keep(one, old, b"second").unwrap());
        assert_eq!((copies.read(one).unwrap(), copies.read(two).unwrap()), (b"second".to_vec(), b"other".to_vec()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&copies.path(one, old)), mode(&state.path().join(FOLDER))), (0o600, 0o700));
        // Another key: the copy of the old one goes before the new one is there.
        copies.retain([(two, old)].into_iter(), [one].into_iter()).unwrap();
        assert_eq!(copies.read(one).unwrap(), b"second");
        copies.retain([(one, new), (two, old)].into_iter(), std::iter::empty()).unwrap();
        assert_eq!((copies.read(one), copies.read(two).unwrap()), (None, b"other".to_vec()));
        // Whoever was still at work on the old one is too late.
        assert!(!copies.clone().keep(one, old, b"second").unwrap());
        assert_eq!(copies.read(one), None);
        assert!(copies.keep(one, new, b"third").unwrap());
        assert_eq!(copies.read(one).unwrap(), b"third");
        // A copy that a kill has left half written is none.
        fs::write(copies.path(one, old).with_extension("new"), b"fourth").unwrap();
        assert_eq!(copies.read(one).unwrap(), b"third");
        copies.retain(std::iter::empty(), std::iter::empty()).unwrap();
        assert_eq!((copies.read(one), copies.read(two)), (None, None));
        // One that is allowed is written beside the ones that are there.
        copies.allow([(one, old)].into_iter());
        assert!(copies.keep(one, old, b"fifth").unwrap() && !copies.keep(one, new, b"sixth").unwrap());
    }

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(prefix(Path::new("certs/blog.pem")), prefix(&here.join("certs/blog.pem")));
        assert_eq!(prefix(Path::new("./certs/blog.pem")), prefix(&here.join("certs/blog.pem")));
        assert_ne!(prefix(Path::new("certs/blog.pem")), prefix(Path::new("/certs/blog.pem")));
    }

    #[test]
    fn breaches_are_read_back() {
        let hosts: Vec<HostPattern> =
            ["a.example", "*.b.example", "a--end.example"].map(|h| HostPattern::parse(h).unwrap()).into();
        let sets = vec!["0123".to_owned(), "4567".to_owned()];
        let except = vec![HostPattern::parse("c.b.example").unwrap()];
        let breaches = Breaches { hosts, except, sets };
        let section = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let copy = breaches.text() + section;
        assert_eq!(crate::keys::pem::read(copy.as_bytes()).unwrap().len(), 1, "{copy}");
        assert_eq!(Breaches::read(copy.as_bytes()), breaches);
        assert_eq!(Breaches::read(section.as_bytes()), Breaches::default());
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
