//! Files that cannot be read: what is wrong, and the remedy.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::string::FromUtf8Error;

use rustix::io::Errno;

use super::plain_file::{folder_of, tidy};
use super::words::words;
use super::{privileges, sandbox};
use crate::reason::near::nearest;
use crate::reason::{Reason, shell_path};

/// Names in a folder that are compared with that of a missing file.
const NAMES_MAX: usize = 1000;

/// The reason why a file of the command line cannot be read: `FILE: no such file`, with a hint.
#[must_use]
pub fn reason(path: &Path, error: &io::Error) -> Reason {
    Reason::new(format!("{}: {}", path.display(), describe(error))).hints(hints(path, error, "the working directory"))
}

/// The error without the number of the operating system.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".into(),
        io::ErrorKind::PermissionDenied => format!("not readable by the user {}", privileges::user()),
        io::ErrorKind::IsADirectory => "this is a folder, not a file".into(),
        io::ErrorKind::NotADirectory => "a part of its path is a file, not a folder".into(),
        io::ErrorKind::InvalidFilename => "the name is too long".into(),
        _ if has_nul(error) => "a path has no NUL byte".into(),
        io::ErrorKind::FileTooLarge if error.raw_os_error().is_none() && error.get_ref().is_none() => {
            "the file is too large".into()
        }
        io::ErrorKind::InvalidData if invalid_byte(error).is_some() => "the file is not UTF-8 text".into(),
        _ if is_loop(error) => "a symbolic link that leads back to itself".into(),
        _ => words(error),
    }
}

/// `true` for a path with a NUL byte, which the standard library refuses.
fn has_nul(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none() && error.get_ref().is_none()
}

fn is_loop(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// The position of the first byte that is not UTF-8, in an error about text.
fn invalid_byte(error: &io::Error) -> Option<usize> {
    let invalid = error.get_ref()?.downcast_ref::<FromUtf8Error>()?;
    Some(invalid.utf8_error().valid_up_to())
}

/// The remedies for a file that cannot be read. `base` names the folder in which relative paths begin.
#[must_use]
pub fn hints(path: &Path, error: &io::Error, base: &str) -> Vec<String> {
    match error.kind() {
        io::ErrorKind::NotFound => vec![where_to_look(path, base)],
        io::ErrorKind::PermissionDenied => vec![sandbox::hint(path).unwrap_or_else(|| privileges::hint(path))],
        io::ErrorKind::IsADirectory => vec!["name a file in it".to_owned()],
        io::ErrorKind::NotADirectory => vec![below_a_file(path)],
        io::ErrorKind::InvalidFilename => vec!["a name has at most 255 bytes: check the path".to_owned()],
        _ if has_nul(error) => vec!["remove it from the path".to_owned()],
        _ if is_loop(error) => vec![format!("replace the link by the file: rm {}", shell_path(path))],
        io::ErrorKind::InvalidData => invalid_byte(error).map(|at| convert(path, at)).into_iter().collect(),
        _ if fs::metadata(path).is_ok_and(|is| !is.is_file()) => vec!["name a regular file".to_owned()],
        _ => Vec::new(),
    }
}

/// The command that makes UTF-8 of a text in another encoding.
fn convert(path: &Path, at: usize) -> String {
    // A byte order mark, or the zero bytes of ASCII letters.
    let begin = fs::read(path).unwrap_or_default();
    let is_utf16 = begin.starts_with(&[0xff, 0xfe]) || begin.starts_with(&[0xfe, 0xff]);
    let (from, file) = (if is_utf16 { "UTF-16" } else { "ISO-8859-1" }, shell_path(path));
    format!(
        "byte {} is the first one that is not UTF-8; convert the file: iconv -f {from} -t UTF-8 {file} > NEW",
        at + 1
    )
}

/// The remedy for a path that leads through a file.
fn below_a_file(path: &Path) -> String {
    match path.ancestors().skip(1).find(|above| above.is_file()) {
        Some(file) => format!("check the path: {} is a file", tidy(file).display()),
        None => "check the path".to_owned(),
    }
}

/// Places where a missing file may be: in the file of a similar name, or below another folder.
fn where_to_look(path: &Path, base: &str) -> String {
    if let Ok(target) = fs::read_link(path) {
        let (link, target) = (tidy(path), target.display());
        return format!("mend the link: {} is a symbolic link to {target}, which does not exist", link.display());
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return format!("the folder {} does not exist either; {}", tidy(folder).display(), how_paths_begin(path, base));
    }
    let names = fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES_MAX);
    let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest_file(&name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {:?}?", tidy(&path.with_file_name(near))),
        None => how_paths_begin(path, base),
    }
}

/// Returns the most similar file name. The ending alone does not count: `no.pem` is not `my.pem`.
fn nearest_file<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let own = stem(name);
    nearest(name, known.filter(|&known| stem(known) == own || nearest(own, [stem(known)]).is_some()))
}

/// The name without its ending.
fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(OsStr::to_str).unwrap_or(name)
}

fn how_paths_begin(path: &Path, base: &str) -> String {
    if path.is_absolute() { "check the path".to_owned() } else { format!("relative paths begin in {base}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files() {
        let folder = tempfile::TempDir::new().unwrap();
        fs::write(folder.path().join("blog.pem"), "").unwrap();
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let check = |name: &str, hint: &str| {
            let reason = reason(&folder.path().join(name), &missing);
            assert!(reason.what.ends_with(": no such file"), "{reason}");
            assert!(reason.hints[0].contains(hint), "{:?}", reason.hints);
        };
        check("blog.pen", "blog.pem\"?");
        check("other.key", "check the path");
        check("certs/blog.pem", "certs does not exist either");
        // Its own name would be no remedy.
        std::os::unix::fs::symlink("gone.pem", folder.path().join("live.pem")).unwrap();
        check("live.pem", "live.pem is a symbolic link to gone.pem, which does not exist");
    }

    #[test]
    fn similar_names() {
        let check = |name: &str, known: &[&str], want: Option<&str>| {
            assert_eq!(nearest_file(name, known.iter().copied()), want, "{name}");
        };
        check("blog.pen", &["blog.pem", "blog.key"], Some("blog.pem"));
        check("blgo.key", &["blog.pem", "blog.key"], Some("blog.key"));
        check("next.cert", &["next.csr", "next.pub"], Some("next.csr"));
        check("no.pem", &["w2.pem", "no.md"], None);
        check("no.toml", &["t.toml"], None);
        check("hook", &["hooks"], Some("hooks"));
    }

    /// Each error that a path alone can cause, as the system reports it.
    #[test]
    fn paths_that_cannot_be() {
        let folder = tempfile::TempDir::new().unwrap();
        fs::write(folder.path().join("blog.pem"), "").unwrap();
        let check = |name: &str, what: &str, hint: &str| {
            let path = folder.path().join(name);
            let reason = reason(&path, &fs::read(&path).unwrap_err());
            assert!(reason.what.ends_with(what) && !reason.what.contains("os error"), "{reason}");
            assert!(reason.hints[0].contains(hint), "{:?}", reason.hints);
        };
        check("blog.pem/chain.pem", ": a part of its path is a file, not a folder", "blog.pem is a file");
        check("blog.pem/new/chain.pem", ": a part of its path is a file, not a folder", "blog.pem is a file");
        check(&"a".repeat(300), ": the name is too long", "255 bytes");
        check("a\0b", ": a path has no NUL byte", "remove it");
        check("", ": this is a folder, not a file", "name a file in it");
    }
}
