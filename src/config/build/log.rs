//! `[log]`: the destination of the access log, its format, and the rules for its records.

use std::os::unix::fs::FileTypeExt as _;

use super::checker::Checker;
use super::process;
use crate::config::file::{ConfigFile, LogTable};
use crate::config::problem::At;
use crate::config::value::show_number;
use crate::config::{AccessTarget, Draft};
use crate::reason::Reason;
use crate::reason::near::nearest;
use crate::telemetry::access::{LogRules, RecordField, RecordFields, Redact, Sample, WrongField};
use crate::telemetry::{AccessFormat, SyslogPlace};

/// The default of `log.recent`, if there is an access log.
const RECENT: usize = 1000;
/// The largest `log.recent`: 400 MB of records that are as long as their clients can make them.
const RECENT_MAX: u64 = 100_000;

/// The destination, and the format if the file names one.
pub(super) fn access(file: &ConfigFile, draft: &Draft, r: &mut Checker<'_>) -> (AccessTarget, Option<AccessFormat>) {
    let formats = [
        ("json", Some(AccessFormat::Json)),
        ("combined", Some(AccessFormat::Combined)),
        ("short", Some(AccessFormat::Short)),
    ];
    let access_format = r.choice("log.format", file.log.format.as_ref(), &formats, None);
    let syslog = file.log.access.as_ref().and_then(|at| Some((at, SyslogPlace::parse(&at.value)?)));
    if let Some((at, Err(why))) = &syslog {
        let what = format!("log.access: {:?}: {why}", at.value);
        r.error_with_hint(&at.span, what, "access = \"syslog:\" for this host, or \"syslog:udp://192.0.2.1:514\"");
    }
    if let Some((at, instead)) = file.log.access.as_ref().and_then(|at| Some((at, meant(&at.value)?))) {
        let what = format!("log.access: {:?} would be a file of that name", at.value);
        r.error_with_hint(&at.span, what, format!("access = {instead:?}, or \"./{}\" for the file", at.value));
    }
    if let Some(at) = &file.log.access {
        warn_of_slip(at, r);
    }
    let access = match file.log.access.as_ref().map(|a| (a.value.as_str(), draft.access_file())) {
        None | Some(("stdout", _)) => AccessTarget::Stdout,
        Some((_, None)) => AccessTarget::Off,
        Some((_, Some(path))) => AccessTarget::File(path),
    };
    let access = match syslog {
        Some((at, Ok(place))) => {
            warn_of_silent_daemon(at, &place, r);
            AccessTarget::Syslog(place)
        }
        _ => access,
    };
    process::check_access(file.log.access.as_ref(), &access, r);
    (access, access_format)
}

/// Warns of a syslog daemon that is not there. It may start later.
fn warn_of_silent_daemon(at: &At<String>, place: &SyslogPlace, r: &mut Checker<'_>) {
    let SyslogPlace::Socket(path) = place else { return };
    let what = match std::fs::metadata(path) {
        Ok(is) if is.file_type().is_socket() => return,
        Ok(_) => "not a socket",
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        Err(_) => "no such socket",
    };
    r.warn(
        &at.span,
        format!("log.access: {}: {what}: lines are lost until a syslog daemon reads there", r.shown(path)),
        "start the daemon, or name its socket: access = \"syslog:/dev/log\"",
    );
}

/// Warns of a file whose name is nearly a word: its access log may be meant for standard output, or for nobody.
fn warn_of_slip(at: &At<String>, r: &mut Checker<'_>) {
    let words = ["stdout", "off"];
    // The name of a file that is meant has an ending, or a folder.
    if words.contains(&at.value.as_str()) || meant(&at.value).is_some() || at.value.contains(['/', '.', ':']) {
        return;
    }
    if let Some(near) = nearest(&at.value, words) {
        let hint = format!("access = {near:?}, or \"./{}\" for the file", at.value);
        r.warn(&at.span, format!("log.access: {:?} is a file of that name", at.value), hint);
    }
}

/// The value that was meant, for a word which other programs have for a place.
fn meant(value: &str) -> Option<&'static str> {
    Some(match &*value.to_ascii_lowercase() {
        "syslog" => "syslog:",
        "stdout" if value != "stdout" => "stdout",
        // The operator's own log goes to standard error.
        "stderr" | "console" | "journal" | "journald" | "-" => "stdout",
        "off" if value != "off" => "off",
        "none" | "no" | "false" | "null" => "off",
        _ => return None,
    })
}

/// The number of recent records that can be asked for. Without an access log, nobody makes records unless the file says so.
pub(super) fn recent(table: &LogTable, access: &AccessTarget, draft: &Draft, r: &mut Checker<'_>) -> usize {
    let by_default = if *access == AccessTarget::Off { 0 } else { RECENT };
    let Some(given) = &table.recent else { return if draft.admin().is_some() { by_default } else { 0 } };
    if given.value > RECENT_MAX {
        let what = format!("log.recent: must be between 0 and {}", show_number(RECENT_MAX));
        r.error_with_hint(&given.span, what, format!("recent = {RECENT}"));
    }
    if given.value > 0 && draft.admin().is_none() {
        let what = "log.recent: without an admin socket, nobody can ask for recent records";
        r.warn(&given.span, what, "set admin.listen or state.directory, or leave the key out");
        return 0;
    }
    usize::try_from(given.value.min(RECENT_MAX)).unwrap_or_default()
}

/// The fields of records, the sample, and the parts that are left out.
pub(super) fn rules(table: &LogTable, r: &mut Checker<'_>) -> LogRules {
    let mut rules = LogRules { fields: fields(table, r), ..LogRules::default() };
    if let Some(sample) = &table.sample {
        match sample.value {
            value @ 0.0..=1.0 => rules.sample = Sample(value),
            _ => r.error_with_hint(&sample.span, "log.sample: must be between 0 and 1", "sample = 0.1"),
        }
    }
    for word in &table.redact {
        let parts =
            [("query", Redact { query: true, client: false }), ("client", Redact { query: false, client: true })];
        let part = r.choice("log.redact", Some(word), &parts, Redact::default());
        rules.redact.query |= part.query;
        rules.redact.client |= part.client;
    }
    rules
}

fn fields(table: &LogTable, r: &mut Checker<'_>) -> RecordFields {
    let Some(words) = &table.fields else { return RecordFields::default() };
    // A list that only removes fields removes them from the default.
    let only_removes = words.iter().all(|word| word.value.starts_with('-'));
    let mut fields = if only_removes { RecordFields::default() } else { RecordFields::NONE };
    for word in words {
        match fields.with(&word.value) {
            Ok(with) => fields = with,
            Err(WrongField::Always) => r.error_with_hint(
                &word.span,
                format!("log.fields: every record has {}", word.value.trim_start_matches('-')),
                "remove the word",
            ),
            Err(WrongField::Unknown(hint)) => {
                let known: Vec<&str> = RecordField::ALL.iter().map(|field| field.name()).collect();
                let mut reason = Reason::new(format!("log.fields: unknown field {:?}", word.value));
                reason.notes.push(format!("expected \"default\", or a name with or without -: {}", known.join(", ")));
                reason.hints.extend(hint);
                r.error(&word.span, reason);
            }
        }
    }
    fields
}
