//! The work of the thread that reads: the files of one page.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::{OpenedPage, path_of};
use super::name::{PageFileName, beginning, folder_name, folder_of, page_of};
use super::site::{SiteDisk, count};
use super::state::RecallWait;
use super::writer::{begin, learn};
use crate::cache::freshness::ReceivedAt;
use crate::cache::page::{StoredResponse, VARIANTS_MAX};
use crate::cache::stored_head::{HeadArrival, StoredHead};
use crate::clock::boot::{BootMoment, wall_millis};
use crate::clock::uptime;

/// Reads the files of a page, for all that wait for it.
pub(super) fn read(disk: &Arc<SiteDisk>, key: &[u8]) {
    let site = disk.folder();
    begin(disk, &site);
    let epoch = disk.state().recalls.get(key).map_or(0, |wait| wait.epoch);
    let page = page_of(key);
    if !disk.state().is_scanned(page) {
        look(disk, &site, page);
    }
    let names: Vec<PageFileName> = disk.state().index.of_page(page).map(|(name, _)| name).take(VARIANTS_MAX).collect();
    let read = names.into_iter().filter_map(|name| Some((name, one(disk, path_of(&site, name), name, key, epoch)?)));
    let read: Arc<[(PageFileName, Arc<StoredResponse>)]> = read.collect();
    if !read.is_empty() {
        count(&disk.counts.read);
    }
    let Some(RecallWait { waiters, .. }) = disk.state().recalls.remove(key) else { return };
    waiters.into_iter().for_each(|waiter| _ = waiter.send(read.clone()));
}

/// Learns the files of a page whose folder was not looked through yet.
fn look(disk: &SiteDisk, site: &Path, page: [u64; 2]) {
    let (folder, beginning) = (site.join(folder_name(folder_of(page))), beginning(page));
    for found in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let file = found.file_name();
        let name = file.to_str().filter(|text| text.starts_with(&beginning)).and_then(PageFileName::parse);
        if let Some(name) = name.filter(|name| !disk.state().index.has(*name)) {
            learn(disk, name, &found.path());
        }
    }
}

/// Reads a file; `None` if its response cannot be used. A damaged one is removed.
fn one(disk: &Arc<SiteDisk>, path: PathBuf, name: PageFileName, key: &[u8], epoch: u64) -> Option<Arc<StoredResponse>> {
    let read = OpenedPage::open(&path).and_then(|opened| match opened {
        None => Ok(None),
        Some(mut opened) => Ok(opened.body()?.map(|body| (opened, body))),
    });
    let (opened, body) = match read {
        Ok(Some(read)) => read,
        Ok(None) => {
            count(&disk.counts.damaged);
            let folder = disk.folder();
            tracing::warn!(
                file = %path.strip_prefix(&folder).unwrap_or(&path).display(),
                "a stored page is damaged, or of another version: removed"
            );
            return drop_file(disk, name);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.state().index.remove(name);
            return None;
        }
        Err(error) => {
            count(&disk.counts.failed);
            tracing::debug!(file = %path.display(), %error, "a stored page cannot be read");
            return None;
        }
    };
    let saved = opened.saved;
    if saved.key != key {
        return None;
    }
    let is_invalid = saved.is_invalid || saved.epoch != disk.state().epoch();
    let age = saved.age(&BootMoment::now());
    let received = ReceivedAt { at: wall_millis().div_euclid(1000), delay: 0 };
    let arrival = HeadArrival { received, uptime: uptime(), epoch };
    // Rules may have become stricter.
    let Ok(head) = StoredHead::restored(saved.head, age, arrival) else { return drop_file(disk, name) };
    let stored = StoredResponse::new(head, body);
    if is_invalid {
        stored.invalidate();
    }
    Some(Arc::new(stored))
}

fn drop_file(disk: &Arc<SiteDisk>, name: PageFileName) -> Option<Arc<StoredResponse>> {
    let mut state = disk.state();
    state.index.remove(name);
    state.removals.push(name);
    disk.enlist(&mut state);
    None
}
