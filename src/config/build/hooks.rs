//! `[[hook]]`: events for other programs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checker::{Checker, unknown};
use super::files::{mode, program, read, read_roots};
use crate::config::file::{ConfigFile, HookTable};
use crate::config::problem::At;
use crate::events::{Hook, HookTarget, Pattern, RETRY, is_of_name, known_patterns, secrets};
use crate::host::bare;
use crate::reason::{Reason, shell_word};

/// The most hooks.
const HOOKS_MAX: usize = 64;
/// The longest name of a hook.
const NAME_MAX: usize = 64;
/// The most attempts after the first one, and the longest pause before one.
const RETRIES_MAX: usize = 32;
const RETRY_MAX: Duration = Duration::from_secs(7 * 86_400);
/// A line that creates a secret.
const NEW_SECRET: &str = "(umask 077; echo \"whsec_$(openssl rand -base64 32)\" > ";

pub(super) fn build(file: &ConfigFile, r: &mut Checker<'_>) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    if let Some(beyond) = file.hooks.get(HOOKS_MAX) {
        r.error(&beyond.span, format!("hook: at most {HOOKS_MAX} hooks"));
    }
    // A process that drops its privileges reads the secret through its group.
    let is_for_group = file.process.user.is_some();
    for table in file.hooks.iter().take(HOOKS_MAX) {
        let events = events(table, r);
        let retry = retry(table, r);
        let Some(target) = target(table, is_for_group, r) else { continue };
        let name = name(table, &target, &hooks, r);
        hooks.push(Hook { name, events, target, retry });
    }
    hooks
}

fn events(table: &HookTable, r: &mut Checker<'_>) -> Vec<Pattern> {
    let Some(listed) = &table.events else { return vec![Pattern::All] };
    if listed.is_empty() {
        let hint = "events = [\"*\"], or leave the key out";
        r.error_with_hint(&table.span, "hook.events: must not be empty", hint);
    }
    let mut patterns = Vec::new();
    for word in listed {
        match Pattern::parse(&word.value) {
            Some(pattern) => patterns.push(pattern),
            None => {
                let known = known_patterns();
                r.error(&word.span, unknown("hook.events", "event", &word.value, known.iter().map(String::as_str)));
            }
        }
    }
    patterns
}

fn retry(table: &HookTable, r: &mut Checker<'_>) -> Vec<Duration> {
    let Some(pauses) = &table.retry else { return RETRY.to_vec() };
    if let Some(beyond) = pauses.get(RETRIES_MAX) {
        r.error(&beyond.span, format!("hook.retry: at most {RETRIES_MAX} pauses"));
    }
    for pause in pauses.iter().filter(|pause| pause.value > RETRY_MAX) {
        r.error(&pause.span, "hook.retry: a pause must be at most 7d");
    }
    pauses.iter().map(|pause| pause.value).collect()
}

fn target(table: &HookTable, is_for_group: bool, r: &mut Checker<'_>) -> Option<HookTarget> {
    match (&table.url, &table.command) {
        (Some(url), None) => webhook(table, url, is_for_group, r),
        (None, Some(command)) => {
            for key in [("secret_file", &table.secret_file), ("ca", &table.ca)] {
                if let (key, Some(at)) = key {
                    r.error_with_hint(&at.span, format!("hook.{key}: has no effect with command"), "leave the key out");
                }
            }
            Some(HookTarget::Command(program("hook.command", command, r)))
        }
        (Some(_), Some(command)) => {
            let what = "hook: url and command: a hook has one of them";
            r.error_with_hint(&command.span, what, "write a [[hook]] for each");
            None
        }
        (None, None) => {
            let hint = "url = \"https://...\" with secret_file, or command = \"/etc/pintle/on-event\"";
            r.error_with_hint(&table.span, "hook: url or command is missing", hint);
            None
        }
    }
}

