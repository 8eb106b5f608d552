//! Copies of the pairs that were served last, beside the ledger. If pintle refuses a renewal in place, its files have
//! replaced the only copy of the key that readers are promised, and the next start needs that key.

mod batch;
mod contents;
mod handed;
mod index;
mod name;
mod pair;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use self::contents::{has_key, ledger_note, noted, noted_ledger};
use self::name::{FORMER, NEW_SUFFIX, SUFFIX, of_path, of_pin};
use crate::host::HostPattern;
use crate::keys::key_file::private_key;
use crate::keys::pin::Pin;
use crate::ledger;
use crate::os::plain_file;
use crate::os::privileges;
use crate::policy::promise::{Promise, Promises, Seconds};
use crate::reason::{shell_path, shell_word};
use crate::tls::certificate::Chain;

pub use self::batch::CopiesWritten;
pub(super) use self::contents::{BindingPromises, Breaches, Pinned, noted_key};
pub use self::handed::HandedCopies;
pub(super) use self::index::FormerCopies;
pub use self::index::{CopyIndex, PinnedName};
pub(super) use self::name::{CopyName, ServedPair};
pub use self::pair::{Fresh, key_in_pem};
pub(super) use self::pair::{KeyText, Pair, read_key};

/// The folder in `state.directory`.
pub const FOLDER: &str = "last-good";
/// The end of the folder's name after somebody has moved it aside.
const ASIDE: &str = ".aside";
/// The largest copy, in bytes: chain, key, the site's names and the broken promises.
const COPY_MAX: u64 = 64 * 1024 * 1024;

/// The copies of one `state.directory`: one PEM file for each pair of each site, mode 0600, with the chain and then its
/// key. Sites may share the files of a pair, and still serve different ones: pintle judges each site by itself.
#[derive(Debug, Clone)]
pub struct LastGood {
    folder: PathBuf,
    /// The names of the allowed copies; `None` before they are known. Copies are written on a thread of their own: a pair
    /// that is no longer served by then gets none.
    wanted: Arc<Mutex<Option<HashSet<String>>>>,
    /// Held by whoever writes copies.
    writing: Arc<Mutex<()>>,
    /// A pair could not be copied when that was last tried.
    failed: Arc<AtomicBool>,
    /// Copies that another process has handed over. They are not in the folder.
    handed: HandedCopies,
}

/// A copy whose site is gone.
#[derive(Debug)]
pub struct FormerCopy {
    /// Its file.
    pub path: PathBuf,
    /// The names that it was served for.
    pub hosts: Vec<HostPattern>,
}

