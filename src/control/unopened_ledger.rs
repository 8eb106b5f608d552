//! A ledger that could not be opened: what its file has is known all the same, and it is opened once that is possible.

use std::io;
use std::path::Path;

use crate::ledger::{Ledger, OpenError, Record};
use crate::os::words::words;
use crate::policy::promise::Seconds;

/// Returns the records of others in the ledger's file that the book lacks: a process that may not write the file may
/// still read it, and what others put there binds.
pub(super) fn hear(ledger: &mut Ledger, folder: &Path, now: Option<Seconds>) -> Vec<Record> {
    crate::ledger::look(folder).map_or_else(|_| Vec::new(), |(found, _)| ledger.hear(&found, now))
}

/// Opens the ledger, as the disk may work again. Returns the records of others in its file, which the book lacked.
pub(super) fn reopen(ledger: &mut Ledger, folder: &Path, now: Seconds) -> io::Result<Vec<Record>> {
    let mut opened = match Ledger::open(folder, now) {
        Ok((opened, _)) => opened,
        // The known reason says more: an upgrade may be under way.
        Err(OpenError::Locked) => return Ok(Vec::new()),
        Err(OpenError::Io(error)) => return Err(io::Error::other(format!("{}: {}", folder.display(), words(&error)))),
        // A lost record may be a promise that this process never knew.
        Err(damage @ OpenError::Damaged(_)) => return Err(io::Error::other(damage)),
    };
    let foreign = ledger.book().news(opened.book()).into_iter().filter(Record::travels).collect();
    opened.believe(ledger.book().records().collect());
    let all = opened.book().records().collect();
    opened.record(all)?;
    opened.note_served();
    *ledger = opened;
    Ok(foreign)
}
