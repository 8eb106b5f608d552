//! The keys of the sites over the API: which there are, and new ones.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::admin::{AdminCommand, WantedKeys};
use super::promises::{PromiseDates, promised_since};
use super::{Control, config};
use crate::acme::request::ask;
use crate::admin::api::{Answer, Call};
use crate::admin::asked::{encoded, parameter};
use crate::config::edit::{matches, tag};
use crate::config::new_key::{Algorithm, KeyFailure, KeyPath, KeyWithCsr, make};
use crate::config::withdrawal::{LINE, Withdrawal, withdrawn};
use crate::config::{Outline, SiteOutline, report};
use crate::export::Role;
use crate::host::{HostPattern, file_stem};
use crate::keys::key_file::{FILE_MAX, KeyAlgorithm, KeyKind, PublicKey, public_key};
use crate::keys::pin::Pin;
use crate::ledger::time::rfc3339;
use crate::os::plain_file;
use crate::policy::promise::Promises;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path, shell_word};

/// A key to make.
#[derive(Deserialize)]
struct WantedKey {
    /// Any host of the site.
    site: String,
    /// `next` or `spare`.
    role: String,
    /// `ecdsa-p256`, `rsa-2048` or `ed25519`.
    #[serde(default)]
    algorithm: Option<String>,
}

/// Held while a key is made.
static MAKING: Mutex<()> = Mutex::new(());
/// Sites in one answer, if a page of them is asked for.
const PAGE: usize = 8;
/// Files of a folder that are looked at for the CSR of a new key.
const FILES_MAX: usize = 1000;
/// The content type of a CSR (RFC 5967).
const CSR: &str = "application/pkcs10";

/// Answers a call about keys; `None` if the path has no such method.
pub(super) async fn answer(path: &str, call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    Some(match (path, &call.method) {
        ("/keys", &Method::GET) => match WantedKeys::of(&call.query) {
            Ok(wanted) => match ask(commands, |reply| AdminCommand::Keys { wanted, reply }).await {
                Some(keys) if parameter(&call.query, "page").is_some() => with_tags(keys, commands).await,
                Some(keys) => Answer::json(StatusCode::OK, keys),
                None => Answer::gone(),
            },
            Err(refusal) => refusal,
        },
        ("/keys", &Method::POST) => new(call, commands).await,
        ("/keys/csr", &Method::GET) => csr(&call.query, commands).await,
        ("/keys/withdraw", &Method::POST) => withdraw(&call.query, commands).await,
        _ => return None,
    })
}

/// Returns the CSR of a key: of a backup, or of a key that is not in the configuration yet.
async fn csr(query: &str, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let host = parameter(query, "host").unwrap_or_default();
    let Some(pin) = parameter(query, "pin").and_then(|pin| pin.trim().parse::<Pin>().ok()) else {
        let reason = Reason::new("pin: not a pin").hint("44 characters of base64, as `pintle pin` prints them");
        return Answer::refused(StatusCode::BAD_REQUEST, &reason);
    };
    let Some(outline) = ask(commands, AdminCommand::Outline).await else { return Answer::gone() };
    let Some(outline) = outline else { return Answer::bad("the configuration cannot be read") };
    let found = spawn_blocking(move || csr_of(&outline, &host, pin)).await;
    found.unwrap_or_else(|panic| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()))
}

fn csr_of(outline: &Outline, host: &str, pin: Pin) -> Answer {
    let Some(site) = outline.site(host) else { return no_site(host) };
    let named = site.backups.iter().map(|file| outline.path(file));
    let text = named.chain(csr_files(outline, site)).find_map(|file| {
        let contents = plain_file::read(&file, FILE_MAX).ok()?;
        let is_meant = |public: &PublicKey| public.kind == KeyKind::Csr && public.pin == pin;
        // A CSR in DER is no text.
        public_key(&contents).ok().filter(is_meant).and_then(|_| String::from_utf8(contents).ok())
    });
    match text {
        Some(text) => Answer::text(CSR, text),
        None => {
            let reason = Reason::new(format!("{host}: no CSR in PEM has the key {pin}"));
            let command = pintle(format_args!("key new --role next --site {}", shell_word(host)));
            Answer::refused(StatusCode::NOT_FOUND, &reason.command(command))
        }
    }
}