fn webhook(table: &HookTable, url: &At<String>, is_for_group: bool, r: &mut Checker<'_>) -> Option<HookTarget> {
    check_url(url, r)?;
    let secrets = match &table.secret_file {
        Some(file) => secrets_of(file, is_for_group, r),
        None => {
            let what = "hook.secret_file: is missing: receivers check the signature of each event";
            let hints = [format!("{NEW_SECRET}hook.secret)"), "secret_file = \"hook.secret\"".to_owned()];
            r.error(&table.span, Reason::new(what).hints(hints));
            None
        }
    };
    let roots = table.ca.as_ref().map(|at| read_roots("hook.ca", at, "the roots of the receiver's CA", r));
    let files = [&table.secret_file, &table.ca].into_iter().flatten().map(|at| r.path(&at.value)).collect();
    let roots = match roots {
        Some(None) => return None,
        roots => roots.flatten(),
    };
    Some(HookTarget::Url { url: url.value.clone(), secrets: secrets?, roots, files })
}

/// Checks a URL, which messages never show: it may contain a secret.
fn check_url(url: &At<String>, r: &mut Checker<'_>) -> Option<()> {
    let example = "url = \"https://hooks.example.com/pintle\"";
    let parsed = url.value.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let Some(parsed) = parsed else {
        r.error_with_hint(&url.span, "hook.url: invalid URL", example);
        return None;
    };
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        let what = "hook.url: a name and a password in a URL are not sent";
        r.error_with_hint(&url.span, what, "leave them out: the signature proves the sender");
        return None;
    }
    match parsed.scheme_str() {
        Some("https") => {}
        Some("http") => {
            let host = bare(parsed.host().unwrap_or_default());
            let is_here =
                host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            if !is_here {
                r.warn(&url.span, "hook.url: everybody on the way can read the events of an http URL", example);
            }
        }
        _ => {
            r.error_with_hint(&url.span, "hook.url: not an https URL", example);
            return None;
        }
    }
    Some(())
}

fn secrets_of(file: &At<String>, is_for_group: bool, r: &mut Checker<'_>) -> Option<Vec<crate::events::Secret>> {
    let path = r.path(&file.value);
    let contents = read("hook.secret_file", &path, &file.span, r)?;
    let shown = r.shown(&path).to_string();
    let (wrong, remedy) = if is_for_group { (0o007, "o=") } else { (0o077, "600") };
    if mode(&path).is_some_and(|mode| mode & wrong != 0) {
        let what = format!("hook.secret_file: {shown}: other users can read the secret");
        r.warn(&file.span, what, format!("chmod {remedy} {}", shell_word(&shown)));
    }
    match std::str::from_utf8(&contents).map_err(|_| "not a text".to_owned()).and_then(secrets) {
        Ok(secrets) => Some(secrets),
        Err(why) => {
            let what = format!("hook.secret_file: {shown}: {why}");
            r.error_with_hint(&file.span, what, format!("a new secret: {NEW_SECRET}{shown})"));
            None
        }
    }
}

/// Returns the name: the given one, or one by the receiver, with a number if another hook has it.
fn name(table: &HookTable, target: &HookTarget, known: &[Hook], r: &mut Checker<'_>) -> String {
    let is_known = |name: &str| known.iter().any(|hook| hook.name == name);
    if let Some(given) = &table.name {
        if given.value.is_empty() || given.value.len() > NAME_MAX || !given.value.chars().all(is_of_name) {
            let what = format!(
                "hook.name: {:?}: up to {NAME_MAX} letters, digits, dots, hyphens and underscores",
                given.value
            );
            r.error_with_hint(&given.span, what, "name = \"pager\"");
        } else if is_known(&given.value) {
            let what = format!("hook.name: another hook is called {:?}", given.value);
            r.error_with_hint(&given.span, what, "give each hook a name of its own");
        }
        return given.value.clone();
    }
    let base = match target {
        HookTarget::Url { url, .. } => {
            url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(|host| bare(host).to_owned()))
        }
        HookTarget::Command(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
    };
    let base = base.unwrap_or_default();
    let base: String = base.chars().take(NAME_MAX).map(|c| if is_of_name(c) { c } else { '-' }).collect();
    let mut numbered = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}-{number}")));
    numbered.find(|name| !is_known(name)).unwrap_or(base)
}

/// Returns the files of hooks, which the sandbox must let a reload read.
pub(in crate::config) fn files(hooks: &[Hook]) -> impl Iterator<Item = &Path> {
    hooks.iter().flat_map(|hook| match &hook.target {
        HookTarget::Url { files, .. } => files.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
        HookTarget::Command(_) => Vec::new(),
    })
}
