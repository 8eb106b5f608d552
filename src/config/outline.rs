//! The sites of a configuration and the files of their keys, as written: for the commands that make the files that a
//! complete configuration needs.

use std::path::PathBuf;

use super::Draft;
use super::file::SiteTable;
use super::problem::At;
use crate::host::{HostMap, HostPattern};

/// A configuration, before any file that it names is read.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The folder in which relative paths begin.
    pub folder: PathBuf,
    /// The folder of the state, if there is one.
    pub state_directory: Option<PathBuf>,
    /// The sites that have a name, in the order of the file.
    pub sites: Vec<SiteOutline>,
    /// From name to site; of two sites with the same name, the first.
    by_host: HostMap<usize>,
}

/// One `[[site]]`, with paths as written.
#[derive(Debug, Clone)]
pub struct SiteOutline {
    /// Its valid names.
    pub hosts: Vec<HostPattern>,
    /// The chains, and their keys.
    pub certificates: Vec<(String, Option<String>)>,
    /// The next keys of certificates that pintle obtains, and the backups of `[site.hpkp]`.
    pub backups: Vec<String>,
    /// The number of next keys among them, which come first.
    pub own_next: usize,
    /// The chains of certificates that come from elsewhere.
    pub given_chains: Vec<String>,
    /// `true` if the site has `[site.hpkp]`.
    pub has_hpkp: bool,
}

impl Outline {
    /// The site of a host. An exact name wins over a wildcard, as for requests.
    #[must_use]
    pub fn site(&self, host: &str) -> Option<&SiteOutline> {
        let wanted = HostPattern::parse(host).ok()?;
        let at = self.by_host.get_pattern(&wanted).or_else(|| self.by_host.get(wanted.exact()?))?;
        self.sites.get(*at)
    }

    /// The path that a text of the file means.
    #[must_use]
    pub fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }
}

impl SiteOutline {
    /// `true` if pintle obtains all its certificates.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.own_next > 0 && self.given_chains.is_empty()
    }

    /// The backups of `[site.hpkp]`.
    #[must_use]
    pub fn given_backups(&self) -> &[String] {
        self.backups.get(self.own_next..).unwrap_or_default()
    }

    /// Its name in messages: the first one.
    #[must_use]
    pub fn label(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }
}

impl Draft {
    /// The sites and their files; `None` if the file is not TOML. Wrong keys are among the draft's problems all the same.
    #[must_use]
    pub fn outline(&self) -> Option<Outline> {
        let file = self.file.as_ref()?;
        let texts = |list: Option<&Vec<At<String>>>| -> Vec<String> {
            list.into_iter().flatten().map(|at| at.value.clone()).collect()
        };
        let site = |site: &SiteTable| SiteOutline {
            hosts: site.hosts.iter().flatten().filter_map(|host| HostPattern::parse(&host.value).ok()).collect(),
            certificates: site
                .certificates
                .iter()
                .filter_map(|c| Some((c.chain.as_ref()?.value.clone(), c.key.as_ref().map(|key| key.value.clone()))))
                .collect(),
            own_next: site.own_next.len(),
            given_chains: site
                .certificates
                .iter()
                .filter(|c| c.managed.is_none())
                .filter_map(|c| Some(c.chain.as_ref()?.value.clone()))
                .collect(),
            has_hpkp: site.hpkp.is_some(),
            backups: [Some(&site.own_next), site.hpkp.as_ref().and_then(|hpkp| hpkp.backups.as_ref())]
                .into_iter()
                .flat_map(texts)
                .collect(),
        };
        let sites: Vec<_> = file.sites.iter().map(site).filter(|site| !site.hosts.is_empty()).collect();
        let mut by_host = HostMap::default();
        // The last one that is inserted stays.
        for (at, site) in sites.iter().enumerate().rev() {
            for host in &site.hosts {
                by_host.insert(host, at);
            }
        }
        Some(Outline { folder: self.folder.clone(), state_directory: self.state(), sites, by_host })
    }
}
