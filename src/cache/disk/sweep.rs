//! Folders of sites that are gone, or have changed so that their pages would be other ones. They stay for an hour: the
//! change may be undone. Purges do not reach the pages in them, so a purge removes all such folders, and one that is used
//! again has its pages validated first.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The file that notes since when a folder is unused.
pub(super) const UNUSED: &str = "unused";
/// The time for which an unused folder stays.
const STAYS: Duration = Duration::from_secs(3600);

/// `true` for the name of a site's folder.
fn is_sites(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Removes the folders of former sites, if they have been unused for long enough, or `all`.
pub(super) fn sweep(root: &Path, kept: &[String], all: bool) {
    for folder in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let is_folder = folder.file_type().is_ok_and(|kind| kind.is_dir());
        let Some(name) = name.to_str().filter(|name| is_folder && is_sites(name)) else { continue };
        if kept.iter().any(|kept| kept == name) {
            continue;
        }
        let mark = folder.path().join(UNUSED);
        let since = fs::symlink_metadata(&mark).and_then(|mark| mark.modified());
        match since {
            // A time ahead of the clock counts as long ago.
            Ok(since) if !all && SystemTime::now().duration_since(since).is_ok_and(|unused| unused < STAYS) => {}
            Ok(_) => match fs::remove_dir_all(folder.path()) {
                Ok(()) => tracing::info!(folder = name, "the stored pages of a former site are removed"),
                Err(error) => tracing::warn!(folder = name, %error, "cannot remove the stored pages of a former site"),
            },
            // Another process may use it, and come back to it.
            Err(_) => _ = crate::os::plain_file::create(&mark, b"", 0o600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn folders_of_former_sites() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let (kept, former, other) = ("0".repeat(32), "f".repeat(32), "notes".to_owned());
        for name in [&kept, &former, &other] {
            fs::create_dir_all(at(name).join("00")).unwrap();
            fs::write(at(name).join("00/page"), "x").unwrap();
        }
        sweep(root.path(), std::slice::from_ref(&kept), false);
        sweep(root.path(), std::slice::from_ref(&kept), false);
        assert!(at(&former).join(UNUSED).exists() && at(&former).join("00/page").exists());
        let long_ago = SystemTime::now() - STAYS;
        File::open(at(&former).join(UNUSED)).unwrap().set_modified(long_ago).unwrap();
        sweep(root.path(), std::slice::from_ref(&kept), false);
        assert!(!at(&former).exists());
        fs::create_dir_all(at(&former).join("00")).unwrap();
        sweep(root.path(), std::slice::from_ref(&kept), true);
        assert!(at(&former).join(UNUSED).exists());
        sweep(root.path(), std::slice::from_ref(&kept), true);
        assert!(!at(&former).exists());
        assert!(at(&kept).join("00/page").exists() && !at(&kept).join(UNUSED).exists());
        assert!(at(&other).join("00/page").exists());
        sweep(&at("missing"), &[], true);
    }
}