/// The CSRs in the folder of a site's keys, also of keys that are not in the configuration yet.
fn csr_files(outline: &Outline, site: &SiteOutline) -> Vec<PathBuf> {
    let folder = outline.path(&KeyPath::of(site));
    let prefix = format!("{}-", file_stem(&site.label()));
    let entries = std::fs::read_dir(folder).into_iter().flatten().take(FILES_MAX).flatten();
    let is_meant = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&prefix) && path.extension().is_some_and(|extension| extension == "csr")
    };
    entries.map(|entry| entry.path()).filter(is_meant).collect()
}

/// The tag of a site's key files: another one once a key was made.
fn tag_of(outline: &Outline, site: &SiteOutline) -> String {
    let mut names: Vec<String> = csr_files(outline, site).iter().map(|path| path.display().to_string()).collect();
    names.sort_unstable();
    tag(&names.join("\n"))
}

/// Adds the tag of its key files to each site.
async fn with_tags(mut keys: Value, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let Some(outline) = ask(commands, AdminCommand::Outline).await else { return Answer::gone() };
    let tagged = spawn_blocking(move || {
        for listed in keys["sites"].as_array_mut().into_iter().flatten() {
            let site = outline.as_ref().and_then(|outline| Some((outline, outline.site(listed["site"].as_str()?)?)));
            listed["tag"] = json!(site.map(|(outline, site)| tag_of(outline, site)));
        }
        Answer::json(StatusCode::OK, keys)
    });
    tagged.await.unwrap_or_else(|panic| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()))
}

/// Returns the configuration in which a site withdraws its pins. Changes nothing.
async fn withdraw(query: &str, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let host = parameter(query, "host").unwrap_or_default();
    let Ok(host) = HostPattern::parse(&host) else { return no_site(&host) };
    let (text, tag) = match config::text_of_file(commands).await {
        Ok(read) => read,
        Err(answer) => return answer,
    };
    match withdrawn(&text, &host) {
        Ok(Withdrawal { text, line, is_new }) => {
            let body = json!({ "text": text, "tag": tag, "line": line, "is_new": is_new, "change": LINE });
            Answer { etag: Some(tag), ..Answer::json(StatusCode::OK, body) }
        }
        Err(reason) => Answer::refused(StatusCode::CONFLICT, &reason),
    }
}

fn no_site(host: &str) -> Answer {
    Answer::refused(StatusCode::NOT_FOUND, &Reason::new(format!("no site has the host {host}")))
}

async fn new(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let wanted: WantedKey = match serde_json::from_slice(&call.body) {
        Ok(wanted) => wanted,
        Err(error) => return Answer::bad(&error.to_string()),
    };
    let role = match wanted.role.as_str() {
        "next" => Role::Next,
        "spare" => Role::Spare,
        _ => return Answer::bad("role: neither next nor spare"),
    };
    let algorithm = wanted.algorithm.as_deref().unwrap_or("ecdsa-p256");
    let Ok(algorithm) = <Algorithm as clap::ValueEnum>::from_str(algorithm, true) else {
        return Answer::bad("algorithm: neither ecdsa-p256, rsa-2048 nor ed25519");
    };
    let Some(if_match) = call.if_match.clone() else { return no_tag(&wanted.site) };
    let Some(outline) = ask(commands, AdminCommand::Outline).await else { return Answer::gone() };
    let Some(outline) = outline else { return Answer::bad("the configuration cannot be read") };
    let made = spawn_blocking(move || {
        // Of two presses of a button, the second finds the key of the first.
        let _one_by_one = MAKING.lock();
        match refusal(&outline, &wanted.site, role, &if_match) {
            Some(refusal) => refusal,
            None => make_for(&outline, &wanted.site, role, algorithm),
        }
    })
    .await;
    made.unwrap_or_else(|panic| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()))
}

