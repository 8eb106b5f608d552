//! A configuration's ledger is opened, or refused with the remedies; and the other remedies for a ledger's files.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Draft, LastGood};
use crate::ledger::repair::dated_ahead;
use crate::ledger::time::{day, wall};
use crate::ledger::{Book, FILE, HEAD, Ledger, MOVED, Notice, OpenError, is_set_aside};
use crate::os::plain_file;
use crate::os::words::words;
use crate::reason::pasted::option_for;
use crate::reason::{Reason, shell_path};

/// The longest wait for a ledger that another process has: a command has it for a moment only.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// The longest file behind a link that is looked at.
const LINKED_MAX: u64 = 256 << 20;
/// The name that another ledger's file gets, which has come in the place of a folder's own one.
const OTHER: &str = "ledger.other";
/// The pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Opens a configuration's ledger. If it cannot be written, returns one whose every write fails
/// with that error.
///
/// # Errors
///
/// If another process holds it, if promises may be lost, or if it cannot be read, so that nobody
/// knows the promises.
pub fn open_ledger(draft: &Draft) -> Result<(Ledger, Vec<Notice>), Reason> {
    open_ledger_with(draft, None)
}

/// The same, with a book of everything that the ledger should contain. With it, nothing can be
/// lost.
///
/// # Errors
///
/// The same.
pub fn open_ledger_with(draft: &Draft, known: Option<Book>) -> Result<(Ledger, Vec<Notice>), Reason> {
    let Some(folder) = draft.state() else {
        let mut ledger = Ledger::in_memory();
        ledger.believe(known.iter().flat_map(Book::records).collect());
        return Ok((ledger, Vec::new()));
    };
    let open = || match known.clone() {
        Some(known) => Ledger::mend(&folder, known, wall()),
        None => Ledger::open(&folder, wall()),
    };
    match unlocked(open) {
        Ok(opened) => Ok(opened),
        Err(error @ OpenError::Damaged(_)) => {
            let is_there = folder.join(FILE).exists();
            let copy = is_there.then(|| format!("a copy is kept as {}", crate::ledger::DAMAGED));
            Err(lost(draft, &folder, &error, copy))
        }
        Err(OpenError::Locked) => {
            let reason = Reason::new(format!("state.directory: {}: another process has the ledger", folder.display()));
            Err(reason.hint("stop that process, or give each pintle a state.directory of its own"))
        }
        Err(OpenError::Io(error)) => {
            let (book, notices) = match crate::ledger::look(&folder) {
                Ok(found) => found,
                Err(unread) => {
                    let file = crate::ledger::unreadable(&folder);
                    let reason =
                        Reason::new(format!("{}: cannot read the promises: {}", file.display(), words(&unread)));
                    return Err(reason.hints(hints_to_read(&file, &unread)));
                }
            };
            if known.is_none() && notices.iter().any(Notice::is_loss) {
                // A folder that cannot be written makes the loss no smaller.
                let unwritten = format!("{}: {}: make it writable first", folder.display(), words(&error));
                return Err(lost(draft, &folder, &OpenError::Damaged(notices), Some(unwritten)));
            }
            let mut book = book;
            known.iter().flat_map(Book::records).for_each(|record| _ = book.apply(record));
            Ok((Ledger::broken(book, format!("{}: {}", folder.display(), words(&error))), notices))
        }
    }
}

/// The refusal of a ledger that may have lost promises.
fn lost(draft: &Draft, folder: &Path, error: &OpenError, note: Option<String>) -> Reason {
    let reason = Reason::new(format!("{}: {error}", folder.join(FILE).display()));
    let reason = note.into_iter().fold(reason, |reason, note| reason.note(note));
    reason.hints(remedies(draft.path(), folder, error))
}

