//! The commands. Only this module prints.

#[macro_use]
pub(crate) mod print;

pub mod acme;
mod attempts;
mod begun_ledger;
pub mod cache;
pub mod check;
pub mod decline;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod export;
mod first_ledger;
mod first_promises;
mod forecast;
pub mod health;
pub mod hook;
pub mod init;
pub mod install;
pub mod key;
mod key_steps;
pub mod keys;
pub mod ledger;
mod latency;
mod live;
mod live_chain;
mod lost_ledger;
pub mod pages;
pub mod page;
pub mod password;
pub mod pin;
mod reach;
pub mod remote;
mod running;
pub mod repair;
pub mod revoke;
pub mod run;
mod drop_privileges;
mod results;
mod sheet;
pub mod status;
pub mod verify;
pub mod versions;
pub mod watch;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use tracing::Level;

use self::first_promises::FirstPromises;
use self::lost_ledger::{LostLedger, refusal};
use crate::config::{
    self, AdminAddress, CheckContext, Config, DaysInUse, Draft, HandedCopies, LastGood, MayLack, NamedKeys, Problems,
    StandIn,
};
use crate::control::admin::PromisesInForce as Answer;
use crate::control::client::{ClientError, ask_for};
use crate::control::{NearbyLedgers, dates_ahead, remedies, unreadable_ledger};
use crate::install::unfinished;
use crate::ledger::time::judged_now;
use crate::ledger::{Book, Notice, OpenError};
use crate::os::read_error;
use crate::policy::promise::Seconds;
use crate::reason::near::did_you_mean;
use crate::reason::{Reason, Severity, counted};
use crate::telemetry::log::LogFormat;
use crate::tls::certificate::Chain;

/// Time limit for the running process's answer about its promises.
const BOOK_PATIENCE: Duration = Duration::from_secs(20);
/// The number of warnings printed at once.
const WARNINGS_MAX: usize = 100;
/// The number of hosts in one message.
const HOSTS_SHOWN: usize = 20;

/// The options for output.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The format of the operator's log.
    pub log_format: LogFormat,
    /// The level of the log.
    pub log_level: Level,
    /// `true` for colours on standard error.
    pub color: bool,
    /// `true` for colours on standard output.
    pub color_of_stdout: bool,
}

/// Prints an error; exit code 1.
pub(crate) fn fail(error: &dyn fmt::Display) -> ExitCode {
    refuse(&Reason::new(error.to_string()))
}

/// Prints an error with a remedy; exit code 1.
pub(crate) fn fail_with_hint(error: &dyn fmt::Display, hint: &dyn fmt::Display) -> ExitCode {
    refuse(&Reason::new(error.to_string()).hint(hint.to_string()))
}

/// Prints an error; exit code 1.
pub(crate) fn refuse(reason: &Reason) -> ExitCode {
    print::reason(reason, Severity::Error);
    ExitCode::from(1)
}

/// Prints a warning.
fn warn(reason: &Reason) {
    print::reason(reason, Severity::Warning);
}

