//! The writes of each program, in their order, and the values after them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::line::{SysctlLine, Tool, fits, is_pattern, read};
use super::tree::{self, SettingsFile};
use super::value::{Written, write};
use crate::doctor::files::HostFiles;

/// The most paths that patterns lead to.
const MATCHES_MAX: usize = 20_000;
/// The folder of the settings.
pub const PROC: &str = "/proc/sys";
/// Two names of one setting.
pub const FORWARD: &str = "net/ipv4/ip_forward";
const FORWARD_ALL: &str = "net/ipv4/conf/all/forwarding";
const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePlace {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The text of the line.
    pub text: String,
}

impl LinePlace {
    /// Returns `FILE:LINE`.
    #[must_use]
    pub fn at(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Returns `FILE:LINE: TEXT`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}: {}", self.at(), self.text.trim())
    }
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The path below /proc/sys.
    pub path: String,
    /// The text.
    pub value: String,
    /// The line behind it.
    pub place: LinePlace,
    /// `true` if errors are ignored.
    pub ignores_errors: bool,
}

/// A line that is read, with its place.
#[derive(Debug, Clone)]
struct PlacedLine {
    path: String,
    value: Option<String>,
    ignores_errors: bool,
    place: LinePlace,
}

/// The plan of a program.
#[derive(Debug, Clone, Default)]
pub struct SysctlPlan {
    /// The writes, in their order.
    pub writes: Vec<Write>,
    /// Lines without a meaning.
    pub faults: Vec<LinePlace>,
    /// The files that the program reads, in its order.
    pub(super) files: Vec<SettingsFile>,
    /// Files that cannot be read.
    pub unreadable: Vec<String>,
}

/// Computes the writes of a program.
#[must_use]
pub fn plan(files: &HostFiles, tool: Tool) -> SysctlPlan {
    let (settings, unreadable) = tree::files(files, tool);
    let mut faults = Vec::new();
    let mut entries: Vec<PlacedLine> = Vec::new();
    for file in &settings {
        for (at, text) in file.text.split('\n').enumerate() {
            let place = || LinePlace { file: file.path.clone(), line: at + 1, text: text.to_owned() };
            let (path, value, ignores_errors) = match read(text, tool) {
                SysctlLine::Blank => continue,
                SysctlLine::Fault => {
                    faults.push(place());
                    continue;
                }
                SysctlLine::Set(path, value, ignores) => (path, Some(value), ignores),
                SysctlLine::Exclude(path) => (path, None, false),
            };
            entries.push(PlacedLine { path, value, ignores_errors, place: place() });
        }
    }
    if tool == Tool::Systemd {
        entries = last_of_each(entries);
    }
    SysctlPlan { writes: expanded(files, entries), faults, files: settings, unreadable }
}

/// systemd keeps the last line of a key. It stays in its place if it repeats the earlier value.
fn last_of_each(entries: Vec<PlacedLine>) -> Vec<PlacedLine> {
    let mut kept: Vec<Option<PlacedLine>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for entry in entries {
        if let Some(at) = places.get(&entry.path).copied() {
            if let Some(earlier) = kept[at].as_mut().filter(|earlier| earlier.value == entry.value) {
                earlier.ignores_errors |= entry.ignores_errors;
                continue;
            }
            kept[at] = None;
        }
        places.insert(entry.path.clone(), kept.len());
        kept.push(Some(entry));
    }
    kept.into_iter().flatten().collect()
}

/// Replaces patterns with the paths that they fit, except paths with a line of their own.
fn expanded(files: &HostFiles, entries: Vec<PlacedLine>) -> Vec<Write> {
    let own: HashSet<String> = entries.iter().map(|entry| entry.path.clone()).collect();
    let mut writes = Vec::new();
    for PlacedLine { path, value, ignores_errors, place } in entries {
        let Some(value) = value else { continue };
        let paths = if is_pattern(&path) {
            let mut found = matches(files, &path);
            found.retain(|found| !own.contains(found));
            found
        } else {
            vec![path]
        };
        writes.extend(paths.into_iter().map(|path| Write {
            path,
            value: value.clone(),
            place: place.clone(),
            ignores_errors,
        }));
    }
    writes
}

