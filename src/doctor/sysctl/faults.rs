//! Faults of single lines: glued lines, values that the kernel refuses, keys that lead nowhere, missing newlines.

use std::collections::BTreeSet;

use super::line::{SysctlLine, Tool, key_of, read};
use super::plan::{LinePlace, PROC, SysctlPlan, Write, running};
use super::remedy;
use super::tree::{SettingsFile, is_link_to_old_file};
use crate::doctor::files::HostFiles;
use crate::doctor::finding::Finding;

/// The first parts of keys.
const ROOTS: [&str; 7] = ["net.", "net/", "kernel.", "vm.", "fs.", "user.", "dev."];

/// Reports the faults of all lines that a plan leaves out or that the kernel refuses.
pub(super) fn of_lines(files: &HostFiles, plan: &SysctlPlan, refused: &[Write]) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_once = |place: &LinePlace| !is_link_to_old_file(files, &place.file);
    let counts = |write: &&Write| !write.ignores_errors || glue(&write.place.text).is_some();
    for write in refused.iter().filter(counts).filter(|write| is_once(&write.place)) {
        let key = key_of(&write.path);
        let what = format!("{}: the kernel refuses the value of {key}: {:?}", write.place.at(), write.value);
        let finding = Finding::warning("sysctl.refused", &key, what)
            .evidence(write.place.shown())
            .evidence(format!("running value: {}", running(files, &write.path).unwrap_or_default()));
        found.push(with_line_remedy(files, finding, &write.place));
    }
    for place in plan.faults.iter().filter(|place| is_once(place)) {
        let what = format!("{}: the line has no \"=\", so no program uses it", place.at());
        let finding = Finding::warning("sysctl.syntax", place.at(), what);
        found.push(with_line_remedy(files, finding.evidence(place.shown()), place));
    }
    let split = plan.writes.iter().filter_map(|write| Some((split_interface(files, write)?, &write.place)));
    found.extend(split.filter(|(_, place)| is_once(place)).map(|(finding, _)| finding));
    found.dedup();
    found
}

fn with_line_remedy(files: &HostFiles, finding: Finding, place: &LinePlace) -> Finding {
    match glue(&place.text) {
        Some(after) => finding
            .evidence("two lines became one: a line was appended to a file without a final newline")
            .remedy("break the line in two", [remedy::break_line(files, place, after)]),
        None => finding.remedy("make the line a comment", [remedy::comment_out(files, place)]),
    }
}

/// Returns the number of characters before a key that was appended to a line without an end.
fn glue(line: &str) -> Option<usize> {
    let is_comment = line.trim_start().starts_with(['#', ';']);
    let from = if is_comment { 0 } else { line.find('=')? + 1 };
    let starts = ROOTS.iter().flat_map(|root| line[from..].match_indices(root).map(|(at, _)| from + at));
    let mut starts: Vec<usize> = starts.collect();
    starts.sort_unstable();
    let is_glued = |at: &usize| {
        let (before, after) = line.split_at(*at);
        let is_inside = before.ends_with(|c: char| c.is_alphanumeric() || "\"')".contains(c));
        let (key, value) = after.split_once('=').unwrap_or_default();
        let is_key =
            !key.is_empty() && key.trim_end().chars().all(|c| c.is_ascii_alphanumeric() || "._-/*".contains(c));
        is_inside && is_key && !value.trim().is_empty() && !value.trim().contains(' ')
    };
    starts.into_iter().find(is_glued).map(|at| line[..at].chars().count())
}

/// A key such as net.ipv4.conf.eth0.5.rp_filter: the dot in the name of the device became a slash.
fn split_interface(files: &HostFiles, write: &Write) -> Option<Finding> {
    if files.is_there(&format!("{PROC}/{}", write.path)) {
        return None;
    }
    let parts: Vec<&str> = write.path.split('/').collect();
    let (head, rest) = parts.split_at_checked(3)?;
    let is_per_device = head[0] == "net" && matches!(head[2], "conf" | "neigh");
    let (leaf, name) = rest.split_last()?;
    if !is_per_device || name.len() < 2 {
        return None;
    }
    let path = format!("{}/{}/{leaf}", head.join("/"), name.join("."));
    if !files.is_there(&format!("{PROC}/{path}")) {
        return None;
    }
    let at = write.place.at();
    let what = format!("{at}: no program sets it: a dot in the name of a device must be a slash here");
    let fixed = format!("{path} = {}", write.value);
    Some(
        Finding::warning("sysctl.device-name", key_of(&path), what)
            .evidence(write.place.shown())
            .evidence(format!("{PROC}/{path} exists, {PROC}/{} does not", write.path))
            .remedy("write the key as a path", [remedy::replace_line(files, &write.place, &fixed)]),
    )
}

/// Reports files whose last line has no end, and comments that have swallowed a setting.
pub(super) fn of_files(files: &HostFiles, plans: [&SysctlPlan; 2]) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in plans.iter().flat_map(|plan| &plan.files) {
        if !is_link_to_old_file(files, &file.path) && seen.insert(&file.path) {
            found.extend(newline(files, file));
            found.extend(swallowed(files, file));
        }
    }
    found
}

fn newline(files: &HostFiles, file: &SettingsFile) -> Option<Finding> {
    if !file.lacks_newline() {
        return None;
    }
    let last = file.text.lines().last().unwrap_or_default();
    let line = file.text.lines().count();
    let effect = match read(last, Tool::Systemd) {
        SysctlLine::Blank => "a line that a script appends with >> becomes a part of this comment, silently",
        _ => "a line that a script appends with >> becomes a part of this value, and the kernel refuses both",
    };
    Some(
        Finding::warning(
            "sysctl.final-newline",
            &file.path,
            format!("{}: the last line has no final newline", file.path),
        )
        .evidence(format!("{}:{line}: {}", file.path, last.trim()))
        .evidence(effect)
        .remedy("end the last line", [remedy::end_last_line(files, &file.path)]),
    )
}

fn swallowed(files: &HostFiles, file: &SettingsFile) -> Option<Finding> {
    let is_comment = |text: &str| text.trim_start().starts_with(['#', ';']);
    let (at, text, after) = file
        .text
        .split('\n')
        .enumerate()
        .filter(|(_, text)| is_comment(text))
        .find_map(|(at, text)| Some((at, text, glue(text)?)))?;
    let place = LinePlace { file: file.path.clone(), line: at + 1, text: text.to_owned() };
    let what = format!("{}: a setting became a part of the comment before it", place.at());
    Some(
        Finding::warning("sysctl.swallowed", place.at(), what)
            .evidence(place.shown())
            .evidence("the line was appended to a file without a final newline")
            .remedy("break the line in two", [remedy::break_line(files, &place, after)]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glued_lines_are_seen() {
        for (line, want) in [
            ("vm.swappiness=10net.ipv4.ip_forward=1", Some(16)),
            ("net.ipv4.ip_forward = 0net.ipv4.ip_forward=1", Some(23)),
            ("# keepnet.ipv4.ip_forward=1", Some(6)),
            ("# see net.ipv4.ip_forward=1", None),
            ("#net.ipv4.ip_forward=1", None),
            ("net.ipv4.ip_forward=1", None),
            ("kernel.core_pattern = |/usr/bin/x kernel.y", None),
            ("# the value of mynet.ipv4 = see below", None),
            ("é # énet.ipv4.x=1", None),
            ("# énet.ipv4.x=1", Some(3)),
        ] {
            assert_eq!(glue(line), want, "{line}");
        }
    }
}
