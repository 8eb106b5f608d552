//! `pintle ledger`: the promises, and those of other nodes.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::first_promises::FirstPromises;
use super::forecast::{BrokenHere, BurntHere, Forecast, forecast};
use super::lost_ledger::LostLedger;
use super::{KnownPromises, fail_with_hint, glance_at_book, read, refuse, warn};
use crate::config::{Draft, LAST_GOOD, LastGood, UnknownPair};
use crate::control::client::{ClientError, ask};
use crate::control::served::Objection;
use crate::control::{NearbyLedgers, remedies, unreadable_ledger};
use crate::ledger::time::{rfc3339, timestamp, wall};
use crate::ledger::{Accepted, Book, Burnt, Ledger, News, OpenError, Record, Repair, is_unused, repair};
use crate::os::read_error;
use crate::os::words::words;
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::pasted::option_for;
use crate::reason::{Reason, shell_word};

/// Bytes of records per request to the running process, which needs twice as much memory.
const BODY_MAX: usize = 32 << 20;
/// Columns of the timeline.
const TIMELINE: usize = 48;

/// Prints all promises, as a table and as a timeline.
pub fn show(path: &Path, as_json: bool) -> ExitCode {
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    let KnownPromises { book, now, damage, .. } = match glance_at_book(&draft) {
        Ok(known) => known,
        Err(reason) => return refuse(&reason),
    };
    if let Some(damage) = &damage {
        warn(damage);
    }
    let mut promises: Vec<&Promise> = book.promises().iter().collect();
    promises.sort_by_key(|p| (&p.site, p.first_sent, p.last_sent));
    if as_json {
        println!(
            "{:#}",
            json!({
                "now": rfc3339(now),
                "promises": promises.iter().map(|p| promise_json(p, now)).collect::<Vec<_>>(),
                "accepted_lockouts": book.lockouts().iter().map(|a| lockout_json(a, &book, now)).collect::<Vec<_>>(),
                "repairs": book.repairs().iter().map(|r| json!({ "at": rfc3339(r.at), "what": r.what })).collect::<Vec<_>>(),
                "burnt_keys": book.burnt_keys().map(burnt_json).collect::<Vec<_>>(),
                "damage": damage.map(|damage| damage.line()),
            })
        );
        return ExitCode::SUCCESS;
    }
    let Some(state) = draft.state() else {
        return fail_with_hint(
            &format!("{}: no ledger", path.display()),
            &"set state.directory; without it, promises are forgotten when pintle stops",
        );
    };
    println!("{}", state.join(crate::ledger::FILE).display());
    if promises.is_empty() {
        println!("nothing was promised yet");
    } else {
        print_table(&promises, now);
        print_timeline(&promises, now);
    }
    print_accepted(&book, now);
    ExitCode::SUCCESS
}

fn lockout_json(accepted: &Accepted, book: &Book, now: Seconds) -> Value {
    json!({
        "site": accepted.site, "pin": accepted.pin.to_string(), "sets": accepted.sets.len(), "until": accepted.until,
        "at": rfc3339(accepted.at), "over": accepted.is_over(now) || book.is_replaced(accepted),
    })
}

fn burnt_json(burnt: &Burnt) -> Value {
    json!({ "site": burnt.site, "pin": burnt.pin.to_string(), "at": rfc3339(burnt.at) })
}

/// Prints the lockouts that the operator accepted, and other decisions.
fn print_accepted(book: &Book, now: Seconds) {
    for accepted in book.lockouts() {
        let Accepted { site, pin, sets, until, at, .. } = accepted;
        let over = if accepted.is_over(now) || book.is_replaced(accepted) { " (over)" } else { "" };
        println!(
            "\nLOCKOUT ACCEPTED  {} for {site} until {until}{over}: {pin} is served, and is not in {} of the sets",
            minute(*at),
            sets.len()
        );
    }
    for Repair { what, at } in book.repairs() {
        println!("\nREPAIRED          {}: {}", minute(*at), what.join("; "));
    }
    for Burnt { site, pin, at } in book.burnt_keys() {
        println!("\nBURNT             {} for {site}: {pin} is compromised, and never serves again", minute(*at));
    }
}

fn promise_json(promise: &Promise, now: Seconds) -> Value {
    let mut value = json!({
        "site": promise.site,
        "hosts": promise.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "pins": promise.pins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "max_age": promise.max_age,
        "include_subdomains": promise.include_subdomains,
        "mode": word(promise),
        "first_sent": rfc3339(promise.first_sent),
        "last_sent": rfc3339(promise.last_sent),
        "honoured_until": rfc3339(promise.honoured_until()),
        "alive": promise.is_alive(now),
    });
    if let PromiseChannel::Export { form, id, leaf_only } = &promise.channel {
        value["export"] = json!({ "form": form, "id": id, "leaf_only": leaf_only });
    }
    value
}