/// The error for a host that no site has.
fn no_such_site(host: &str, hosts: impl Iterator<Item = String>) -> Reason {
    let known: Vec<String> = hosts.collect();
    let reason = Reason::new(format!("--site: no site has the host {host:?}"));
    if known.is_empty() {
        return reason.note("the configuration has no site");
    }
    let near = did_you_mean(host, known.iter().map(String::as_str));
    let named = known.iter().take(HOSTS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = match known.len().saturating_sub(HOSTS_SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    reason.note(format!("expected one of: {named}{more}")).hints(near)
}

/// A configuration that can be served, and its draft.
struct LoadedConfig {
    draft: Draft,
    config: Config,
    problems: Problems,
}

/// The leniency of a judgement: what replaces unfit pairs, and which sites may be without one.
#[derive(Clone)]
struct Like {
    stand_in: StandIn,
    may_lack: MayLack,
}

impl Like {
    /// Only the files on disk count.
    const CHECK: Self = Self { stand_in: StandIn::Unchanged, may_lack: MayLack::None };

    /// As at a start.
    fn start(strict: bool) -> Self {
        Self { stand_in: StandIn::Always, may_lack: if strict { MayLack::None } else { MayLack::All } }
    }
}

/// Reads a configuration.
fn read(path: &Path) -> Result<Draft, Reason> {
    config::read(path).map_err(|error| read_error::reason(path, &error))
}

/// Checks a draft, and prints its problems.
fn judge(
    draft: Draft,
    known: impl FnOnce(&Draft) -> Result<KnownPromises, Reason>,
    like: &Like,
) -> Result<LoadedConfig, ExitCode> {
    let loaded = try_judge(draft, known, like);
    let problems = loaded.as_ref().map_or_else(|unfit| unfit.problems.as_ref(), |loaded| Some(&loaded.problems));
    if let Some(problems) = problems {
        print_problems(problems);
    }
    loaded.map_err(|unfit| refuse(&unfit.reason))
}

/// The reason why a configuration cannot be served: its problems, if these are the reason, and a summary.
struct Unfit {
    problems: Option<Problems>,
    reason: Reason,
}

/// The same, without printing.
fn try_judge(
    draft: Draft,
    known: impl FnOnce(&Draft) -> Result<KnownPromises, Reason>,
    like: &Like,
) -> Result<LoadedConfig, Box<Unfit>> {
    let known = known(&draft).map_err(|reason| Box::new(Unfit { problems: None, reason }))?;
    let (config, problems) = draft.build(&context(&draft, &known, like));
    match config {
        Some(config) => Ok(LoadedConfig { draft, config, problems }),
        None => {
            let reason = count_of_errors(&draft, &problems);
            Err(Box::new(Unfit { problems: Some(problems), reason }))
        }
    }
}

fn count_of_errors(draft: &Draft, problems: &Problems) -> Reason {
    let errors = problems.sorted().iter().filter(|p| p.is_error()).count();
    format!("{}: {}", draft.path().display(), counted(errors, "error")).into()
}

/// The inputs of a start: the promises, and the pairs served last.
fn context<'a>(draft: &Draft, known: &'a KnownPromises, like: &Like) -> CheckContext<'a> {
    let last_good = LastGood::with_handed(draft.state().as_deref(), known.copies.clone());
    let Like { stand_in, may_lack } = like.clone();
    CheckContext {
        last_good,
        stand_in,
        may_lack,
        days_in_use: known.days.clone(),
        pages_in_use: known.pages.clone(),
        named: known.named.as_ref(),
        ..CheckContext::new(&known.book, known.now)
    }
}

/// Prints all errors, and the first warnings if there are very many.
fn print_problems(problems: &Problems) {
    let mut warnings = 0;
    for problem in problems.shown() {
        warnings += usize::from(!problem.is_error());
        if problem.is_error() || warnings <= WARNINGS_MAX {
            print::reason(&problem.reason, problem.severity);
        }
    }
    if let more @ 1.. = warnings.saturating_sub(WARNINGS_MAX) {
        print::note(&format!("and {more} more warnings: `pintle check --json` has them all"));
    }
}

/// The known promises, and the time for judgements.
struct KnownPromises {
    book: Book,
    now: Seconds,
    /// The faults of the ledger's file, with remedies.
    damage: Option<Reason>,
    /// `true` if the running process answered: it knows all promises.
    is_whole: bool,
    /// The days in `accept_lockout_until` that it serves with.
    days: Option<DaysInUse>,
    /// The chains of the pages over TLS of the process that an upgrade replaces.
    pages: Option<Vec<Chain>>,
    /// The keys that its refusals have named; `None` if it does not say.
    named: Option<NamedKeys>,
    /// The pairs that the process which an upgrade replaces hands over.
    copies: HandedCopies,
    /// The promises that a start would begin a new ledger with.
    first: FirstPromises,
}

impl KnownPromises {
    fn of_book(book: Book) -> Self {
        let (now, doubt) = judged_now(book.newest());
        if let Some(doubt) = doubt {
            warn(&doubt.to_string().into());
        }
        Self { is_whole: false, ..Self::whole(book, now) }
    }

    /// The knowledge of the running process.
    fn whole(book: Book, now: Seconds) -> Self {
        Self {
            book,
            now,
            damage: None,
            is_whole: true,
            days: None,
            pages: None,
            named: None,
            copies: HandedCopies::default(),
            first: FirstPromises::default(),
        }
    }