/// Returns the paths that a pattern leads to.
fn matches(files: &HostFiles, pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let chars: Vec<char> = part.chars().collect();
        let mut next = Vec::new();
        for folder in &found {
            let join = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if !is_pattern(part) {
                next.push(join(part));
                continue;
            }
            let names = files.names(&format!("{PROC}/{folder}"));
            let fitting = names.iter().filter(|name| fits(&chars, &name.chars().collect::<Vec<_>>()));
            next.extend(fitting.map(|name| join(name)).take(MATCHES_MAX - next.len().min(MATCHES_MAX)));
        }
        found = next;
    }
    found.retain(|path| files.is_there(&format!("{PROC}/{path}")));
    found
}

/// The value of a setting after all writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalValue {
    /// The value.
    pub value: String,
    /// The line that decides.
    pub place: LinePlace,
}

/// The results of a plan.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// The settings that would be written, by path.
    pub values: BTreeMap<String, FinalValue>,
    /// Writes that the kernel would refuse.
    pub refused: Vec<Write>,
}

/// Returns the running value of a setting.
#[must_use]
pub fn running(files: &HostFiles, path: &str) -> Option<String> {
    // A path with `..` leads out of the folder.
    if path.split('/').any(|part| part == ".." || part == ".") || path.starts_with("proc/") {
        return None;
    }
    files.text(&format!("{PROC}/{path}")).map(|text| text.trim().to_owned())
}

/// Plays the writes against the running values.
#[must_use]
pub fn outcomes(files: &HostFiles, writes: &[Write]) -> Outcomes {
    let mut result = Outcomes::default();
    let mut named: HashSet<&str> = writes.iter().map(|write| one_name(&write.path)).collect();
    named.insert(FORWARD);
    let mut now: HashMap<String, String> =
        named.into_iter().filter_map(|path| Some((path.to_owned(), running(files, path)?))).collect();
    for this in writes {
        let path = one_name(&this.path);
        let Some(current) = now.get(path).cloned() else { continue };
        let value = match write(&this.value, &current) {
            Written::Same => current.clone(),
            Written::Other(value) => value,
            Written::Refused => {
                result.refused.push(this.clone());
                continue;
            }
        };
        let outcome = |value: String| FinalValue { value, place: this.place.clone() };
        if path == FORWARD && value != current {
            forwarding_changes(&value, &mut now, &mut result.values, &outcome);
        }
        now.insert(path.to_owned(), value.clone());
        result.values.insert(path.to_owned(), outcome(value));
    }
    result
}

/// A change of ip_forward sets `forwarding` of all devices, and accept_redirects to the opposite.
fn forwarding_changes(
    value: &str,
    now: &mut HashMap<String, String>,
    values: &mut BTreeMap<String, FinalValue>,
    outcome: &dyn Fn(String) -> FinalValue,
) {
    let is_on = value != "0";
    for (path, current) in now.iter_mut() {
        let is_device = path.starts_with("net/ipv4/conf/") && path.ends_with("/forwarding");
        let derived = match path == REDIRECTS {
            true => u8::from(!is_on).to_string(),
            false if is_device => value.to_owned(),
            false => continue,
        };
        values.insert(path.clone(), outcome(derived.clone()));
        *current = derived;
    }
}