impl LastGood {
    /// The copies in a folder of the state.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self::in_folder(state.join(FOLDER))
    }

    fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            wanted: Arc::default(),
            writing: Arc::default(),
            failed: Arc::default(),
            handed: HandedCopies::default(),
        }
    }

    /// The copies in a folder of the state, if there is one, and those that another process has handed over. `None` without
    /// either.
    #[must_use]
    pub fn with_handed(state: Option<&Path>, handed: HandedCopies) -> Option<Self> {
        match state {
            Some(state) => Some(Self { handed, ..Self::of(state) }),
            None => (!handed.is_empty()).then(|| Self { handed, ..Self::in_folder(PathBuf::new()) }),
        }
    }

    /// Returns `true` without a folder: another process has handed all copies over.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.folder.as_os_str().is_empty()
    }

    /// Returns `true` if a pair could not be copied when that was last tried.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns `true` while a thread copies pairs: it has a clone of this value. A second thread would write the same copies.
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

    /// The file for the copy of a pair.
    fn path(&self, pair: ServedPair<'_>) -> PathBuf {
        self.folder.join(pair.name())
    }

    /// The chain and key that a site with these names served last where this chain is configured, in PEM; `None` if there
    /// is no copy that can be read.
    #[must_use]
    pub fn read(&self, chain: &Path, hosts: &[HostPattern]) -> Option<Vec<u8>> {
        CopyIndex::of(self).read(chain, hosts).map(|mut contents| std::mem::take(&mut *contents))
    }

    /// The key that a site with these names served last where this chain is configured, in PEM.
    #[must_use]
    pub fn key(&self, chain: &Path, hosts: &[HostPattern]) -> Option<Zeroizing<String>> {
        let contents = CopyIndex::of(self).read(chain, hosts)?;
        private_key(&contents).ok().map(|key| key_in_pem(&key))
    }

    /// A copy that has the key with this pin, whatever its site.
    fn with_key(&self, pin: Pin) -> Option<Zeroizing<Vec<u8>>> {
        let (names, pin) = (self.names().ok()?, of_pin(pin));
        let of_pin = names.iter().filter(|name| CopyName::parse_any(name).is_some_and(|name| name.pin() == pin));
        of_pin.filter_map(|name| read(&self.folder.join(name)).ok().map(Zeroizing::new)).find(|found| has_key(found))
    }

    /// Also allows copies of these pairs, which are about to be served.
    pub(super) fn allow<'p>(&self, pairs: impl Iterator<Item = ServedPair<'p>>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get_or_insert_default().extend(pairs.map(ServedPair::name));
    }

    /// Removes all copies except those of these pairs, and those of the chains in `missing`, which nothing has replaced yet:
    /// such a copy may have the only live key. Call it before anything is promised under other pairs: a copy must never
    /// have an older key than the one whose pins readers got last. `is_needed` gets a copy's names and the copy. It returns
    /// `true` if the copy must stay although no site has the pair as its own: such a copy is set aside.
    ///
    /// # Errors
    ///
    /// If a copy may still be there.
    pub(super) fn retain<'p>(
        &self,
        pairs: impl Iterator<Item = ServedPair<'p>>,
        missing: impl Iterator<Item = &'p Path>,
        is_needed: impl Fn(&[HostPattern], &CopyName<'_>) -> bool,
    ) -> io::Result<()> {
        let pairs: HashSet<String> = pairs.map(ServedPair::name).collect();
        let lacking: HashSet<String> = missing.map(of_path).collect();
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.insert(pairs);
        let names = match self.names() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            names => names?,
        };
        let there: HashSet<&String> = names.iter().collect();
        // The copies to come, of the same keys under other names: until they are there, the existing ones stay.
        let missing: HashSet<&str> = wanted
            .iter()
            .filter(|name| !there.contains(name))
            .filter_map(|name| CopyName::parse(name))
            .map(|name| name.pin())
            .collect();
        let mut changed = false;
        for name in names.iter().filter(|name| !wanted.contains(*name)) {
            // A wanted one that is being written; see `CopyBatch`.
            if name.strip_suffix(NEW_SUFFIX).is_some_and(|stem| wanted.contains(&format!("{stem}{SUFFIX}"))) {
                continue;
            }
            let path = self.folder.join(name);
            let parsed = CopyName::parse_any(name);
            let is_spared = |copy: &CopyName<'_>| {
                (lacking.contains(copy.path()) && !name.ends_with(FORMER)) || missing.contains(copy.pin())
            };
            if parsed.as_ref().is_some_and(is_spared) {
                continue;
            }
            let stays = parsed.is_some_and(|parsed| {
                let contents = read(&path).map(Zeroizing::new);
                contents.is_ok_and(|found| has_key(&found) && is_needed(Breaches::read(&found).known_hosts(), &parsed))
            });
            match stays {
                true if name.ends_with(FORMER) => continue,
                true => fs::rename(&path, self.folder.join(format!("{name}{FORMER}")))?,
                false => fs::remove_file(path)?,
            }
            changed = true;
        }
        if changed { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    /// Notes promises that nobody renews in the copies whose names they bind. While pintle serves, it writes such copies
    /// anew; this is for a ledger that nobody serves with.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn note_promises<'p>(&self, promises: impl IntoIterator<Item = &'p Promise>) -> io::Result<()> {
        let promises = Promises::alive(promises, Seconds::MIN);
        if promises.is_empty() {
            return Ok(());
        }
        for name in self.names().unwrap_or_default().iter().filter(|name| CopyName::parse_any(name).is_some()) {
            let path = self.folder.join(name);
            // One that cannot be read counts as one that does not deny its promises.
            let Ok(contents) = read(&path).map(Zeroizing::new) else { continue };
            let breaches = Breaches::read(&contents);
            let binding = promises.binding(breaches.names().hosts, breaches.names().except);
            if let Some(changed) = noted(&contents, binding).map(Zeroizing::new) {
                plain_file::put(&path, &changed, 0o600)?;
            }
        }
        Ok(())
    }

    /// The copies whose sites are gone, while their pairs stand in for names, or promises need their keys.
    #[must_use]
    pub fn former(&self) -> Vec<FormerCopy> {
        let names = self.names().unwrap_or_default();
        let paths = names.into_iter().filter(|name| name.ends_with(FORMER)).map(|name| self.folder.join(name));
        let hosts = |path: &Path| read(path).map(|found| Breaches::read(&Zeroizing::new(found)).known_hosts().to_vec());
        paths.filter_map(|path| Some(FormerCopy { hosts: hosts(&path).ok()?, path })).collect()
    }

    /// The remedies if copies are out of reach: in a folder of another user, or in one that somebody has moved aside.
    #[must_use]
    pub fn remedies(&self) -> Vec<String> {
        if self.is_in_memory() {
            return Vec::new();
        }
        let folder = shell_path(&self.folder);
        let is_closed = self.names().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let own = is_closed.then(|| self.hint_to_read());
        let aside = PathBuf::from(format!("{}{ASIDE}", self.folder.display()));
        let back = self.owner_of_both(&aside).map(|owner| {
            let (from, user) = (shell_path(&aside), shell_word(&privileges::user_name(owner)));
            // The owner can put links there at any time: root does not follow them.
            let by = if owner == 0 { String::new() } else { format!("as root: runuser -u {user} -- ") };
            format!("{from} may have the pair that was served last: {by}cp -an {from}/. {folder}/, then restart pintle")
        });
        own.into_iter().chain(back).collect()
    }

    /// The error for a copy that this user cannot read: nobody knows then what was served.
    #[must_use]
    pub fn unreadable(&self) -> Option<io::Error> {
        let is_there = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
        match self.names() {
            Ok(names) => {
                let copies = names.iter().filter(|name| CopyName::parse_any(name).is_some());
                copies.filter_map(|name| read(&self.folder.join(name)).map(Zeroizing::new).err()).find(is_there)
            }
            Err(error) => Some(error).filter(is_there),
        }
    }

    /// The ids of the ledgers beside which the copies were written. A copy of an older version, or of
    /// a first start, has none.
    #[must_use]
    pub fn ledger_ids(&self) -> HashSet<String> {
        let names = self.names().unwrap_or_default();
        let copies = names.iter().filter(|name| CopyName::parse_any(name).is_some());
        let contents = copies.filter_map(|name| read(&self.folder.join(name)).map(Zeroizing::new).ok());
        contents.filter_map(|contents| noted_ledger(&contents)).collect()
    }

    /// The line for copies about the ledger beside them.
    fn ledger_note(&self) -> String {
        ledger::own_id(plain_file::folder_of(&self.folder)).map(|id| ledger_note(&id)).unwrap_or_default()
    }

    /// A copy that can be read, and has no chain: it is damaged.
    #[must_use]
    pub fn damaged(&self) -> Option<PathBuf> {
        let names = self.names().unwrap_or_default();
        let copies = names.iter().filter(|name| CopyName::parse_any(name).is_some());
        let is_damaged = |copy: &PathBuf| {
            let contents = read(copy).map(Zeroizing::new);
            contents.is_ok_and(|contents| Chain::from_pem(&contents).is_err())
        };
        copies.map(|name| self.folder.join(name)).find(is_damaged)
    }

    /// The remedy if another user owns the copies.
    #[must_use]
    pub fn hint_to_read(&self) -> String {
        let (folder, state) = (shell_path(&self.folder), shell_path(plain_file::folder_of(&self.folder)));
        format!(
            "{folder} may have the pair that was served last, and this user cannot read it; as root: find {folder} \
             \\( -type d -o -type f -links 1 \\) -exec chown -h --reference={state} {{}} +"
        )
    }

    /// The user who owns the folder of the copies and the one that was moved aside; `None` unless both are such folders.
    fn owner_of_both(&self, aside: &Path) -> Option<u32> {
        let aside = fs::symlink_metadata(aside).ok().filter(fs::Metadata::is_dir)?.uid();
        match fs::symlink_metadata(&self.folder) {
            Ok(folder) => (folder.is_dir() && folder.uid() == aside).then_some(aside),
            Err(_) => fs::symlink_metadata(plain_file::folder_of(&self.folder)).ok()?.uid().eq(&aside).then_some(aside),
        }
    }

    /// `true` if a copy of this name is not allowed: its pair is no longer served.
    fn is_unwanted(&self, name: &str) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.as_ref().is_some_and(|wanted| !wanted.contains(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

/// Reads a copy. Root's commands read it, too, in a folder of the serving user: so neither links nor FIFOs.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = plain_file::open(path).and_then(|file| plain_file::believed(file, path))?;
    plain_file::read_opened(file, COPY_MAX)
}

#[cfg(test)]
mod tests;
