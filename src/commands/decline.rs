//! `pintle ledger decline`: promises of other folders that no client holds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::ledger::{open_here, read_others};
use super::{fail_with_hint, read, refuse};
use crate::config::Draft;
use crate::ledger::time::judged_now;
use crate::ledger::{Book, Declined, FILE, Record, set_id};
use crate::os::words::words;
use crate::reason::{Reason, counted};

/// Notes that no client holds the promises in other ledgers, as far as this one lacks them: they do not count where a start
/// finds them in another folder. What is promised there later does.
pub fn decline(path: &Path, files: &[PathBuf]) -> ExitCode {
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    let Some(folder) = draft.state() else {
        return fail_with_hint(&format!("{}: no ledger to note it in", path.display()), &"set state.directory");
    };
    match read_others(files).and_then(|records| note(&draft, &folder, records)) {
        Ok(declined) => {
            println!("{} declined: no start counts them", counted(declined, "promise"));
            ExitCode::SUCCESS
        }
        Err(reason) => refuse(&reason),
    }
}

fn note(draft: &Draft, folder: &Path, records: Vec<Record>) -> Result<usize, Reason> {
    let Some(mut ledger) = open_here(draft, folder)? else {
        let reason = Reason::new("nothing is declined: a process of pintle has the ledger");
        return Err(reason.hint("stop it first (`systemctl stop pintle`)"));
    };
    let mut theirs = Book::default();
    records.into_iter().for_each(|record| _ = theirs.apply(record));
    let (at, _) = judged_now(ledger.book().newest());
    let declined = |record: Record| {
        let promise = match record {
            Record::Promise(promise) => Some(promise),
            Record::Unknown(json) => Record::strictest(&json),
            _ => None,
        };
        promise.map(|promise| Record::Declined(Declined { set: set_id(&promise), at }))
    };
    let declined: Vec<Record> = ledger.book().news(&theirs).into_iter().filter_map(declined).collect();
    if declined.is_empty() {
        let reason = Reason::new("nothing is declined: the ledger has all promises of these files");
        return Err(reason.hint(
            "if another key is refused because of them, the refusal prints the command that accepts the lockout",
        ));
    }
    let count = declined.len();
    ledger.record(declined).map_err(|error| format!("{}: {}", folder.join(FILE).display(), words(&error)))?;
    Ok(count)
}
