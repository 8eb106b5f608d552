//! The sites of a configuration and the files of their keys, as far as they are written down: for the commands that
//! make the very files that a complete configuration would need.

use std::io;
use std::path::{Path, PathBuf};

use super::problem::{At, Problems};
use crate::host::HostPattern;

/// A configuration before anything that it names has been looked at.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What relative paths are taken from.
    pub folder: PathBuf,
    /// `state.directory`, if the file names it.
    pub state_directory: Option<PathBuf>,
    /// The sites that have a name, in the order of the file.
    pub sites: Vec<SiteOutline>,
}

/// One `[[site]]`. Paths stand here as in the file.
#[derive(Debug, Clone)]
pub struct SiteOutline {
    /// Its names, without those that are none.
    pub hosts: Vec<HostPattern>,
    /// The chains, and their keys.
    pub certificates: Vec<(String, Option<String>)>,
    /// The backups of `[site.hpkp]`.
    pub backups: Vec<String>,
}

impl Outline {
    /// The site that a host belongs to: an exact name wins over a wildcard, as when it is served.
    #[must_use]
    pub fn site(&self, host: &str) -> Option<&SiteOutline> {
        let wanted = HostPattern::parse(host).ok()?;
        let has = |test: &dyn Fn(&HostPattern) -> bool| self.sites.iter().find(|s| s.hosts.iter().any(test));
        has(&|pattern| *pattern == wanted).or_else(|| wanted.exact().and_then(|name| has(&|p| p.matches(name))))
    }

    /// A path of the file's.
    #[must_use]
    pub fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }
}

impl SiteOutline {
    /// How messages call it: its first name.
    #[must_use]
    pub fn label(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }
}

/// Reads a file without looking at what it names. The outline is there unless the file is no TOML; what is wrong with
/// the keys in it is among the problems all the same.
///
/// # Errors
///
/// When the file itself cannot be read.
pub fn outline(path: &Path) -> io::Result<(Option<Outline>, Problems)> {
    let (file, problems) = super::parse(path, super::read(path)?);
    let folder = super::folder_of(path);
    let texts = |list: Option<Vec<At<String>>>| list.into_iter().flatten().map(|at| at.value).collect::<Vec<_>>();
    let outline = file.map(|file| Outline {
        folder: folder.to_owned(),
        state_directory: file.state_directory.map(|at| folder.join(at.value)),
        sites: file
            .sites
            .into_iter()
            .map(|site| SiteOutline {
                hosts: texts(site.hosts).iter().filter_map(|host| HostPattern::parse(host).ok()).collect(),
                certificates: site
                    .certificates
                    .into_iter()
                    .filter_map(|c| Some((c.chain?.value, c.key.map(|key| key.value))))
                    .collect(),
                backups: texts(site.hpkp.and_then(|hpkp| hpkp.backups)),
            })
            .filter(|site| !site.hosts.is_empty())
            .collect(),
    });
    Ok((outline, problems))
}
