//! Remedies for settings: commands that work in both programs.

use super::line::key_of;
use super::plan::{LinePlace, Write, one_name};
use super::tree::{OLD_FILE, last_name};
use crate::doctor::files::HostFiles;
use crate::reason::shell_word;

/// Returns the commands that make a value survive the next apply: a later file with this value and a final newline.
/// `writes` are those of procps.
pub(super) fn keep(files: &HostFiles, writes: &[Write], path: &str, value: &str) -> Vec<String> {
    let mut commands = Vec::new();
    if !files.is_folder("/etc/sysctl.d") {
        commands.push("mkdir -p /etc/sysctl.d".to_owned());
    }
    let line = format!("{} = {}", key_of(path), words(value));
    let file = format!("/etc/sysctl.d/{}", last_name(files));
    commands.push(format!("printf '%s\\n' {} >> {}", shell_word(&line), shell_word(&file)));
    // procps reads the old file after all others.
    let is_old = |write: &&Write| write.place.file == OLD_FILE && one_name(&write.path) == one_name(path);
    let old = writes.iter().filter(is_old);
    commands.extend(old.map(|write| comment_out(files, &write.place)));
    commands.dedup();
    commands
}

/// Returns the command that sets the running value.
pub(super) fn set_now(path: &str, value: &str) -> String {
    format!("sysctl -w {}", shell_word(&format!("{}={}", key_of(path), words(value))))
}

/// Returns the command that makes a line a comment.
pub(super) fn comment_out(files: &HostFiles, place: &LinePlace) -> String {
    edit(files, &format!("'{}s/^/# /'", place.line), &place.file)
}

/// Returns the command that breaks a line after some characters.
pub(super) fn break_line(files: &HostFiles, place: &LinePlace, after: usize) -> String {
    edit(files, &format!("'{}s/^.\\{{{after}\\}}/&\\n/'", place.line), &place.file)
}

/// Returns the command that replaces a line.
pub(super) fn replace_line(files: &HostFiles, place: &LinePlace, line: &str) -> String {
    let escaped: String = line.chars().flat_map(|c| if "\\|&".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
    edit(files, &shell_word(&format!("{}s|.*|{escaped}|", place.line)), &place.file)
}

/// Returns the command that ends the last line of a file.
pub(super) fn end_last_line(files: &HostFiles, file: &str) -> String {
    edit(files, "-e '$a\\'", file)
}

/// Returns the command that edits a file. sed would put a file in the place of a link.
fn edit(files: &HostFiles, script: &str, file: &str) -> String {
    let follows = if files.link(file).is_some() { " --follow-symlinks" } else { "" };
    format!("sed -i{follows} {script} {}", shell_word(file))
}

/// A value with single spaces.
pub(super) fn words(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}