/// The way in which a promise was made, in one word.
fn word(promise: &Promise) -> &str {
    match &promise.channel {
        PromiseChannel::Header(Mode::Enforce) => "enforce",
        PromiseChannel::Header(Mode::ReportOnly) => "report-only",
        PromiseChannel::Header(Mode::Withdraw) => "withdraw",
        PromiseChannel::Assumed => "assumed",
        PromiseChannel::Export { .. } => "export",
    }
}

fn minute(seconds: Seconds) -> String {
    timestamp(seconds).strftime("%Y-%m-%d %H:%M").to_string()
}

/// The state of a promise, in one word.
fn state(promise: &Promise, now: Seconds) -> &'static str {
    match &promise.channel {
        PromiseChannel::Header(Mode::ReportOnly | Mode::Withdraw) => "binds nobody",
        _ if promise.is_alive(now) => "held",
        _ => "over",
    }
}

fn print_table(promises: &[&Promise], now: Seconds) {
    println!(
        "\n{:3}  {:12}  {:11}  {:16}  {:16}  {:16}  site",
        "set", "state", "mode", "first sent (UTC)", "sent until", "held until"
    );
    for (at, promise) in promises.iter().enumerate() {
        let below = if promise.include_subdomains { ", subdomains too" } else { "" };
        let hosts: Vec<String> = promise.hosts.iter().map(ToString::to_string).collect();
        let export = match &promise.channel {
            PromiseChannel::Export { form, id, .. } => format!(" ({form}, {id})"),
            PromiseChannel::Header(_) | PromiseChannel::Assumed => String::new(),
        };
        println!(
            "{:3}  {:12}  {:11}  {:16}  {:16}  {:16}  {}{below}{export}",
            at + 1,
            state(promise, now),
            word(promise),
            minute(promise.first_sent),
            minute(promise.last_sent),
            minute(promise.honoured_until()),
            hosts.join(", "),
        );
        for pin in &promise.pins {
            println!("     {pin}");
        }
    }
}

/// One line per set: `=` while it was sent, `-` while clients hold it after that, `|` for now.
fn print_timeline(promises: &[&Promise], now: Seconds) {
    let begin = promises.iter().map(|p| p.first_sent).min().unwrap_or(now).min(now);
    let end = promises.iter().map(|p| p.honoured_until()).max().unwrap_or(now).max(now).max(begin + 1);
    let column = |at: Seconds| {
        let (passed, all) = (at.clamp(begin, end).abs_diff(begin), end.abs_diff(begin));
        let last = TIMELINE as u128 - 1;
        // Rounded to the nearest column.
        let column = (2 * u128::from(passed) * last + u128::from(all)) / (2 * u128::from(all));
        usize::try_from(column.min(last)).expect("a column of the line")
    };
    println!("\n     {:<w$}{:>w$}", minute(begin), minute(end), w = TIMELINE / 2);
    for (at, promise) in promises.iter().enumerate() {
        let mut line = vec![' '; TIMELINE];
        line[column(promise.first_sent)..=column(promise.honoured_until())].fill('-');
        line[column(promise.first_sent)..=column(promise.last_sent)].fill('=');
        line[column(now)] = '|';
        println!("{:3}  {}  {}", at + 1, line.into_iter().collect::<String>(), promise.site);
    }
    println!("     = sent   - held by clients that saw it last   | now");
}

/// The arguments of a merge.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The other nodes' files.
    pub files: Vec<std::path::PathBuf>,
    /// `true` to print the effect only.
    pub dry_run: bool,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Adds other nodes' promises to this node's ledger, after printing their effect on the chains in