/// The refusal of a call that does not say which keys its caller has seen (RFC 6585 section 3).
fn no_tag(host: &str) -> Answer {
    let reason = Reason::new("If-Match is missing: whoever makes a key names the keys that they have seen");
    let reason = reason.hint(format!("If-Match: the tag of the site in GET /v1/keys?page=1&q={}", encoded(host)));
    Answer::refused(StatusCode::PRECONDITION_REQUIRED, &reason)
}

/// The refusal of a key that nobody needs: pintle makes it by itself, or somebody has made one since the caller looked.
fn refusal(outline: &Outline, host: &str, role: Role, if_match: &str) -> Option<Answer> {
    let site = outline.site(host)?;
    if site.is_managed() && role != Role::Spare {
        let what = format!("{host}: pintle obtains the certificate of this site, and makes its next key by itself");
        let command = pintle(format_args!("key rotate --site {}", shell_word(host)));
        return Some(Answer::refused(StatusCode::CONFLICT, &Reason::new(what).command(command)));
    }
    if !matches(if_match, &tag_of(outline, site)) {
        let what = format!("{host}: a key was made already since you looked");
        let hint = "look at the keys again; then you can make another";
        return Some(Answer::refused(StatusCode::PRECONDITION_FAILED, &Reason::new(what).hint(hint)));
    }
    None
}

fn make_for(outline: &Outline, host: &str, role: Role, algorithm: Algorithm) -> Answer {
    let Some(site) = outline.site(host) else { return no_site(host) };
    let stem = format!("{}-{}", file_stem(&site.label()), role.name());
    let place = KeyPath::free(outline, KeyPath::of(site), &stem);
    let (key, csr) = (outline.path(&place.name("key")), outline.path(&place.name("csr")));
    let make_it = format!("key new --role {} --site {}", role.name(), shell_word(host));
    let command = format!("as root: {}", pintle(make_it));
    match make(outline, site, algorithm, &place) {
        Ok(KeyWithCsr { public: made, csr: pem }) => {
            tracing::info!(site = site.label(), role = role.name(), pin = %made.pin, key = %key.display(), "key made");
            let body = json!({
                "site": site.label(), "role": role.name(), "algorithm": made.algorithm.to_string(),
                "pin": made.pin.to_string(), "hex": made.pin.to_hex(), "key": key.display().to_string(),
                "csr": csr.display().to_string(), "csr_pem": pem, "name": place.name("csr"),
            });
            Answer::json(StatusCode::OK, body)
        }
        Err(KeyFailure::Exists(there)) => {
            let what = format!("{}: exists already, and pintle never overwrites a key", there.display());
            Answer::refused(StatusCode::CONFLICT, &Reason::new(what).hint("give the old one another name"))
        }
        Err(KeyFailure::NoFolder(folder)) => {
            let what = format!("{}: no such folder", folder.display());
            Answer::refused(
                StatusCode::CONFLICT,
                &Reason::new(what).command(format!("mkdir -p {}", shell_path(&folder))),
            )
        }
        Err(KeyFailure::Other(why)) => {
            let hint = "edit = true in [admin], then `pintle upgrade`, and write permission for the user that serves";
            Answer::refused(StatusCode::FORBIDDEN, &Reason::new(why).hint(command).hint(hint))
        }
    }
}

