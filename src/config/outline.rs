//! The sites of a configuration and the files of their keys, as far as they are written down: for the commands that
//! make the very files that a complete configuration would need.

use std::path::PathBuf;

use super::Draft;
use super::file::SiteTable;
use super::problem::At;
use crate::host::HostPattern;

/// A configuration before anything that it names has been looked at.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What relative paths are taken from.
    pub folder: PathBuf,
    /// Where the state is kept, if it is.
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

impl Draft {
    /// The sites and their files, unless the file is no TOML. What is wrong with the keys in it is among the draft's
    /// problems all the same.
    #[must_use]
    pub fn outline(&self) -> Option<Outline> {
        let file = self.file.as_ref()?;
        let texts = |list: Option<&Vec<At<String>>>| list.into_iter().flatten().map(|at| at.value.clone()).collect();
        let site = |site: &SiteTable| SiteOutline {
            hosts: site.hosts.iter().flatten().filter_map(|host| HostPattern::parse(&host.value).ok()).collect(),
            certificates: site
                .certificates
                .iter()
                .filter_map(|c| Some((c.chain.as_ref()?.value.clone(), c.key.as_ref().map(|key| key.value.clone()))))
                .collect(),
            backups: texts(site.hpkp.as_ref().and_then(|hpkp| hpkp.backups.as_ref())),
        };
        let sites = file.sites.iter().map(site).filter(|site| !site.hosts.is_empty()).collect();
        Some(Outline { folder: self.folder.clone(), state_directory: self.state(), sites })
    }
}
