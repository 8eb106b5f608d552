//! The work of the thread that writes, for one site, in small steps: removals and marks first, then a folder to look
//! through, then a response to write.

use std::io;
use std::path::Path;

use super::file;
use super::folder::{self, OpenedPage};
use super::index::DiskEntry;
use super::name::{FOLDERS, NEW, PageFileName, Sought, folder_name, is_renamed, marks};
use super::site::{SiteDisk, count, hours};
use super::state::{DiskState, WriteJob};
use super::sweep::UNUSED;
use crate::cache::page::VARIANTS_MAX;
use crate::clock::boot::{BootMoment, wall_millis};
use crate::clock::uptime;

/// The most files that make room in one step.
const EVICTED_MAX: usize = 64;
/// The first and the longest pause after the disk has refused, in milliseconds.
const PAUSE: u64 = 1000;
const PAUSE_MAX: u64 = 60_000;

/// Does some of the work. Returns `true` if there is more.
pub(super) fn step(disk: &SiteDisk) -> bool {
    let site = disk.folder();
    begin(disk, &site);
    let mut state = disk.state();
    let (is_open, is_wholly_scanned) = (state.is_open, state.is_wholly_scanned());
    let is_asked = is_wholly_scanned || !is_open;
    let waiters = if is_asked { std::mem::take(&mut state.waiters) } else { Vec::new() };
    let (epoch, bumps) = (state.epoch(), state.bumps);
    let writes_epoch = state.epoch_written != bumps;
    state.epoch_tried = bumps;
    drop(state);
    let mut settled = tidy(disk, &site);
    if writes_epoch {
        let written = folder::write_epoch(&site, epoch);
        if written.is_ok() {
            disk.state().epoch_written = bumps;
        }
        settled = both(settled, written);
    }
    if !waiters.is_empty() {
        settled = both(settled, sync(disk, &site));
    }
    if !is_wholly_scanned && !is_open && !waiters.is_empty() {
        settled = both(settled, Err(io::Error::other("another process has taken the stored pages over")));
    }
    if let Err(error) = &settled {
        count(&disk.counts.failed);
        disk.service.fails(error);
    }
    let settled = settled.map_err(|error| error.to_string());
    waiters.into_iter().for_each(|waiter| _ = waiter.send(settled.clone()));
    if !is_wholly_scanned && is_open {
        scan(disk, &site);
    }
    evict(disk, &site, 0);
    write_next(disk, &site);
    let mut state = disk.state();
    let is_too_large = state.index.size().1 > disk.budget();
    state.rests(is_too_large)
}

/// Reads what a process needs to know of the folder before anything else.
pub(super) fn begin(disk: &SiteDisk, site: &Path) {
    let mut state = disk.state();
    if state.epoch.is_some() {
        return;
    }
    let (mark, mut epoch) = (site.join(UNUSED), folder::epoch(site));
    if std::fs::symlink_metadata(&mark).is_ok() {
        // Changes meanwhile did not reach these pages: each is validated before it is used.
        epoch = epoch.wrapping_add(1);
        if folder::write_epoch(site, epoch).is_ok() {
            let _ = std::fs::remove_file(mark);
        }
    }
    state.epoch = Some(epoch);
}

/// The first error of two things that were done.
fn both(first: io::Result<()>, second: io::Result<()>) -> io::Result<()> {
    first?;
    second
}

/// Removes and marks what waits for it. What the disk refuses waits for the next time.
fn tidy(disk: &SiteDisk, site: &Path) -> io::Result<()> {
    let mut state = disk.state();
    let (removals, marked) = (std::mem::take(&mut state.removals), std::mem::take(&mut state.marks));
    let (refused, refused_marks) = (std::mem::take(&mut state.refused), std::mem::take(&mut state.refused_marks));
    // A newer response may have taken the place of one that the disk had refused to remove.
    let refused: Vec<PageFileName> = refused.into_iter().filter(|name| !state.index.has(*name)).collect();
    state.unsynced.extend(removals.iter().chain(&refused).map(|name| name.folder()));
    drop(state);
    let mut tidied = Ok(());
    for name in removals.into_iter().chain(refused) {
        let removed = folder::remove(site, name);
        if removed.is_err() {
            disk.state().refused.push(name);
        }
        tidied = both(tidied, removed);
    }
    for name in marked.into_iter().chain(refused_marks) {
        // A newer response may have taken its place, or it is gone.
        let is_marked = disk.state().index.get_mut(name).is_some_and(|entry| entry.is_invalid);
        if is_marked {
            let marked = folder::mark(site, name);
            if marked.is_err() {
                disk.state().refused_marks.push(name);
            }
            tidied = both(tidied, marked);
        }
    }
    tidied
}

/// Has the disk keep removals over a loss of power.
fn sync(disk: &SiteDisk, site: &Path) -> io::Result<()> {
    let unsynced = std::mem::take(&mut disk.state().unsynced);
    let synced = unsynced.iter().try_for_each(|number| folder::sync(site, *number));
    if synced.is_err() {
        disk.state().unsynced.extend(unsynced);
    }
    synced
}

/// Looks through the next folder.
fn scan(disk: &SiteDisk, site: &Path) {
    let number = disk.state().scanned;
    let folder = site.join(folder_name(number));
    for found in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let file = found.file_name();
        let Some(text) = file.to_str() else { continue };
        let name = PageFileName::parse(text).filter(|name| name.folder() == number);
        if text.ends_with(NEW) {
            // Only this thread writes, and it is here.
            let _ = std::fs::remove_file(found.path());
        } else if let Some(name) = name.filter(|name| !disk.state().index.has(*name)) {
            learn(disk, name, &found.path());
        }
    }
    let mut state = disk.state();
    // Somebody may have begun anew.
    if state.scanned == number {
        state.scanned = number + 1;
    }
    if state.scanned == FOLDERS {
        state.pending.clear();
    }
}

