//! Files that cannot be read: what is wrong, and the remedy.

use std::fs;
use std::io;
use std::path::Path;

use super::plain_file::{folder_of, tidy};
use super::{privileges, sandbox};
use crate::reason::Reason;
use crate::reason::near::nearest;

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
        io::ErrorKind::FileTooLarge if error.raw_os_error().is_none() && error.get_ref().is_none() => {
            "the file is too large".into()
        }
        _ => error.to_string(),
    }
}

/// The remedies for a file that cannot be read. `base` names the folder in which relative paths begin.
#[must_use]
pub fn hints(path: &Path, error: &io::Error, base: &str) -> Vec<String> {
    match error.kind() {
        io::ErrorKind::NotFound => vec![where_to_look(path, base)],
        io::ErrorKind::PermissionDenied => vec![sandbox::hint(path).unwrap_or_else(|| privileges::hint(path))],
        io::ErrorKind::IsADirectory => vec!["name a file in it".to_owned()],
        _ => Vec::new(),
    }
}

/// Places where a missing file may be: in the file of a similar name, or below another folder.
fn where_to_look(path: &Path, base: &str) -> String {
    let folder = folder_of(path);
    if !folder.is_dir() {
        return format!("the folder {} does not exist either; {}", tidy(folder).display(), how_paths_begin(path, base));
    }
    let names = fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES_MAX);
    let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {:?}?", tidy(&path.with_file_name(near))),
        None => how_paths_begin(path, base),
    }
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
    }
}
