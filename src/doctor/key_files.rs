//! The permissions of private keys.

use super::finding::{CheckResults, Finding};
use super::host::Host;
use crate::reason::shell_word;

/// Read or written by everybody, or written by a group.
const TOO_MUCH: u32 = 0o027;

/// Checks that nobody but the owner and a group reads private keys, and that only the owner changes them.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let wide = host.wanted.key_files.iter().filter_map(|path| {
        let mode = host.files.mode(path).filter(|mode| mode & TOO_MUCH != 0)?;
        let who = if mode & 0o007 != 0 { "everybody on this host" } else { "a whole group" };
        let does = if mode & 0o004 != 0 { "read" } else { "change" };
        Some(
            Finding::fault("keys.permissions", path, format!("{who} can {does} the private key {path}"))
                .evidence(format!("mode {mode:04o}"))
                .remedy("take the permission away", [format!("chmod g-w,o= {}", shell_word(path))])
                .advice("the key may have been read: consider changing over to the next key (`pintle key rotate`, docs/guide/rotating.md)"),
        )
    });
    wide.collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn modes() {
        for (mode, want) in [(0o600, 0), (0o640, 0), (0o400, 0), (0o644, 1), (0o660, 1), (0o602, 1)] {
            let (_folder, files) = tree(&[("/etc/a.key", "x")]);
            set_permissions(files.place("/etc/a.key"), Permissions::from_mode(mode)).unwrap();
            let mut host = Host::of_files(files);
            host.wanted.key_files = vec!["/etc/a.key".into(), "/etc/none.key".into()];
            assert_eq!(check(&host).findings.len(), want, "{mode:o}");
        }
    }
}