/// Takes a file into the index, or removes it.
pub(super) fn learn(disk: &SiteDisk, name: PageFileName, path: &Path) {
    match OpenedPage::open(path) {
        Ok(Some(opened)) if PageFileName::of(&opened.saved.key, &opened.saved.head.variant) == name => {
            note(&mut disk.state(), name, &opened);
        }
        Ok(_) => {
            count(&disk.counts.damaged);
            tracing::debug!(file = %path.display(), "a stored page is damaged, or of another version: removed");
            if std::fs::remove_file(path).is_err() {
                count(&disk.counts.failed);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            count(&disk.counts.failed);
            tracing::debug!(file = %path.display(), %error, "a stored page cannot be read");
        }
    }
}

/// Notes a file that was found, as the purges of this process leave it.
pub(super) fn note(state: &mut DiskState, name: PageFileName, opened: &OpenedPage) {
    let saved = &opened.saved;
    if state.index.has(name) {
        return;
    }
    let marks = marks(&saved.key, &saved.head.tags());
    let is_meant = |soft: bool| {
        let mut pending = state.pending.iter().filter(|(_, is_soft)| *is_soft == soft);
        pending.any(|(scope, _)| Sought::of(scope).finds(name, &marks))
    };
    if is_meant(false) {
        state.removals.push(name);
        return;
    }
    let is_invalid = saved.is_invalid || saved.epoch != state.epoch();
    let is_marked_now = !is_invalid && is_meant(true);
    let found_by = (marks, is_renamed(&saved.key));
    state
        .index
        .insert(name, DiskEntry::new(opened.bytes, hours(opened.written), is_invalid || is_marked_now, found_by));
    if is_marked_now {
        state.marks.push(name);
    }
}

/// Makes room for this many bytes.
fn evict(disk: &SiteDisk, site: &Path, room: u64) {
    for _ in 0..EVICTED_MAX {
        let mut state = disk.state();
        if state.index.size().1 + room <= disk.budget() {
            return;
        }
        let Some(name) = state.index.victim() else { return };
        state.index.remove(name);
        drop(state);
        count(&disk.counts.evicted);
        if folder::remove(site, name).is_err() {
            count(&disk.counts.failed);
            disk.state().refused.push(name);
        }
    }
}

/// Writes the response that has waited for longest.
fn write_next(disk: &SiteDisk, site: &Path) {
    let mut state = disk.state();
    let Some(job) = state.queue.pop_front() else { return };
    state.queued -= job.stored.body.len() as u64;
    if uptime() < state.resume_at {
        forget(&mut state, job.name);
        count(&disk.counts.dropped);
        return;
    }
    state.current = Some((job.clone(), false));
    let epoch = state.epoch();
    drop(state);
    let written = write(disk, site, &job, epoch);
    let mut state = disk.state();
    let is_over = state.current.take().is_some_and(|(_, is_over)| is_over);
    match written {
        Ok(Some(entry)) if !is_over => {
            let is_invalid = entry.is_invalid;
            make_room_for_variant(&mut state, job.name);
            state.index.insert(job.name, entry);
            if !is_invalid && job.stored.is_marked_invalid() {
                state.index.get_mut(job.name).into_iter().for_each(|entry| entry.is_invalid = true);
                state.marks.push(job.name);
            }
            state.pause = 0;
            count(&disk.counts.written);
            disk.service.works();
        }
        Ok(Some(_)) => state.removals.push(job.name),
        Ok(None) => forget(&mut state, job.name),
        Err(error) => {
            state.pause = (state.pause * 2).clamp(PAUSE, PAUSE_MAX);
            state.resume_at = uptime() + state.pause;
            forget(&mut state, job.name);
            count(&disk.counts.failed);
            count(&disk.counts.dropped);
            disk.service.fails(&error);
        }
    }
}

/// Gives up the variant of a page that was not used for longest, if memory could not hold another one either.
fn make_room_for_variant(state: &mut DiskState, name: PageFileName) {
    let others = || state.index.of_page(name.page).filter(|(other, _)| *other != name);
    let oldest = others().min_by_key(|(_, entry)| entry.used).map(|(other, _)| other);
    if let Some(oldest) = oldest.filter(|_| others().count() >= VARIANTS_MAX) {
        state.index.remove(oldest);
        state.removals.push(oldest);
    }
}

/// The old file must not outlive the response that was to replace it.
fn forget(state: &mut DiskState, name: PageFileName) {
    if state.index.remove(name).is_some() {
        state.removals.push(name);
    }
}

/// Writes a response; `Ok(None)` if it has no form on disk.
fn write(disk: &SiteDisk, site: &Path, job: &WriteJob, epoch: u64) -> io::Result<Option<DiskEntry>> {
    let is_invalid = job.stored.is_marked_invalid();
    let now = (&BootMoment::now(), uptime());
    let Some(head) = file::write(&job.key, &job.stored, (is_invalid, epoch), now) else { return Ok(None) };
    let bytes = (head.len() + job.stored.body.len()) as u64;
    let found_by = (marks(&job.key, job.stored.head.tags()), is_renamed(&job.key));
    let entry = DiskEntry::new(bytes, hours(wall_millis()), is_invalid, found_by);
    evict(disk, site, entry.bytes());
    if disk.state().index.size().1 + entry.bytes() > disk.budget() {
        return Ok(None);
    }
    if folder::is_scarce(site) {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "too little free space is left for the ledger"));
    }
    folder::write(site, job.name, &head, &job.stored.body)?;
    Ok(Some(entry))
}
