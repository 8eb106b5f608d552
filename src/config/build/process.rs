//! `[process]` and `[sandbox]`: the user that serves, and its permissions; and the folder of the log.

use super::checker::Checker;
use crate::config::AccessTarget;
use crate::config::file::{ProcessTable, SandboxTable};
use crate::config::problem::At;
use crate::os::plain_file::folder_of;
use crate::os::sandbox::{SandboxSettings, Strength};
use crate::reason::shell_word;

const STRENGTHS: [(&str, Strength); 3] =
    [("auto", Strength::Auto), ("off", Strength::Off), ("require", Strength::Require)];

/// Checks the names alone. Only the serving system knows its users: see `commands::drop_privileges`.
pub(super) fn check(table: &ProcessTable, r: &mut Checker<'_>) {
    for (key, name) in [("process.user", &table.user), ("process.group", &table.group)] {
        if let Some(name) = name.as_ref().filter(|name| name.value.is_empty()) {
            r.error_with_hint(&name.span, format!("{key}: must not be empty"), "leave the key out, or name one");
        }
    }
    if let (None, Some(group)) = (&table.user, &table.group) {
        r.error_with_hint(&group.span, "process.group: has no effect without process.user", "user = \"pintle\"");
    }
}

pub(super) fn sandbox(table: &SandboxTable, r: &mut Checker<'_>) -> SandboxSettings {
    let landlock = r.choice("sandbox.landlock", table.landlock.as_ref(), &STRENGTHS, Strength::Auto);
    let seccomp = r.choice("sandbox.seccomp", table.seccomp.as_ref(), &STRENGTHS, Strength::Auto);
    let words = [("upstreams", false), ("any", true)];
    let connect_anywhere = r.choice("sandbox.connect", table.connect.as_ref(), &words, false);
    let mut connect_ports = Vec::new();
    for port in &table.connect_ports {
        match u16::try_from(port.value).ok().filter(|port| *port > 0) {
            Some(port) => connect_ports.push(port),
            None => r.error(&port.span, "sandbox.connect_ports: must be between 1 and 65,535"),
        }
    }
    let mut paths = |key: &str, list: &[At<String>]| {
        let mut paths = Vec::new();
        for path in list {
            let place = r.path(&path.value);
            if path.value.is_empty() || !place.exists() {
                r.warn(
                    &path.span,
                    format!("{key}: {}: no such file or folder", r.shown(&place)),
                    "make it before the start: the sandbox allows only what exists then",
                );
            }
            paths.push(place);
        }
        paths
    };
    let (read, write) = (paths("sandbox.read", &table.read), paths("sandbox.write", &table.write));
    SandboxSettings { landlock, seccomp, connect_anywhere, connect_ports, read, write }
}

/// Reports a missing folder of the log: it must exist before the sandbox does.
pub(super) fn check_access(written: Option<&At<String>>, access: &AccessTarget, r: &mut Checker<'_>) {
    let (Some(written), AccessTarget::File(path)) = (written, access) else { return };
    if path.is_dir() {
        r.error_with_hint(
            &written.span,
            format!("log.access: {}: this is a folder, not a file", r.shown(path)),
            format!("access = \"{}\"", r.shown(&path.join("access.log"))),
        );
        return;
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        r.error_with_hint(
            &written.span,
            format!("log.access: {}: no such folder", r.shown(folder)),
            format!("mkdir -p {}", shell_word(&r.shown(folder))),
        );
    }
}