/// use. It adds them even if a chain breaks them: the promises exist, and ignoring them would help
/// nobody.
pub fn merge(path: &Path, request: &Merge) -> ExitCode {
    let Merge { files, dry_run, as_json } = request;
    let draft = match read(path) {
        Ok(draft) => draft,
        Err(reason) => return refuse(&reason),
    };
    if draft.state().is_none() {
        return fail_with_hint(&format!("{}: no ledger to merge into", path.display()), &"set state.directory");
    }
    let records = match read_others(files) {
        Ok(records) => records,
        Err(reason) => return refuse(&reason),
    };
    let Forecast { news, broken, burnt, unknown } = match forecast(&draft, &records) {
        Ok(forecast) => forecast,
        Err(reason) => return refuse(&reason),
    };
    broken.iter().map(BrokenHere::reason).chain(burnt.iter().map(BurntHere::reason)).for_each(|reason| warn(&reason));
    if let Some(reason) = unknown.first().map(|pair| refused_by_start(pair, path)) {
        return refuse(&reason);
    }
    let breaks: Vec<Value> = broken.iter().map(BrokenHere::json).collect();
    let burnt: Vec<Value> = burnt.iter().map(BurntHere::json).collect();
    let answer =
        |news: usize| json!({ "ok": true, "news": news, "breaks": breaks, "burnt": burnt, "dry_run": dry_run });
    if *dry_run {
        match as_json {
            true => println!("{}", answer(news)),
            false => println!("{news} records would be new here"),
        }
        return ExitCode::SUCCESS;
    }
    // Without a running process, the ledger itself notes that the pair served last breaks some of
    // the promises.
    let excuses = |news: &[Record], merged: &Book| {
        let news = News::of(news);
        let excuses = draft.excuses(&news, |promise| !news.has(promise), merged, wall());
        excuses.records.into_iter().map(Record::Accepted).collect()
    };
    match add_with(&draft, records, excuses) {
        Ok(news) => {
            match as_json {
                true => println!("{}", answer(news)),
                false => println!("{news} records are new here"),
            }
            ExitCode::SUCCESS
        }
        Err(reason) => refuse(&reason),
    }
}

/// The reason against a merge after which a start would refuse a pair that may be the one in use.
fn refused_by_start(pair: &UnknownPair, config: &Path) -> Reason {
    let UnknownPair { site, path, pin, is_burnt } = pair;
    let (path, option) = (path.display(), option_for(config));
    let (why, other) = match is_burnt {
        true => ("is burnt by these records", "another key"),
        false => ("breaks these promises", "a key of theirs"),
    };
    Reason::new(format!(
        "nothing is merged: {site}: {path} ({pin}) {why}, and has no copy in state.directory: the next start would refuse it"
    ))
    .hint(format!("if this chain was served last, start pintle first, then merge: pintle run{option}"))
    .hint(format!(
        "if not, install a chain with {other} first: pintle install --site {} CHAIN KEY{option}",
        shell_word(site)
    ))
}

/// The records of other nodes' files that concern all nodes.
pub(super) fn read_others(files: &[std::path::PathBuf]) -> Result<Vec<Record>, Reason> {
    let (mut records, now) = (Vec::new(), wall());
    for file in files {
        let contents = fs::read(file).map_err(|error| read_error::reason(file, &error))?;
        let (book, notices) = crate::ledger::read_book(&contents);
        for notice in &notices {
            warn(&format!("{}: {notice}", file.display()).into());
        }
        if book.is_empty() && !contents.is_empty() {
            let hint = format!("the file is {} in another node's state.directory", crate::ledger::FILE);
            return Err(Reason::new(format!("{}: not a ledger", file.display())).hint(hint));
        }
        let news: Vec<Record> = book.records().filter(Record::travels).collect();
        repair::fit_to_merge(&news, now).map_err(|why| why.within(&file.display()))?;
        records.extend(news);
    }
    Ok(records)
}

/// Adds records to a configuration's ledger, through the process that holds it, if any. Returns the
/// number of new ones.
pub(super) fn add(draft: &Draft, records: Vec<Record>) -> Result<usize, Reason> {
    add_with(draft, records, |_, _| Vec::new())
}

/// The same. `more` returns records to write with the new ones, for the resulting book.
fn add_with(
    draft: &Draft,
    records: Vec<Record>,
    more: impl FnOnce(&[Record], &Book) -> Vec<Record>,
) -> Result<usize, Reason> {
    match add_to_file_with(draft, records.clone(), more)? {
        Some(news) => Ok(add_to_other(draft, &records)?.max(news)),
        None => add_remotely(draft, &records),
    }
}

/// The same, unless a process holds the ledger: `None` then.
pub(super) fn add_to_file(draft: &Draft, records: Vec<Record>) -> Result<Option<usize>, Reason> {
    add_to_file_with(draft, records, |_, _| Vec::new())
}

