//! Transparent huge pages: the kernel may stop a process to make one.

use super::finding::{CheckResults, Finding};
use super::host::Host;

const FOLDER: &str = "/sys/kernel/mm/transparent_hugepage";

/// Reports a kernel that makes huge pages for all programs, and lets a request for memory wait for them. The default
/// (`madvise` for defrag) is fine.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let chosen =
        |name: &str| host.files.text(&format!("{FOLDER}/{name}")).is_some_and(|text| text.contains("[always]"));
    if !chosen("enabled") || !chosen("defrag") {
        return CheckResults::default();
    }
    vec![
        Finding::warning(
            "memory.huge-pages",
            "defrag",
            "a request for memory may wait until the kernel has made a huge page",
        )
        .evidence(format!("{FOLDER}/enabled: always, {FOLDER}/defrag: always"))
        .remedy(
            "let only programs wait that ask for it, until the next boot",
            [format!("echo madvise > {FOLDER}/defrag")],
        )
        .remedy(
            "and at every boot",
            [format!("printf 'w {FOLDER}/defrag - - - - madvise\\n' > /etc/tmpfiles.d/huge-pages.conf")],
        ),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn only_both_together() {
        for (enabled, defrag, want) in [
            ("[always] madvise never", "always defer [madvise] never", 0),
            ("always [madvise] never", "[always] defer madvise never", 0),
            ("[always] madvise never", "[always] defer madvise never", 1),
        ] {
            let (_folder, files) =
                tree(&[(&format!("{FOLDER}/enabled"), enabled), (&format!("{FOLDER}/defrag"), defrag)]);
            assert_eq!(check(&Host::of_files(files)).findings.len(), want);
        }
    }
}
