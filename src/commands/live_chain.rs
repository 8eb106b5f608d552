//! The chain that a site serves, for commands that read the files: a file that the guard refuses is not live.

use std::path::Path;

use super::{look_at, pin, warn};
use crate::config::{LastGood, Outline, SiteOutline};
use crate::host::HostPattern;
use crate::keys::key_file::public_key;
use crate::keys::pin::Pin;
use crate::ledger::Book;
use crate::ledger::time::wall;
use crate::policy::promise::{Promises, others};
use crate::reason::Reason;
use crate::tls::certificate::Chain;

/// A chain as it is served.
pub(super) struct LiveChain {
    pub(super) contents: Vec<u8>,
    /// The key in the file, which the guard refuses; `None` if the file is served.
    pub(super) refused: Option<Pin>,
}

/// Reads the live chain: the file, or the pair that was served last if the guard refuses the file. `None` if the file cannot
/// be read.
pub(super) fn live_chain(
    outline: &Outline,
    site: &SiteOutline,
    chain: &str,
    (alive, except): (&Promises<'_>, &[HostPattern]),
) -> Option<LiveChain> {
    let file = outline.path(chain);
    let contents = pin::read(&file).ok()?;
    let on_disk = Chain::from_pem(&contents)
        .ok()
        .filter(|on_disk| !alive.broken_by(&site.hosts, except, &on_disk.certain).is_empty());
    let copies = outline.state_directory.as_deref().map(LastGood::of);
    let served = on_disk.and_then(|on_disk| {
        let copy = copies?.read(&file, &site.hosts)?;
        let served = Chain::from_pem(&copy).ok()?;
        (served.pin() != on_disk.pin()).then(|| LiveChain { contents: copy, refused: Some(on_disk.pin()) })
    });
    Some(served.unwrap_or(LiveChain { contents, refused: None }))
}

/// The pins of a site's live keys.
pub(super) fn live_pins(path: &Path, outline: &Outline, site: &SiteOutline) -> Vec<Pin> {
    let book = book(path, outline).unwrap_or_default();
    let names: Vec<&[HostPattern]> = outline.sites.iter().map(|site| site.hosts.as_slice()).collect();
    let except = others(&names);
    let at = outline.sites.iter().position(|other| std::ptr::eq(other, site));
    let except = at.and_then(|at| except.get(at)).map_or(&[][..], Vec::as_slice);
    let alive = Promises::alive(book.promises(), wall());
    let chains = site.certificates.iter().map(|(chain, _)| live_chain(outline, site, chain, (&alive, except)));
    chains.filter_map(|live| Some(public_key(&live?.contents).ok()?.pin)).collect()
}

/// The promises in the ledger's file.
pub(super) fn book(path: &Path, outline: &Outline) -> Result<Book, Reason> {
    let Some(folder) = &outline.state_directory else { return Ok(Book::default()) };
    let (book, damage) = look_at(path, folder)?;
    if let Some(damage) = damage {
        warn(&damage);
    }
    Ok(book)
}