    /// Adds the promises that a start would find in other folders, or assume. `replaced` has those of the ledger that another
    /// one's file has replaced.
    fn with_first(mut self, draft: &Draft, replaced: Option<LostLedger>) -> Self {
        self.first = FirstPromises::of(draft, &NearbyLedgers::look(draft), &self.book).instead_of(replaced);
        let records = self.first.records();
        if !records.is_empty() {
            records.into_iter().for_each(|record| _ = self.book.apply(record));
            (self.now, _) = judged_now(self.book.newest());
        }
        self
    }
}

/// The known promises, for commands that judge: from the file, and from the process that holds it.
///
/// # Errors
///
/// If the file cannot be read, or promises may be lost.
fn look_at_book(draft: &Draft) -> Result<KnownPromises, Reason> {
    let known = glance_at_book(draft)?;
    if known.is_whole {
        return Ok(known);
    }
    let replaced = known.damage.as_ref().and_then(|_| LostLedger::of_replaced(draft));
    if let (Some(damage), None) = (&known.damage, &replaced) {
        return Err(damage.clone());
    }
    let known = KnownPromises { damage: None, ..known }.with_first(draft, replaced);
    refusal(known.first.lost.as_ref(), draft).map_or(Ok(known), Err)
}

/// The same, whatever the state of the file.
fn glance_at_book(draft: &Draft) -> Result<KnownPromises, Reason> {
    // The process writes its file before it answers.
    let asked = draft.admin().and_then(|address| ask_for_book(&address));
    let (mut book, damage) = match draft.state() {
        Some(folder) => look_at(draft.path(), &folder).or_else(|why| match &asked {
            // If the file cannot be read, the process's book is still there.
            Some(_) => Ok(Default::default()),
            None => Err(why),
        })?,
        None => Default::default(),
    };
    if let Some(reason) = dates_ahead(draft.path(), asked.as_ref().map_or(&book, |asked| &asked.book)) {
        warn(&reason);
    }
    let Some(asked) = asked else {
        return Ok(KnownPromises { damage, ..KnownPromises::of_book(book) });
    };
    asked.book.records().for_each(|record| _ = book.apply(record));
    Ok(KnownPromises { book, damage, ..asked })
}

/// Settles an interrupted installation, and judges by the known promises.
fn settle(draft: &Draft, only_tell: bool) {
    let known = || look_at_book(draft).ok().map(|known| (known.book, known.now));
    unfinished::settle(draft, &known, only_tell, &mut |reason| warn(&reason));
}

/// The knowledge of the running process, if it answers.
fn ask_for_book(address: &AdminAddress) -> Option<KnownPromises> {
    match ask_for(address, Method::GET, "/ledger", String::new(), BOOK_PATIENCE) {
        Ok((StatusCode::OK, answer)) => {
            let Answer { now, lines, days, named } = serde_json::from_str(&answer).ok()?;
            let (book, _) = crate::ledger::read_book(lines.concat().as_bytes());
            Some(KnownPromises { days, named, ..KnownPromises::whole(book, now) })
        }
        // An older pintle has no answer to this.
        Ok(_) | Err(ClientError::NotRunning(_)) => None,
        Err(error) => {
            warn(&format!("{error}: judged only by the ledger's file").into());
            None
        }
    }
}

/// The book of a file, and its damage.
type BookAndDamage = (Book, Option<Reason>);

fn look_at(config: &Path, folder: &Path) -> Result<BookAndDamage, Reason> {
    let file = folder.join(crate::ledger::FILE);
    let (book, notices) = crate::ledger::look(folder).map_err(|error| unreadable_ledger(folder, &error))?;
    for notice in notices.iter().filter(|notice| matches!(notice, Notice::Newer { .. } | Notice::NoHead)) {
        warn(&format!("{}: {notice}", file.display()).into());
    }
    // A running process may be writing its last line: a torn line is not damage.
    let damage = notices.iter().any(Notice::is_loss).then(|| {
        let error = OpenError::Damaged(notices);
        Reason::new(format!("{}: {error}", file.display())).hints(remedies(config, folder, &error))
    });
    Ok((book, damage))
}
