//! Overrides of the service that undo its hardening.

use std::collections::BTreeMap;

use super::finding::{CheckResults, Finding};
use super::host::Host;
use crate::reason::shell_word;

/// The folders of units, the strongest first.
const FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];
const UNIT: &str = "pintle.service";
/// Switches of the unit that are on.
const SWITCHES: [&str; 16] = [
    "NoNewPrivileges",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateIPC",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "LockPersonality",
    "MemoryDenyWriteExecute",
];
/// The least number of open files: below, the limits of connections shrink.
const FILES_LEAST: u64 = 65_536;

/// Checks the overrides of the service.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    // A file hides those of the same name in later folders.
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for folder in FOLDERS {
        let below = format!("{folder}/{UNIT}.d");
        for name in host.files.names(&below).into_iter().filter(|name| name.ends_with(".conf")) {
            files.entry(name.clone()).or_insert_with(|| format!("{below}/{name}"));
        }
    }
    let mut paths: Vec<String> = files.into_values().collect();
    // A whole unit of the operator's own, in the place of ours.
    let own = format!("{}/{UNIT}", FOLDERS[0]);
    if host.files.is_there(&own) {
        paths.insert(0, own);
    }
    let mut results = CheckResults::default();
    for path in paths {
        match host.files.read(&path) {
            Ok(text) => results.findings.extend(of_file(&path, &text)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                results.needs(format!("permission to read {path}"));
            }
            Err(_) => {}
        }
    }
    results
}

fn of_file(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['#', ';'])) else { continue };
        let Some(why) = weakens(key.trim(), value.trim()) else { continue };
        let number = at + 1;
        found.push(
            Finding::warning("systemd.weakened", format!("{path}:{number}"), format!("{path}:{number}: {why}"))
                .evidence(line)
                .remedy(
                    "make the line a comment, and restart",
                    [
                        format!("sed -i '{number}s/^/# /' {}", shell_word(path)),
                        "systemctl daemon-reload".to_owned(),
                        "systemctl restart pintle".to_owned(),
                    ],
                ),
        );
    }
    found
}

/// Returns the effect of a line that undoes a protection.
fn weakens(key: &str, value: &str) -> Option<String> {
    let is_off = ["no", "n", "false", "f", "off", "0", ""].contains(&value.to_ascii_lowercase().as_str());
    let words = || value.split_whitespace();
    match key {
        _ if SWITCHES.contains(&key) && is_off => Some(format!("{key} is off")),
        "ProtectSystem" if value != "strict" => Some("the service can write to the system's files".to_owned()),
        "ProtectHome" if value.eq_ignore_ascii_case("read-only") => {
            Some("the service can read home folders".to_owned())
        }
        "User" if ["root", "0", ""].contains(&value) => Some("the service starts as root".to_owned()),
        "SystemCallFilter" if value.is_empty() => Some("every system call is permitted".to_owned()),
        "SystemCallArchitectures" if value.is_empty() => {
            Some("system calls of other architectures are permitted".to_owned())
        }
        "RestrictAddressFamilies" if is_off => Some("every kind of socket is permitted".to_owned()),
        "DevicePolicy" if value == "auto" => Some("every device can be opened".to_owned()),
        "UMask" if u32::from_str_radix(value, 8).is_ok_and(|mask| mask & 0o007 != 0o007) => {
            Some("new files are readable by others".to_owned())
        }
        "CapabilityBoundingSet" | "AmbientCapabilities" => {
            let more = value.starts_with('~') || words().any(|word| word != "CAP_NET_BIND_SERVICE");
            more.then(|| format!("{key} gives the service more than CAP_NET_BIND_SERVICE"))
        }
        "LimitNOFILE" => {
            let least = value.split(':').next_back()?.parse::<u64>().ok()?;
            (least < FILES_LEAST).then(|| format!("{least} open files are few: the limits of connections shrink"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn lines_that_undo_a_protection() {
        let dropin = format!("/etc/systemd/system/{UNIT}.d/x.conf");
        for (line, want) in [
            ("NoNewPrivileges=no", 1),
            ("NoNewPrivileges=N", 1),
            ("NoNewPrivileges=yes", 0),
            ("# NoNewPrivileges=no", 0),
            ("ProtectSystem=full", 1),
            ("ProtectSystem=strict", 0),
            ("User=root", 1),
            ("User=www-data", 0),
            ("SystemCallFilter=", 1),
            ("SystemCallFilter=@system-service", 0),
            ("CapabilityBoundingSet=~", 1),
            ("CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SYS_ADMIN", 1),
            ("AmbientCapabilities=", 0),
            ("AmbientCapabilities=CAP_NET_BIND_SERVICE", 0),
            ("LimitNOFILE=1024", 1),
            ("LimitNOFILE=1024:524288", 0),
            ("UMask=0022", 1),
            ("UMask=0", 1),
            ("MemoryDenyWriteExecute = false", 1),
            ("ReadWritePaths=-/var/log/pintle", 0),
        ] {
            let (_folder, files) = tree(&[(&dropin, &format!("[Service]\n{line}\n"))]);
            assert_eq!(check(&Host::of_files(files)).findings.len(), want, "{line}");
        }
    }

    #[test]
    fn our_own_unit_is_sound() {
        let unit = include_str!("../../dist/systemd/pintle.service");
        let package = include_str!("../../dist/deb/package.conf");
        let own = format!("/etc/systemd/system/{UNIT}");
        let below = format!("/usr/lib/systemd/system/{UNIT}.d/10-package.conf");
        assert_eq!(check(&Host::of_files(tree(&[(&own, unit), (&below, package)]).1)), CheckResults::default());
        // A file of the operator's hides ours.
        let masked = format!("/etc/systemd/system/{UNIT}.d/10-package.conf");
        let (_folder, files) = tree(&[(&below, "User=root"), (&masked, "-> /dev/null")]);
        assert_eq!(check(&Host::of_files(files)).findings.len(), 0);
    }
}