impl Control {
    /// The keys of the sites, with their promises.
    pub(super) fn keys(&self, wanted: &WantedKeys) -> Value {
        let has_text = wanted.in_names();
        let found: Vec<usize> =
            self.config.sites().enumerate().filter(|(_, site)| has_text(site)).map(|(at, _)| at).collect();
        let pages = found.len().div_ceil(PAGE).max(1);
        let (page, count) = wanted.page.map_or((1, found.len()), |page| (page.min(pages), PAGE));
        let shown: BTreeSet<usize> = found.iter().skip((page - 1) * PAGE).take(count).copied().collect();
        // Of ten thousand sites, only the promises that bind the shown ones are looked at.
        let names: Vec<_> = shown.iter().filter_map(|at| self.config.names_of(*at)).collect();
        let now = self.now();
        let ledger = self.ledger();
        let promises = ledger.book().promises();
        let alive = match wanted.page {
            Some(_) => Promises::alive_near(promises, &names, now),
            None => Promises::alive(promises, now),
        };
        let sites = self.config.sites().enumerate().filter(|(at, _)| shown.contains(at));
        let sites: Vec<&report::SiteReport> = sites.map(|(_, site)| site).collect();
        let labels: HashSet<&str, foldhash::fast::RandomState> = sites.iter().map(|site| site.name()).collect();
        let since = promised_since(ledger.book(), |site| labels.contains(site));
        let acme = self.config.acme.iter().flat_map(|acme| &acme.certificates);
        let managed: HashSet<&str> = acme.map(|of| of.site.as_str()).collect();
        let rows = sites.iter().zip(names).map(|(site, names)| {
            let dates = |pin: Pin| PromiseDates {
                since: since.get(&(site.name(), pin)).copied(),
                usable_from: alive.safe_from(names.hosts, names.except, pin),
            };
            keys_of(site, managed.contains(site.name()), &dates)
        });
        let is_lone = |site: &&report::SiteReport| site.hpkp.is_some() && site.backups.is_empty();
        json!({
            "now": rfc3339(now), "sites": rows.collect::<Vec<_>>(), "all": self.config.sites().len(), "found": found.len(), "page": page,
            "pages": if wanted.page.is_some() { pages } else { 1 }, "without_backup": self.config.sites().filter(is_lone).count(),
        })
    }
}

/// The keys of a site.
fn keys_of(site: &report::SiteReport, managed: bool, dates: &dyn Fn(Pin) -> PromiseDates) -> Value {
    let key = |role: Role, public: (Pin, KeyAlgorithm), file: Value| {
        let PromiseDates { since, usable_from } = dates(public.0);
        json!({
            "role": role.name(), "pin": public.0.to_string(), "hex": public.0.to_hex(), "file": file,
            "algorithm": public.1.to_string(), "promised_since": since.map(rfc3339),
            "usable_from": usable_from.map(rfc3339),
        })
    };
    let live = site.certificates.iter().map(|certificate| {
        let mut row = key(Role::Live, (certificate.pin, certificate.algorithm), json!(certificate.path));
        row["not_after"] = json!(certificate.not_after.to_string());
        row
    });
    // A backup that is live is listed as that.
    let waiting = || site.backups.iter().filter(move |(_, key)| !site.promoted.contains(&key.pin));
    let algorithms = site.certificates.iter().map(|certificate| certificate.algorithm);
    let roles = Role::of_backups(algorithms, waiting().map(|(_, key)| Some(key.algorithm)));
    let backups = waiting().zip(roles).map(|((file, public), role)| {
        let mut row = key(role, (public.pin, public.algorithm), json!(file));
        row["csr"] = json!(public.kind == KeyKind::Csr);
        row
    });
    let is_withdrawn = |(_, value): &(&str, String)| value.split(';').any(|part| part.trim() == "max-age=0");
    json!({
        "site": site.name(), "hosts": site.hosts, "managed": managed, "pins_sent": site.hpkp.is_some(),
        "withdrawn": site.hpkp.as_ref().is_some_and(is_withdrawn), "keys": live.chain(backups).collect::<Vec<_>>(),
    })
}
