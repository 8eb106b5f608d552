//! The files that a configuration names.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use super::checker::Checker;
use crate::config::problem::At;
use crate::config::stamp::Stamp;
use crate::keys::key_file::{FILE_MAX, certificates};
use crate::os::{plain_file, privileges, read_error};
use crate::reason::{Kind, Problem, Reason, shell_word};

/// The hint for a refused pair whose live key is in the key process only.
pub(super) const ONLY_IN_MEMORY: &str = "with tls.key_process, no copy has the live key: put its file back before a restart or \
                                         an upgrade, which would be refused";

/// The hint for a refused pair of a site that is without a certificate, as no copy has its live key.
pub(super) const IN_NO_COPY: &str =
    "with tls.key_process, no copy has the live key: put its file back, and restart pintle";

/// The permission bits of a file.
pub(super) fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|m| m.permissions().mode() & 0o7777)
}

/// The path, or the nearest one above it that exists.
pub(super) fn nearest_existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|at| at.symlink_metadata().is_ok())
}

/// The folder in which relative paths begin, in hints.
const BASE: &str = "the folder of the configuration file";

/// Returns the path of a program, and reports why it cannot be started.
pub(super) fn program(key: &str, at: &At<String>, r: &mut Checker<'_>) -> PathBuf {
    let path = r.path(&at.value);
    if is_empty(&path, r) {
        r.error_with_hint(&at.span, format!("{key}: must not be empty"), "name a program");
        return path;
    }
    let shown = r.shown(&path).to_string();
    match fs::metadata(&path) {
        Ok(is) if !is.is_file() => r.error_with_hint(&at.span, format!("{key}: {shown}: not a file"), "name a program"),
        Ok(is) if is.permissions().mode() & 0o111 == 0 => {
            let hint = format!("chmod +x {}", shell_word(&shown));
            r.error_with_hint(&at.span, format!("{key}: {shown}: not executable"), hint);
        }
        Ok(_) if access(&path, Access::EXEC_OK).is_err() => report_forbidden(key, at, &path, "execute", r),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            report_forbidden(key, at, &path, "look at", r);
        }
        Err(error) => {
            let reason = Reason::new(format!("{key}: {shown}: {}", read_error::describe(&error)));
            r.error(&at.span, reason.hints(read_error::hints(&path, &error, BASE)));
        }
    }
    path
}

/// `true` for the path of an empty value: the folder in which relative paths begin.
fn is_empty(path: &Path, r: &Checker<'_>) -> bool {
    path.as_os_str() == r.path("").as_os_str()
}

/// Reports a program that this user, who serves, may not run.
fn report_forbidden(key: &str, at: &At<String>, path: &Path, verb: &str, r: &mut Checker<'_>) {
    let what = format!("{key}: {}: the user {} may not {verb} it", r.shown(path), privileges::user());
    let reason = Reason::new(what).hint(privileges::hint_to_execute(path));
    r.report(Problem::error(&at.span, reason).about(path).of_kind(Kind::Unreadable));
}

/// Reads the root certificates of a file, in DER, or reports why there are none. The hint names `whose` they are.
pub(super) fn read_roots(key: &str, at: &At<String>, whose: &str, r: &mut Checker<'_>) -> Option<Vec<Vec<u8>>> {
    let path = r.path(&at.value);
    let contents = read(key, &path, &at.span, r)?;
    match certificates(&contents) {
        Ok(list) => Some(list.into_iter().map(|(_, certificate)| certificate.to_vec()).collect()),
        Err(why) => {
            let what = format!("{key}: {}: no certificates: {why}", r.shown(&path));
            r.error_with_hint(&at.span, what, format!("name a PEM file with {whose}"));
            None
        }
    }
}

/// Reads a file, or reports why it cannot be read. It may have a key, also if it is a chain's.
pub(super) fn read(key: &str, path: &Path, span: &Range<usize>, r: &mut Checker<'_>) -> Option<Zeroizing<Vec<u8>>> {
    read_as(Kind::Unreadable, key, path, span, r)
}

/// Does the same. A file that this user may not read is a problem of the given kind.
pub(super) fn read_as(
    unreadable: Kind,
    key: &str,
    path: &Path,
    span: &Range<usize>,
    r: &mut Checker<'_>,
) -> Option<Zeroizing<Vec<u8>>> {
    if let Some(contents) = r.instead.get(path) {
        r.stamps.push((path.to_owned(), Stamp::Given));
        return Some(contents.clone());
    }
    if is_empty(path, r) {
        r.error_with_hint(span, format!("{key}: must not be empty"), "name a file");
        return None;
    }
    // The stamp comes before the contents: a write in between then counts as a change.
    r.stamps.push((path.to_owned(), Stamp::of(path)));
    match plain_file::read_named(path, FILE_MAX) {
        Ok(contents) => Some(Zeroizing::new(contents)),
        Err(error) => {
            let what = format!("{key}: {}: {}", r.shown(path), read_error::describe(&error));
            let reason = Reason::new(what).hints(read_error::hints(path, &error, BASE));
            let kind = if error.kind() == io::ErrorKind::PermissionDenied { unreadable } else { Kind::Other };
            r.report(Problem::error(span, reason).about(path).of_kind(kind));
            None
        }
    }
}