/// Opens a ledger again and again while another process has it, up to [`LOCK_PATIENCE`].
fn unlocked<T>(open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match open() {
            Err(OpenError::Locked) if Instant::now() < end => thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
}

/// The remedies for a ledger that may have lost promises.
#[must_use]
pub fn remedies(config: &Path, folder: &Path, error: &OpenError) -> Vec<String> {
    let (option, today) = (option_for(config), day(wall()));
    let notices = if let OpenError::Damaged(notices) = error { notices.as_slice() } else { &[] };
    let is_other = notices.iter().any(|notice| matches!(notice, Notice::OtherLedger { .. }));
    let mut remedies = if is_other { put_back(&option, folder) } else { moved(folder) };
    if !is_other {
        remedies.push(format!(
            "restore a newer copy of the file, if you have one; `pintle ledger repair{option}` shows the readable part"
        ));
    }
    remedies.push(format!(
        "to continue with {}, and accept that clients who hold a lost promise may be locked out: \
         pintle ledger repair{option} --accept-loss {today}",
        if is_other { "the other ledger alone" } else { "this part" }
    ));
    remedies
}

/// The remedies for another ledger's file in the place of a folder's own one.
fn put_back(option: &str, folder: &Path) -> Vec<String> {
    let copies = LastGood::of(folder);
    let is_closed = copies.unreadable().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let [at, file, other] = [folder.to_owned(), folder.join(FILE), folder.join(OTHER)].map(|path| shell_path(&path));
    let own = format!(
        "if you have a copy of this folder's own files (COPY), put them back, and add the promises of the other ledger: \
         cp {file} {other} && cp COPY/{FILE} COPY/{HEAD} {at}/ && pintle ledger merge{option} {other}"
    );
    // With the copies of what was served, a start knows the own promises.
    is_closed.then(|| copies.hint_to_read()).into_iter().chain([own]).collect()
}

/// The hint to move a state to another folder by hand.
#[must_use]
pub fn hint_to_move(from: &Path, to: &Path) -> String {
    let (from, to) = (shell_path(from), shell_path(to));
    format!(
        "stop pintle, `mkdir -p {to} && cp -a {from}/. {to}/`, and start it: ledger, acme/ and last-good/ belong together"
    )
}

/// The remedies if an upgrade has moved the ledger from this folder to another one.
fn moved(folder: &Path) -> Vec<String> {
    // After an upgrade that came back, nobody needs the old file.
    if !is_set_aside(folder) {
        return Vec::new();
    }
    let [aside, file] = [MOVED, FILE].map(|name| folder.join(name));
    vec![
        format!(
            "an upgrade has moved the ledger to another state.directory ({} is the old file): stop the process that uses \
             that one, and copy its {FILE} and {HEAD} here",
            aside.display(),
        ),
        format!(
            "if there was no other one, or it is lost, the old file has all promises from before that upgrade: mv {} {}",
            shell_path(&aside),
            shell_path(&file)
        ),
    ]
}

/// The reason against a configuration without `state.directory`, while the process in use has one.
#[must_use]
pub(super) fn state_is_gone(old: &Path) -> Reason {
    let what = "state.directory is gone: the next start would forget the promises of [site.hpkp]";
    Reason::new(what).hint(format!("put it back: directory = \"{}\" in [state]", old.display()))
}

/// The reason to look at a ledger's dates: this machine's clock was ahead once, or another node's
/// was, and promises count as held for that much longer.
#[must_use]
pub fn dates_ahead(config: &Path, book: &Book) -> Option<Reason> {
    let now = wall();
    let latest = dated_ahead(book, now)?;
    let what = format!(
        "the ledger has dates up to {}, and this machine's clock shows {}: promises count as held for longer than they are",
        day(latest),
        day(now)
    );
    let hint = "if the clock is right now, stop pintle and correct the dates: pintle ledger repair";
    Some(Reason::new(what).hint(format!("{hint}{}", option_for(config))))
}

/// The reason for an error of a ledger's folder, about the file that fails.
#[must_use]
pub fn unreadable_ledger(folder: &Path, error: &io::Error) -> Reason {
    let file = crate::ledger::unreadable(folder);
    Reason::new(format!("{}: {}", file.display(), words(error))).hints(hints_to_read(&file, error))
}

/// The remedies for a file of the state that this user may not read or write.
#[must_use]
pub(super) fn hints_to_read(file: &Path, error: &io::Error) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::symlink_metadata(file).is_ok_and(|is| !is.is_file()) {
        // A link to a ledger: the promises are there. A link to anything else may have been planted.
        let target = std::fs::canonicalize(file).ok().filter(|target| is_ledger(target));
        let at = shell_path(file);
        return vec![match target {
            Some(target) => format!(
                "put the file itself in the place of the link: cp -p --remove-destination {} {at}",
                shell_path(&target)
            ),
            None => {
                format!("move it away: mv -T {at} {at}.aside; if promises are missing then, the next start says so")
            }
        }];
    }
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Vec::new();
    }
    let folder = file.parent().unwrap_or(file);
    let owner = [file, folder].into_iter().find_map(|path| std::fs::metadata(path).ok()).map(|m| m.uid());
    let me = rustix::process::geteuid().as_raw();
    match owner {
        Some(owner) if owner != me => vec![
            format!(
                "it belongs to user {owner}, and this is user {me}: run the command as that user (`sudo -u '#{owner}' \
                 pintle ...`) or as root"
            ),
            format!("if pintle should serve as user {me}: chown {me} {}", shell_path(file)),
        ],
        _ => vec![format!("chmod u+rwX {} {}", shell_path(folder), shell_path(file))],
    }
}

fn is_ledger(path: &Path) -> bool {
    plain_file::read(path, LINKED_MAX).is_ok_and(|contents| !crate::ledger::read_book(&contents).0.is_empty())
}
