//! `pintle ledger repair`: the faults of the ledger, the plan to repair them, and, once the
//! operator confirms it, the repair.

use std::path::Path;
use std::process::ExitCode;

use super::lost_ledger::LostLedger;
use super::results::Results;
use crate::config::{self, Draft};
use crate::control::unreadable_ledger;
use crate::ledger::repair::{Redated, carried_out, clock_jumped, in_words, redated};
use crate::ledger::time::{day, wall};
use crate::ledger::{Accepted, Book, FILE, Ledger, News, Notice, OpenError, Record, Repair, salvaged};
use crate::os::read_error;
use crate::policy::promise::Seconds;
use crate::reason::pasted::option_for;
use crate::reason::{Reason, counted};

/// The number of records shown one by one.
const SHOWN_MAX: usize = 50;

/// The plan.
struct RepairPlan {
    /// The time, which the operator confirms.
    now: Seconds,
    /// The possible losses.
    losses: Vec<String>,
    /// Impossible dates.
    redated: Vec<Redated>,
    /// The last date in the book, if the clock is far beyond it.
    jumped: Option<Seconds>,
    /// The readable promises.
    promises: usize,
}

impl RepairPlan {
    fn of(book: &Book, notices: &[Notice], now: Seconds) -> Self {
        let losses = notices.iter().filter(|n| n.is_loss()).map(ToString::to_string).collect();
        let redated = redated(book, now);
        Self { now, losses, redated, jumped: clock_jumped(book, now), promises: book.promises().len() }
    }

    fn needs_yes(&self) -> bool {
        !self.redated.is_empty() || self.jumped.is_some()
    }

    fn is_empty(&self) -> bool {
        self.losses.is_empty() && !self.needs_yes()
    }

    /// Returns the description for the ledger. It has the dates only if they are confirmed.
    fn what(&self, with_dates: bool) -> Vec<String> {
        let mut what = self.losses.clone();
        if !with_dates {
            return what;
        }
        if !self.redated.is_empty() {
            what.push(format!("{} records had impossible dates", self.redated.len()));
        }
        what.extend(self.jumped.map(|last| format!("the clock jumped ahead from {}", day(last))));
        what
    }

    fn print(&self, results: &mut Results) {
        for loss in &self.losses {
            results.say(format!("LOST   {loss}"));
        }
        if !self.losses.is_empty() {
            results.say(format!(
                "       kept: {} of pins; the damaged part may have had others",
                counted(self.promises, "set")
            ));
        }
        for Redated { before, after } in self.redated.iter().take(SHOWN_MAX) {
            results.say(format!("DATE   {}", in_words(before)));
            results.say(format!("       becomes {}", in_words(after)));
        }
        if let more @ 1.. = self.redated.len().saturating_sub(SHOWN_MAX) {
            results.say(format!("       and {more} more"));
        }
        if let Some(last) = self.jumped {
            results.say(format!("CLOCK  the last date is {}, and the clock says {}", day(last), day(self.now)));
            results.say("       becomes the new last date, if the clock is right");
        }
    }
}

/// Prints the plan, and carries out the confirmed part: the loss, the dates, or both.
pub fn repair(path: &Path, accept_loss: Option<&str>, yes: bool, as_json: bool) -> ExitCode {
    let mut results = Results::new(as_json);
    let ok = try_repair(path, accept_loss, yes, &mut results);
    results.end(ok)
}

