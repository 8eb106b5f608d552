//! `pintle key`: the keys behind the pins, by role.
//!
//! Both commands read the configuration's outline only: the new key may be what it lacks.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::key_steps::print_steps;
use super::live_chain::{book, live_chain};
use super::{Output, fail, fail_with_hint, no_such_site, pin, refuse, warn};
use crate::config::new_key::{KeyFailure, KeyPath, KeyWithCsr, make};
use crate::config::{Outline, SiteOutline, own_key};
use crate::export::Role;
use crate::host::{HostPattern, both_forms, file_stem};
use crate::keys::key_file::{PublicKey, public_key};
use crate::keys::pin::Pin;
use crate::ledger::Book;
use crate::ledger::time::{timestamp, wall};
use crate::policy::promise::{Promises, others};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path};
use crate::tls::certificate::Chain;

pub use crate::config::new_key::Algorithm;

/// The arguments.
#[derive(Debug, Clone)]
pub struct Options {
    /// Any host of the site.
    pub host: String,
    /// Its role.
    pub role: Role,
    /// Its kind.
    pub algorithm: Algorithm,
    /// The folder for the files. Default: the folder of the site's certificate.
    pub folder: Option<PathBuf>,
    /// `true` for JSON.
    pub as_json: bool,
}

/// Creates a key and its CSR, and prints the next steps.
pub fn new(path: &Path, options: &Options, output: &Output) -> ExitCode {
    let Options { host, role, algorithm, folder, as_json } = options;
    let outline = match read_outline(path, output) {
        Ok(outline) => outline,
        Err(code) => return code,
    };
    let Some(site) = outline.site(host) else { return refuse(&no_such_site(host, all_hosts(&outline))) };
    if site.is_managed() && *role != Role::Spare {
        return refuse(&made_by_itself(&site.label(), *role));
    }
    let folder = match folder {
        // This path is the shell's; all later ones are relative to the configuration's folder.
        Some(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string(),
        None => KeyPath::of(site),
    };
    let place = KeyPath::free(&outline, folder, &format!("{}-{}", file_stem(&site.label()), role.name()));
    let (key_path, csr_path) = (outline.path(&place.name("key")), outline.path(&place.name("csr")));
    match make(&outline, site, *algorithm, &place) {
        Ok(KeyWithCsr { public: made, .. }) => {
            let (key, csr) = (key_path.display(), csr_path.display());
            if *as_json {
                println!("{:#}", made_json(site, *role, &made, [key.to_string(), csr.to_string()]));
            } else {
                println!("made the {} key of {}", role.name(), hosts(site));
                println!("  key  {key}  ({}, readable only by its owner)", made.algorithm);
                println!("  CSR  {csr}");
                println!("  pin  {}\n", made.pin);
                print_steps(path, &outline, site, *role, &place);
            }
            if *algorithm == Algorithm::Ed25519 {
                warn(&"neither browsers nor public CAs accept Ed25519 certificates".into());
            }
            ExitCode::SUCCESS
        }
        Err(KeyFailure::Exists(there)) => fail_with_hint(
            &format!("{}: exists already, and pintle never overwrites a key", there.display()),
            &"put the new one elsewhere with --out FOLDER, or give the old one another name",
        ),
        Err(KeyFailure::NoFolder(folder)) => fail_with_hint(
            &format!("{}: no such folder", folder.display()),
            &format!("mkdir -p {}, or name another one with --out", shell_path(&folder)),
        ),
        Err(KeyFailure::Other(why)) => fail(&why),
    }
}

/// Why pintle makes no live or next key by hand for a site whose certificates it obtains.
fn made_by_itself(site: &str, role: Role) -> Reason {
    let what =
        format!("{site}: pintle obtains the certificate of this site, and makes its {} key by itself", role.name());
    Reason::new(what)
        .hint(format!(
            "to change over to the next key, which exists already: {}",
            pintle(format_args!("key rotate --site {site}"))
        ))
        .hint(format!("to list the keys: {}", pintle(format_args!("key list --site {site}"))))
        .hint(format!(
            "for one more backup of the pins: {}",
            pintle(format_args!("key new --role spare --site {site}"))
        ))
}

fn made_json(site: &SiteOutline, role: Role, made: &PublicKey, [key, csr]: [String; 2]) -> Value {
    json!({
        "site": site.label(), "hosts": site.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "role": role.name(), "algorithm": made.algorithm.to_string(),
        "pin": made.pin.to_string(), "hex": made.pin.to_hex(), "key": key, "csr": csr,
    })
}

fn hosts(site: &SiteOutline) -> String {
    site.hosts.iter().map(|host| both_forms(&host.to_string())).collect::<Vec<_>>().join(", ")
}

fn all_hosts(outline: &Outline) -> impl Iterator<Item = String> {
    outline.sites.iter().flat_map(|s| s.hosts.iter().map(ToString::to_string))
}

/// One key of a site, or why it cannot be shown.
struct Row {
    role: Role,
    file: String,
    /// The private key's file, if the configuration names it.
    key_file: Option<String>,
    /// The key in the file, if the guard refuses it and another one is served.
    refused: Option<Pin>,
    found: Result<(PublicKey, Option<Timestamp>), String>,
    /// `true` if pintle makes the file at its first start, and has not yet.
    is_awaited: bool,
    promised_since: Option<Timestamp>,
    /// The time from which a certificate for it breaks no promise; `None` if it breaks none now.
    usable_from: Option<Timestamp>,
}

/// Lists the keys of all sites, or of one. Exit code 1 if a key cannot be read.
pub fn list(path: &Path, host: Option<&str>, as_json: bool, output: &Output) -> ExitCode {
    let outline = match read_outline(path, output) {
        Ok(outline) => outline,
        Err(code) => return code,
    };
    let sites: Vec<&SiteOutline> = match host {
        None => outline.sites.iter().collect(),
        Some(host) => match outline.site(host) {
            Some(site) => vec![site],
            None => return refuse(&no_such_site(host, all_hosts(&outline))),
        },
    };
    let book = match book(path, &outline) {
        Ok(book) => book,
        Err(error) => return fail(&error),
    };
    let known: Vec<&[HostPattern]> = outline.sites.iter().map(|site| site.hosts.as_slice()).collect();
    let except = others(&known);
    let alive = Promises::alive(book.promises(), wall());
    let mut tables: Vec<(&SiteOutline, Vec<Row>)> = Vec::new();
    for site in sites {
        let at = outline.sites.iter().position(|other| std::ptr::eq(other, site));
        let except = at.and_then(|at| except.get(at)).map_or(&[][..], Vec::as_slice);
        tables.push((site, rows(&outline, site, &book, (&alive, except))));
    }
    let sites = tables;
    if as_json {
        let one = |(site, rows): &(&SiteOutline, Vec<Row>)| {
            json!({
                "site": site.label(), "hosts": site.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "keys": rows.iter().map(row_json).collect::<Vec<_>>(),
            })
        };
        println!("{:#}", sites.iter().map(one).collect::<Value>());
    } else {
        for (site, rows) in &sites {
            print_table(site, rows);
        }
    }
    let mut code = ExitCode::SUCCESS;
    for row in sites.iter().flat_map(|(_, rows)| rows) {
        if let (Err(why), false) = (&row.found, row.is_awaited) {
            code = fail(&format!("{}: {why}", row.file));
        }
    }
    code
}

fn rows(
    outline: &Outline,
    site: &SiteOutline,
    book: &Book,
    (alive, except): (&Promises<'_>, &[HostPattern]),
) -> Vec<Row> {
    let row = |role, text: &String, key: Option<&String>, is_own: bool| {
        let file = outline.path(text);
        let served = (role == Role::Live).then(|| live_chain(outline, site, text, (alive, except))).flatten();
        let refused = served.as_ref().and_then(|served| served.refused);
        // Before the first certificate, the key is there alone.
        let key_alone = key.filter(|_| is_own && !file.exists()).map(|key| outline.path(key));
        let place = key_alone.as_deref().unwrap_or(&file);
        let is_awaited = is_own && own_key::read(place) == Ok(None);
        let read = served.map_or_else(|| pin::read(place).map_err(unreadable), |served| Ok(served.contents));
        let found = read.and_then(|contents| {
            let key = public_key(&contents).map_err(|e| e.to_string())?;
            // A backup may be a certificate, too, but only the live one's end matters.
            let chain = (role == Role::Live).then(|| Chain::from_pem(&contents).ok()).flatten();
            Ok((key, chain.map(|c| c.leaf.not_after)))
        });
        let promised_since = found.as_ref().ok().and_then(|(key, _)| promised_since(book, site, key.pin));
        let key_file = key.map(|key| outline.path(key).display().to_string());
        let key = found.as_ref().ok().map(|(key, _): &(PublicKey, _)| key.pin);
        let usable_from = key.and_then(|pin| alive.safe_from(&site.hosts, except, pin));
        let usable_from = usable_from.map(timestamp);
        let file = file.display().to_string();
        Row { role, file, key_file, refused, found, is_awaited, promised_since, usable_from }
    };
    let is_own = |chain| !site.given_chains.contains(chain);
    let live = site.certificates.iter().map(|(chain, key)| row(Role::Live, chain, key.as_ref(), is_own(chain)));
    let live: Vec<Row> = live.collect();
    let backup = |(index, file)| row(Role::Spare, file, None, index < site.own_next);
    let backups: Vec<Row> = site.backups.iter().enumerate().map(backup).collect();
    let algorithm = |row: &Row| row.found.as_ref().ok().map(|(key, _)| key.algorithm);
    let roles = Role::of_backups(live.iter().filter_map(algorithm), backups.iter().map(algorithm));
    let backups = backups.into_iter().zip(roles).map(|(row, role)| Row { role, ..row });
    live.into_iter().chain(backups).collect()
}

fn unreadable(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    }
}

/// The time since which a key has been promised.
fn promised_since(book: &Book, site: &SiteOutline, pin: Pin) -> Option<Timestamp> {
    book.promised_since(&site.label(), pin).map(timestamp)
}

fn row_json(row: &Row) -> Value {
    let key = row.found.as_ref().ok();
    json!({
        "role": row.role.name(),
        "pin": key.map(|(key, _)| key.pin.to_string()),
        "hex": key.map(|(key, _)| key.pin.to_hex()),
        "algorithm": key.map(|(key, _)| key.algorithm.to_string()),
        "kind": key.map(|(key, _)| key.kind.to_string()),
        "file": row.file,
        "key": row.key_file,
        "refused_in_file": row.refused.map(|pin| pin.to_string()),
        "promised_since": row.promised_since.map(|t| t.to_string()),
        "usable_from": row.usable_from.map(|t| t.to_string()),
        "not_after": key.and_then(|(_, not_after)| *not_after).map(|t| t.to_string()),
        "error": row.found.as_ref().err().filter(|_| !row.is_awaited),
        "awaited": row.is_awaited,
    })
}

fn print_table(site: &SiteOutline, rows: &[Row]) {
    let day = |time: Option<Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |t| t.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string())
    };
    println!("{}", hosts(site));
    if rows.is_empty() {
        println!("  no keys: the site has neither a certificate nor backups\n");
        return;
    }
    println!(
        "  {:5}  {:44}  {:10}  {:11}  {:16}  {:16}  {:10}  file",
        "role", "pin", "algorithm", "kind", "promised since", "usable from", "until"
    );
    for row in rows {
        let (pin, algorithm, kind, until) = match &row.found {
            Ok((key, not_after)) => {
                (key.pin.to_string(), key.algorithm.to_string(), key.kind.to_string(), day(*not_after))
            }
            Err(_) => ("-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        // In UTC, as all times here, with minutes.
        let minute = |time: Timestamp| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M").to_string();
        let since = row.promised_since.map_or_else(|| "-".to_owned(), minute);
        let whenever = if row.found.is_ok() { "now" } else { "-" };
        let usable = row.usable_from.map_or_else(|| whenever.to_owned(), |from| minute(whole_minute(from)));
        let key = row.key_file.as_ref().map_or_else(String::new, |key| format!(", key {key}"));
        let note = if row.is_awaited { " (pintle makes it at its first start)" } else { "" };
        println!(
            "  {:5}  {pin:44}  {algorithm:10}  {kind:11}  {since:16}  {usable:16}  {until:10}  {}{key}{note}",
            row.role.name(),
            row.file
        );
        if let Some(refused) = row.refused {
            println!(
                "         {refused}  is in that file, and refused: pintle serves the live key from its copy in state.directory"
            );
        }
    }
    println!();
}

/// The first minute that begins at or after a time: the guard refuses the key until then.
fn whole_minute(time: Timestamp) -> Timestamp {
    let second = time.as_second().saturating_add(59).div_euclid(60).saturating_mul(60);
    Timestamp::from_second(second).unwrap_or(time)
}

/// The sites and their files. `pintle check` reports other problems.
fn read_outline(path: &Path, output: &Output) -> Result<Outline, ExitCode> {
    let draft = super::read(path).map_err(|reason| refuse(&reason))?;
    draft.outline().ok_or_else(|| {
        for problem in draft.problems().sorted() {
            eprintln!("{}", draft.problems().placed(problem).render(output.color));
        }
        fail(&format!("{}: cannot be read", path.display()))
    })
}
