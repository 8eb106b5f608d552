//! Interrupted installations: the previous files are kept beside the new ones until these are
//! verified. The next start or installation finishes or undoes an interrupted one.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::copies::{OLD, OLD_MODE, OldCopies, old_of, undone_of};
use super::previous;
use crate::config::{CheckContext, Draft, LastGood, Outline};
use crate::keys::key_file::{FILE_MAX, private_pin};
use crate::ledger::Book;
use crate::os::plain_file;
use crate::os::words::words;
use crate::policy::promise::Seconds;
use crate::reason::Reason;
use crate::tls::certificate::Chain;

/// The promises in force and the time; `None` if they are unknown.
pub type KnownBook<'b> = &'b dyn Fn() -> Option<(Book, Seconds)>;

/// One file of a pair.
struct PairFile {
    path: PathBuf,
    now: Option<Zeroizing<Vec<u8>>>,
    /// The previous file, and its contents.
    old: Option<(PathBuf, Zeroizing<Vec<u8>>)>,
}

/// Finishes interrupted installations whose files are all in place and may be served, undoes others, and reports it. With
/// `only_tell`, it reports only.
pub fn settle(draft: &Draft, book: KnownBook<'_>, only_tell: bool, say: &mut dyn FnMut(Reason)) {
    let Some(outline) = draft.outline() else { return };
    let mut old = OldCopies::default();
    for (chain, key) in outline.sites.iter().flat_map(|site| &site.certificates) {
        let paths = [Some(outline.path(chain)), key.as_ref().map(|key| outline.path(key))];
        // Usually there is nothing.
        if !paths.iter().flatten().any(|path| old.has(path)) {
            continue;
        }
        let shown = outline.path(chain).display().to_string();
        match settle_pair(&paths, &ChainJudge { draft, outline: &outline, book }, only_tell) {
            Ok(None) => {}
            Ok(Some(what)) => say(format!("{shown}: an installation was interrupted: {what}").into()),
            Err(error) => {
                let what = format!("{shown}: an installation was interrupted, and cannot be undone: {}", words(&error));
                let hint = format!("as the user who installs: pintle install again, or move the files *{OLD} back");
                say(Reason::new(what).hint(hint));
            }
        }
    }
}

/// The files of a pair with their copies, whose locks are held; `None` if the installation is still running.
fn read_pair([chain, key]: &[Option<PathBuf>; 2]) -> io::Result<Option<(Vec<PairFile>, Vec<File>)>> {
    let (mut places, mut locks): (Vec<PairFile>, Vec<File>) = (Vec::new(), Vec::new());
    // One file may have both.
    for path in [chain, key].into_iter().flatten() {
        if places.iter().any(|place| place.path == *path) {
            continue;
        }
        let old = old_of(path)?;
        let old = match plain_file::open(&old).and_then(|file| plain_file::believed(file, &old)) {
            Ok(file) => {
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(error)) => return Err(error),
                }
                locks.push(file.try_clone()?);
                Some((old, Zeroizing::new(plain_file::read_opened(file, FILE_MAX)?)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {}", old.display(), words(&error)))),
        };
        places.push(PairFile { path: path.clone(), now: fs::read(path).ok().map(Zeroizing::new), old });
    }
    Ok(Some((places, locks)))
}

/// `None` if the installation is still running.
fn settle_pair(paths: &[Option<PathBuf>; 2], judge: &ChainJudge<'_>, only_tell: bool) -> io::Result<Option<String>> {
    let Some((places, _locks)) = read_pair(paths)? else { return Ok(None) };
    let key = &paths[1];
    let (now, before) = (PairOnDisk::of(&places, key.is_some(), false), PairOnDisk::of(&places, key.is_some(), true));
    let put_back = "the start, or the next `pintle install`, restores the previous files";
    let what = match (now.fits(), before.fits(), only_tell) {
        (true, fits_before, _) => match judge.refusal(&places, &now) {
            None if only_tell => {
                return Ok(Some("its files are complete; the start keeps the previous ones for a way back".into()));
            }
            None => {
                previous::replace(&places.iter().map(|place| place.path.clone()).collect::<Vec<_>>())?;
                return Ok(Some("its files are complete, so it is finished now".to_owned()));
            }
            // What is refused either way stays: the previous files may have the only key of a promise.
            Some(why) if !fits_before || judge.refusal(&places, &before).is_some() => {
                return Ok(Some(format!("pintle refuses its certificate, and keeps the files *{OLD}: {why}")));
            }
            Some(why) if only_tell => return Ok(Some(format!("pintle refuses its certificate: {why}; {put_back}"))),
            Some(why) => {
                let back = restore(&places)?;
                format!("pintle refuses its certificate, so it is undone, and {back}: {why}")
            }
        },
        (false, true, true) => return Ok(Some(put_back.into())),
        (false, true, false) => {
            format!("it is undone, and {}", restore(&places)?)
        }
        (false, false, _) => {
            let why = "neither the new nor the previous files are a chain and its key";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    };
    for (old, _) in places.iter().filter_map(|place| place.old.as_ref()) {
        fs::remove_file(old)?;
    }
    Ok(Some(what))
}

/// A chain, and its key if there is one, as they are or were. One file may have both.
struct PairOnDisk<'p> {
    chain: Option<&'p [u8]>,
    key: Option<Option<&'p [u8]>>,
}

impl<'p> PairOnDisk<'p> {
    fn of(places: &'p [PairFile], has_key: bool, before: bool) -> Self {
        let contents = |place: &'p PairFile| match &place.old {
            Some((_, old)) if before => Some(old.as_slice()),
            _ => place.now.as_ref().map(|now| now.as_slice()),
        };
        let key = places.last().filter(|_| has_key).map(contents);
        Self { chain: places.first().and_then(contents), key }
    }

    /// `true` if they belong together.
    fn fits(&self) -> bool {
        let Some(chain) = self.chain.and_then(|contents| Chain::from_pem(contents).ok()) else { return false };
        self.key.is_none_or(|contents| contents.and_then(private_pin) == Some(chain.pin()))
    }
}