/// Returns one name for a setting with two.
pub(super) fn one_name(path: &str) -> &str {
    if path == FORWARD_ALL { FORWARD } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::files::tests::tree;

    /// The values that each program would set, from a few files.
    fn values(contents: &[(&str, &str)]) -> [Vec<(String, String)>; 2] {
        let proc = [
            ("/proc/sys/net/ipv4/ip_forward", "1\n"),
            ("/proc/sys/net/ipv4/conf/all/rp_filter", "7\n"),
            ("/proc/sys/net/ipv4/conf/all/accept_redirects", "0\n"),
            ("/proc/sys/net/ipv4/conf/d0/rp_filter", "7\n"),
            ("/proc/sys/net/ipv4/conf/d0/forwarding", "1\n"),
            ("/proc/sys/net/ipv4/conf/d0.5/rp_filter", "7\n"),
        ];
        let (_folder, files) = tree(&[&proc, contents].concat());
        Tool::ALL.map(|tool| {
            let found = outcomes(&files, &plan(&files, tool).writes).values;
            found.into_iter().map(|(path, outcome)| (path, outcome.value)).collect()
        })
    }

    #[track_caller]
    fn check(contents: &[(&str, &str)], systemd: &[(&str, &str)], procps: &[(&str, &str)]) {
        let text = |pairs: &[(String, String)]| pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        let want = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        let [by_systemd, by_procps] = values(contents);
        assert_eq!(text(&by_systemd), want(systemd), "systemd");
        assert_eq!(text(&by_procps), want(procps), "procps");
    }

    #[test]
    fn the_last_line_wins_across_spellings() {
        let file = [("/etc/sysctl.d/1.conf", "net.ipv4.ip_forward = 0\nnet/ipv4/ip_forward = 1")];
        check(&file, &[("net/ipv4/ip_forward", "1")], &[("net/ipv4/ip_forward", "1")]);
    }

    #[test]
    fn procps_reads_the_old_file_last() {
        let files = [
            ("/etc/sysctl.conf", "net.ipv4.ip_forward=1\n"),
            ("/etc/sysctl.d/99-x.conf", "net.ipv4.ip_forward=0\n"),
            ("/etc/sysctl.d/99-sysctl.conf", "-> ../sysctl.conf"),
        ];
        check(&files, &[("net/ipv4/ip_forward", "0")], &[("net/ipv4/ip_forward", "1")]);
    }

    #[test]
    fn patterns_spare_keys_with_a_line_of_their_own() {
        let files = [
            ("/etc/sysctl.d/1.conf", "net.ipv4.conf.d0.rp_filter = 1\n-net.ipv4.conf.d0/5.rp_filter\n"),
            ("/etc/sysctl.d/2.conf", "net.ipv4.conf.*.rp_filter = 2\n"),
        ];
        let want = [("net/ipv4/conf/all/rp_filter", "2"), ("net/ipv4/conf/d0/rp_filter", "1")];
        check(&files, &want, &want);
    }

    #[test]
    fn later_patterns_win() {
        let files = [("/etc/sysctl.d/1.conf", "net.ipv4.conf.d*.rp_filter = 1\nnet.ipv4.conf.*.rp_filter = 2\n")];
        let want = [
            ("net/ipv4/conf/all/rp_filter", "2"),
            ("net/ipv4/conf/d0.5/rp_filter", "2"),
            ("net/ipv4/conf/d0/rp_filter", "2"),
        ];
        check(&files, &want, &want);
    }

    #[test]
    fn a_glued_line_sets_neither() {
        check(&[("/etc/sysctl.d/1.conf", "net.ipv4.conf.d0.rp_filter=1net.ipv4.ip_forward=0\n")], &[], &[]);
    }

    #[test]
    fn a_change_of_ip_forward_overwrites_others() {
        let file = [(
            "/etc/sysctl.d/1.conf",
            "net.ipv4.conf.all.accept_redirects=0\nnet.ipv4.conf.d0.forwarding=1\nnet.ipv4.conf.all.forwarding=0\n",
        )];
        let want = [
            ("net/ipv4/conf/all/accept_redirects", "1"),
            ("net/ipv4/conf/d0/forwarding", "0"),
            ("net/ipv4/ip_forward", "0"),
        ];
        check(&file, &want, &want);
    }

    #[test]
    fn unknown_keys_and_paths_that_lead_out_are_nothing() {
        check(
            &[("/etc/sysctl.d/1.conf", "a.b = 1\nnet/../../../etc/passwd = 1\nproc/sys/net/ipv4/ip_forward = 0\n")],
            &[],
            &[],
        );
    }
}