fn try_repair(path: &Path, accept_loss: Option<&str>, yes: bool, results: &mut Results) -> bool {
    let draft = match config::read(path) {
        Ok(draft) => draft,
        Err(error) => return results.refuse(&read_error::reason(path, &error)),
    };
    let Some(folder) = draft.state() else {
        return results.fail_with_hint(&format!("{}: no ledger to repair", path.display()), &"set state.directory");
    };
    let file = folder.join(FILE);
    let (book, notices) = match crate::ledger::look(&folder) {
        Ok(found) => found,
        Err(error) => return fail_for(results, &folder, &error),
    };
    let plan = RepairPlan::of(&book, &notices, wall());
    results.set("file", file.display().to_string());
    if plan.is_empty() {
        results.say(format!("{}: nothing to repair, {}", file.display(), counted(plan.promises, "pin set")));
        return true;
    }
    results.say(format!("{}: repair plan of {}:", file.display(), day(plan.now)));
    plan.print(results);
    let today = day(plan.now);
    if let Some(given) = accept_loss.filter(|given| *given != today) {
        let reason = Reason::new(format!("--accept-loss is {given}, should be today's date: nothing is changed"));
        return results.refuse(&reason.hints(confirmation(&draft, &plan)));
    }
    // A file with a loss cannot be rewritten before the loss is accepted, so the dates wait for
    // that.
    if !plan.losses.is_empty() && accept_loss.is_none() || plan.losses.is_empty() && !yes {
        return results.refuse(&Reason::new("nothing is changed").hints(confirmation(&draft, &plan)));
    }
    let with_dates = yes && plan.needs_yes();
    if !carry_out(&draft, &folder, &plan, with_dates, results) {
        return false;
    }
    if plan.needs_yes() && !with_dates {
        results.say("the dates are unchanged; pintle sends no pins while they are impossible");
        for hint in confirmation(&draft, &RepairPlan { losses: Vec::new(), ..plan }) {
            results.say(format!("  hint: {hint}"));
        }
    }
    true
}

/// The command that confirms a plan. If it has two parts, also the command for the loss alone.
fn confirmation(draft: &Draft, plan: &RepairPlan) -> Vec<String> {
    let loss = if plan.losses.is_empty() { String::new() } else { format!(" --accept-loss {}", day(plan.now)) };
    let command = format!("pintle ledger repair{}{loss}", option_for(draft.path()));
    match (plan.losses.is_empty(), plan.needs_yes()) {
        (_, false) => vec![format!("to repair it: {command}")],
        (true, true) => vec![format!("to repair it: check that this machine's clock is right, then {command} --yes")],
        (false, true) => vec![
            format!("to accept the loss only: {command}"),
            format!("to repair the dates, too: check that this machine's clock is right, then {command} --yes"),
        ],
    }
}

fn carry_out(draft: &Draft, folder: &Path, plan: &RepairPlan, with_dates: bool, results: &mut Results) -> bool {
    let salvaged = match salvaged(folder) {
        Ok(salvaged) => salvaged,
        Err(error) => return fail_for(results, folder, &error),
    };
    // In the place of another ledger's file, the copies of served pairs know the own promises.
    let known = LostLedger::of_replaced(draft).map(|lost| lost.book()).unwrap_or_default();
    let mut ledger = match Ledger::mend(folder, known, plan.now) {
        Ok((ledger, _)) => ledger,
        Err(OpenError::Locked) => {
            return results.fail_with_hint(
                &"nothing is changed: a process of pintle has the ledger",
                &"it knows its promises, and rewrites a damaged file itself; for impossible dates, stop it first \
                  (`systemctl stop pintle`)",
            );
        }
        Err(OpenError::Io(error)) => return fail_for(results, folder, &error),
        Err(error) => return results.fail(&error),
    };
    // The date of a repair confirms the clock. Without that, it is the last date in the book.
    let at = plan.jumped.filter(|_| !with_dates).unwrap_or(plan.now);
    let as_planned = |book: &Book| if with_dates { carried_out(book, plan.now, None) } else { book.clone() };
    let mut book = as_planned(ledger.book());
    // A damaged line or an old copy may have brought back any promise. If the pair that was served last breaks one, it did
    // so before, and its clients lose nothing by the excuse.
    let all = if plan.losses.is_empty() { Vec::new() } else { book.records().collect() };
    let doubtful = News::of(&as_planned(&salvaged).records().collect::<Vec<_>>());
    let excuses = draft.excuses(&News::of(&all), |promise| !doubtful.has(promise), &book, at);
    for Accepted { site, pin, until, sets, .. } in excuses.records.iter().filter(|excuse| !excuse.sets.is_empty()) {
        results.say(format!(
            "SERVED {site}: {pin} was served last, is not in {} of these, and serves on; accepted until {until}",
            counted(sets.len(), "set")
        ));
    }
    book.apply(Record::Repair(Repair { what: plan.what(with_dates), at }));
    excuses.records.into_iter().for_each(|excuse| _ = book.apply(Record::Accepted(excuse)));
    if let Err(error) = ledger.replace(book) {
        return fail_for(results, folder, &error);
    }
    results.say("done");
    true
}

/// The failure, with the file of the ledger that it is about.
fn fail_for(results: &mut Results, folder: &Path, error: &std::io::Error) -> bool {
    results.refuse(&unreadable_ledger(folder, error))
}