/// Judges the chain of an interrupted installation.
struct ChainJudge<'d> {
    draft: &'d Draft,
    outline: &'d Outline,
    book: KnownBook<'d>,
}

impl ChainJudge<'_> {
    /// Returns pintle's reason against a chain at this place; `None` if it accepts the chain, or if the ledger is unknown.
    fn refusal(&self, places: &[PairFile], pair: &PairOnDisk<'_>) -> Option<String> {
        let (place, contents) = (places.first()?, pair.chain?);
        let (book, now) = (self.book)()?;
        // Without the keys: a process that must not have them asks, too.
        let chains = self.outline.sites.iter().flat_map(|site| &site.certificates);
        let chains = chains.map(|(chain, _)| self.outline.path(chain));
        let read = |path: &PathBuf| Zeroizing::new(plain_file::read(path, FILE_MAX).unwrap_or_default());
        let mut instead: HashMap<PathBuf, Zeroizing<Vec<u8>>> =
            chains.map(|path| (path.clone(), read(&path))).collect();
        instead.insert(place.path.clone(), Zeroizing::new(contents.to_vec()));
        // As for an installation: the copies tell which names the previous pair does not serve either.
        let last_good = self.draft.state().map(|state| LastGood::of(&state));
        let context = CheckContext { instead, chains_alone: true, last_good, ..CheckContext::new(&book, now) };
        let (_, problems) = self.draft.build(&context);
        let mut refusals =
            problems.sorted().into_iter().filter(|p| p.is_error() && p.path.as_ref() == Some(&place.path));
        refusals.next().map(|problem| problem.reason.line())
    }
}

/// Puts the previous files back. The key comes last: until then the pair does not fit, and an interruption is repaired by
/// the next run. A private key that this overwrites is kept, as it may be the only copy: the copies may be of an earlier
/// installation, and somebody else may have written the key. Returns the outcome in words.
fn restore(places: &[PairFile]) -> io::Result<String> {
    let mut outcome = "the previous files are back".to_owned();
    for PairFile { path, now, old } in places {
        if let Some((_, contents)) = old {
            let mode = fs::metadata(path).map_or(OLD_MODE, |m| m.permissions().mode() & 0o7777);
            let key = now.as_ref().and_then(|now| private_pin(now));
            if let (Some(now), true) = (now, key.is_some() && key != private_pin(contents)) {
                let undone = undone_of(path)?;
                plain_file::put(&undone, now, OLD_MODE)?;
                outcome += &format!(" ({} has the key that was in place)", undone.display());
            }
            plain_file::put(path, contents, mode)?;
        }
    }
    Ok(outcome)
}
