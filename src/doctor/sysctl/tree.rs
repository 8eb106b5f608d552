//! The files of sysctl settings, in the order of each program.

use std::collections::BTreeMap;

use super::line::Tool;
use crate::doctor::files::HostFiles;

/// The folders. A file hides files of the same name in later folders.
pub(super) const FOLDERS: [&str; 5] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];
/// The file that procps reads last, and systemd only through a link.
pub(super) const OLD_FILE: &str = "/etc/sysctl.conf";
/// The most files that are read.
const FILES_MAX: usize = 2000;

/// A file of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SettingsFile {
    /// Its path.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
}

impl SettingsFile {
    /// Returns `true` if its last line has no end: a line that a script appends would become a part of it.
    pub(super) fn lacks_newline(&self) -> bool {
        !self.text.is_empty() && !self.text.ends_with('\n')
    }
}

/// Returns `true` for a link to the old file, which procps reads by its own name, too.
pub(super) fn is_link_to_old_file(files: &HostFiles, path: &str) -> bool {
    path != OLD_FILE && files.are_one(path, OLD_FILE)
}

/// Returns the files that a program reads, in its order. Files that cannot be read are in the second list.
pub(super) fn files(files: &HostFiles, tool: Tool) -> (Vec<SettingsFile>, Vec<String>) {
    // BTreeMap sorts bytewise, as both programs do.
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for folder in FOLDERS {
        for name in files.names(folder) {
            let is_hidden = tool == Tool::Systemd && name.starts_with('.');
            let path = format!("{folder}/{name}");
            if name.ends_with(".conf") && !is_hidden && !files.is_folder(&path) {
                found.entry(name).or_insert(path);
            }
        }
    }
    let mut paths: Vec<String> = found.into_values().take(FILES_MAX).collect();
    if tool == Tool::Procps {
        paths.push(OLD_FILE.to_owned());
    }
    let (mut read, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        match files.read(&path) {
            Ok(text) => read.push(SettingsFile { path, text }),
            // A link that leads nowhere hides others, too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => unreadable.push(path),
        }
    }
    (read, unreadable)
}

/// Returns a name for a file of /etc/sysctl.d that both programs read after all other files of the folders.
pub(super) fn last_name(files: &HostFiles) -> String {
    const OWN: &str = "zz-pintle.conf";
    let is_open_end = |text: &str| text.is_empty() || text.ends_with('\n');
    let own = format!("/etc/sysctl.d/{OWN}");
    let may_append = files.link(&own).is_none() && files.text(&own).is_none_or(|text| is_open_end(&text));
    let all = FOLDERS.iter().flat_map(|folder| files.names(folder)).filter(|name| name.ends_with(".conf"));
    match all.max() {
        Some(last) if last.as_str() > OWN || (last == OWN && !may_append) => {
            format!("{}z.conf", last.trim_end_matches(".conf"))
        }
        _ => OWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::files::tests::tree;

    fn names(files: &HostFiles, tool: Tool) -> Vec<String> {
        super::files(files, tool).0.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn order_and_masks() {
        let (_folder, files) = tree(&[
            ("/usr/lib/sysctl.d/99-a.conf", "a"),
            ("/usr/lib/sysctl.d/10-x.conf", "a"),
            ("/usr/lib/sysctl.d/50-masked.conf", "a"),
            ("/etc/sysctl.d/50-masked.conf", "-> /dev/null"),
            ("/usr/lib/sysctl.d/60-dangling.conf", "a"),
            ("/run/sysctl.d/60-dangling.conf", "-> nowhere"),
            ("/etc/sysctl.d/99-Z.conf", "a"),
            ("/run/sysctl.d/9-x.conf", "a"),
            ("/etc/sysctl.d/99-sysctl.conf", "-> ../sysctl.conf"),
            ("/etc/sysctl.d/.90-a.conf", "a"),
            ("/etc/sysctl.d/README", "a"),
            ("/etc/sysctl.d/folder.conf/x", "a"),
            ("/etc/sysctl.conf", "a"),
        ]);
        let systemd = [
            "/usr/lib/sysctl.d/10-x.conf",
            "/etc/sysctl.d/50-masked.conf",
            "/run/sysctl.d/9-x.conf",
            "/etc/sysctl.d/99-Z.conf",
            "/usr/lib/sysctl.d/99-a.conf",
            "/etc/sysctl.d/99-sysctl.conf",
        ];
        assert_eq!(names(&files, Tool::Systemd), systemd);
        let procps: Vec<&str> = ["/etc/sysctl.d/.90-a.conf"].into_iter().chain(systemd).chain([OLD_FILE]).collect();
        assert_eq!(names(&files, Tool::Procps), procps);
    }

    #[test]
    fn a_name_after_all_others() {
        for (name, contents, want) in [
            ("99-x.conf", "a\n", "zz-pintle.conf"),
            ("zz-pintle.conf", "a = 1\n", "zz-pintle.conf"),
            ("zz-pintle.conf", "a = 1", "zz-pintlez.conf"),
            ("zz-pintle.conf", "-> /dev/null", "zz-pintlez.conf"),
            ("zzz.conf", "a = 1\n", "zzzz.conf"),
        ] {
            let (_folder, files) = tree(&[(&format!("/etc/sysctl.d/{name}"), contents)]);
            assert_eq!(last_name(&files), want);
            assert!(last_name(&files).as_str() >= name);
        }
        assert_eq!(last_name(&tree(&[]).1), "zz-pintle.conf");
    }
}