fn add_to_file_with(
    draft: &Draft,
    records: Vec<Record>,
    more: impl FnOnce(&[Record], &Book) -> Vec<Record>,
) -> Result<Option<usize>, Reason> {
    let Some(folder) = draft.state() else { return Err("state.directory is not set".into()) };
    let Some(opened) = open_here(draft, &folder)? else { return Ok(None) };
    // Whoever starts pintle next looks beside a ledger that was in use.
    let mut ledger = if is_unused(&folder) { with_found(draft, opened) } else { opened };
    let mut other = Book::default();
    for record in records {
        other.apply(record);
    }
    let mut news = ledger.book().news(&other);
    let count = news.len();
    let mut merged = ledger.book().clone();
    news.iter().for_each(|record| _ = merged.apply(record.clone()));
    let more = more(&news, &merged);
    note_in_copies(&folder, &news);
    news.extend(more);
    ledger.record(news).map_err(|e| format!("{}: {}", folder.join(crate::ledger::FILE).display(), words(&e)))?;
    Ok(Some(count))
}

/// Opens a configuration's ledger for a command, unless a process holds it: `None` then.
pub(super) fn open_here(draft: &Draft, folder: &Path) -> Result<Option<Ledger>, Reason> {
    super::drop_privileges::make_state(draft)?;
    let opened = match Ledger::open(folder, wall()) {
        Err(error @ OpenError::Damaged(_)) => match LostLedger::of_replaced(draft) {
            Some(lost) => {
                warn(&lost.reason());
                Ledger::mend(folder, lost.book(), wall())
            }
            None => Err(error),
        },
        opened => opened,
    };
    match opened {
        Ok((ledger, _)) => Ok(Some(ledger)),
        Err(OpenError::Locked) => Ok(None),
        Err(error @ OpenError::Damaged(_)) => {
            let file = folder.join(crate::ledger::FILE);
            Err(Reason::new(format!("{}: {error}", file.display())).hints(remedies(draft.path(), folder, &error)))
        }
        Err(OpenError::Io(error)) => Err(unreadable_ledger(folder, &error)),
    }
}

/// Notes promises in the copies of pairs, too: if the ledger is lost before the next start, nothing else shows them.
fn note_in_copies(folder: &Path, news: &[Record]) {
    let promises = news.iter().filter_map(|record| match record {
        Record::Promise(promise) => Some(promise),
        _ => None,
    });
    if let Err(error) = LastGood::of(folder).note_promises(promises) {
        let copies = folder.join(LAST_GOOD);
        let what = format!("{}: cannot note the promises in the copies: {}", copies.display(), words(&error));
        warn(&what.into());
    }
}

/// Begins a new ledger with the promises in other folders, or with those that may be lost.
fn with_found(draft: &Draft, ledger: Ledger) -> Ledger {
    let first = FirstPromises::of(draft, &NearbyLedgers::look(draft), ledger.book());
    first.reasons().iter().for_each(warn);
    first.begin(draft, ledger)
}

/// Adds the records to the book of a process that answers although it does not hold this ledger: it could
/// not open the file, or serves with another `state.directory`. Returns the number of those that were new
/// to it.
fn add_to_other(draft: &Draft, records: &[Record]) -> Result<usize, Reason> {
    let Some(address) = draft.admin() else { return Ok(0) };
    match ask(&address, Method::GET, "/ready", String::new()) {
        // If it has no token for this configuration, it is another pintle, or another program.
        Err(ClientError::NotRunning(_) | ClientError::Elsewhere(_)) => Ok(0),
        _ => add_remotely(draft, records).map_err(|reason| {
            reason.note("the ledger of state.directory has the records: once that is mended, try again")
        }),
    }
}

fn add_remotely(draft: &Draft, records: &[Record]) -> Result<usize, Reason> {
    let Some(address) = draft.admin() else {
        let reason = Reason::new("another process has the ledger, and the configuration has no admin socket");
        return Err(reason.hint("set admin.listen as for that process"));
    };
    let mut news = 0;
    for body in bodies(records) {
        let (status, answer) = ask(&address, Method::POST, "/ledger", body).map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        match answer["news"].as_u64().map(usize::try_from) {
            Some(Ok(more)) if status.is_success() => news += more,
            _ => {
                let refused = serde_json::from_value::<Objection>(answer).unwrap_or_default();
                return Err(refused.reason("the running process refused"));
            }
        }
    }
    Ok(news)
}

/// Records in as many bodies as needed; at least one.
fn bodies(records: &[Record]) -> Vec<String> {
    let mut bodies = vec![String::new()];
    for line in records.iter().map(Record::line) {
        match bodies.last_mut() {
            Some(body) if body.is_empty() || body.len() + line.len() <= BODY_MAX => body.push_str(&line),
            _ => bodies.push(line),
        }
    }
    bodies
}
