//! Configurations, and what an operator changes about them. Each site has ages of its own: the last digit of a max-age
//! says whose policy it is.

use std::fmt::Write as _;
use std::path::Path;

use crate::model::random::Random;

use super::keys::{BACKUPS, KEYS, Keys, RSA_FROM, SITES};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    None,
    Enforce,
    ReportOnly,
    Withdraw,
}

const AGES: [u64; 5] = [60, 3600, 86_400, 864_000, 2_592_000];
const FIRST: [&str; SITES] = ["a.example", "shop.a.example", "b.example"];

#[derive(Debug, Clone)]
pub struct Site {
    pub is_there: bool,
    pub has_www: bool,
    pub has_wildcard: bool,
    pub is_canonical: bool,
    pub mode: Mode,
    pub age: u64,
    pub include_subdomains: bool,
    pub binds_with_keys: bool,
    pub has_ramp: bool,
    /// Keys that are backups, as bits.
    pub backups: u8,
    pub hsts: bool,
    pub has_rsa: bool,
}

#[derive(Debug, Clone)]
pub struct Tables {
    pub sites: [Site; SITES],
    pub default_site: Option<usize>,
    /// The site that has a name below the first one's wildcard for itself.
    pub below_wildcard: Option<usize>,
    /// The second site has names that the others do not have.
    pub takes_over: bool,
}

impl Tables {
    pub fn any(random: &mut Random) -> Self {
        let mut site = |is_there| Site {
            is_there,
            has_www: random.once_in(2),
            has_wildcard: random.once_in(3),
            is_canonical: random.once_in(6),
            mode: if random.once_in(5) { Mode::None } else { Mode::Enforce },
            age: *random.pick(&AGES),
            include_subdomains: false,
            binds_with_keys: random.once_in(3),
            has_ramp: random.once_in(8),
            backups: {
                let own = if random.once_in(3) { 0b11_0110 } else { 0b10_0010 };
                own | u8::from(random.once_in(6)) << KEYS | u8::from(random.once_in(6)) << (KEYS + 1)
            },
            hsts: random.once_in(2),
            has_rsa: random.once_in(4),
        };
        let sites = [site(true), site(true), site(false)];
        let default_site = random.once_in(5).then_some(0);
        let below_wildcard = random.once_in(4).then_some(1);
        Self { sites, default_site, below_wildcard, takes_over: random.once_in(8) }
    }

    /// One thing is another.
    pub fn edit(&mut self, random: &mut Random) -> &'static str {
        let at = random.index(SITES);
        if random.once_in(12) {
            self.default_site = if self.default_site.is_some() { None } else { Some(random.index(2)) };
            return "default_site";
        }
        match random.below(10) {
            0 => {
                self.below_wildcard = *random.pick(&[None, Some(1), Some(2)]);
                return "name below a wildcard";
            }
            1 => {
                self.takes_over = !self.takes_over;
                return "names of another site";
            }
            _ => {}
        }
        let site = &mut self.sites[at];
        match random.below(11) {
            0 => {
                // One site stays.
                site.is_there = !site.is_there || at == 0;
                "site"
            }
            1 => {
                site.has_www = !site.has_www;
                "hosts"
            }
            2 => {
                site.has_wildcard = !site.has_wildcard;
                "wildcard"
            }
            3 => {
                site.is_canonical = !site.is_canonical;
                "canonical"
            }
            4 => {
                site.mode = *random.pick(&[Mode::Enforce, Mode::None, Mode::ReportOnly, Mode::Withdraw, Mode::Enforce]);
                "mode"
            }
            5 => {
                site.age = *random.pick(&AGES);
                "max_age"
            }
            6 => {
                site.include_subdomains = !site.include_subdomains;
                "include_subdomains"
            }
            7 => {
                site.has_ramp = !site.has_ramp;
                "ramp"
            }
            8 => {
                site.backups ^= 1 << random.index(BACKUPS);
                "backups"
            }
            9 => {
                site.hsts = !site.hsts;
                "hsts"
            }
            _ => {
                site.has_rsa = !site.has_rsa;
                "pair"
            }
        }
    }

    pub fn hosts(&self, site: usize) -> Vec<&'static str> {
        let mut hosts = vec![FIRST[site]];
        if site == 0 && self.sites[0].has_www {
            hosts.push("www.a.example");
        }
        if site == 0 && self.sites[0].has_wildcard {
            hosts.push("*.x.a.example");
        }
        if site == 1 && self.takes_over {
            hosts.extend((!self.sites[0].has_www).then_some("www.a.example"));
            hosts.extend((!self.sites[2].is_there).then_some("b.example"));
        }
        if self.below_wildcard == Some(site) {
            hosts.push("q.x.a.example");
        }
        hosts
    }

    /// The site that has a name, if any has: for itself, or by its wildcard.
    pub fn owner(&self, name: &str) -> Option<usize> {
        let sites = || (0..SITES).filter(|site| self.sites[*site].is_there);
        let above = name.split_once('.').map(|(_, above)| above);
        let covers = |host: &&str| host.strip_prefix("*.").is_some_and(|base| above == Some(base));
        let by_itself = sites().find(|site| self.hosts(*site).contains(&name));
        by_itself.or_else(|| sites().find(|site| self.hosts(*site).iter().any(&covers)))
    }

    pub fn label(site: usize) -> &'static str {
        FIRST[site]
    }

    /// The file.
    pub fn toml(&self, keys: &Keys, folder: &Path, upstream: &str) -> String {
        let state = folder.join("state");
        let mut text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n[state]\ndirectory = {state:?}\n\
             [sandbox]\nconnect = \"any\"\nwrite = [{:?}]\n[limits]\ndrain = \"1s\"\n",
            std::env::temp_dir()
        );
        if let Some(site) = self.default_site.filter(|site| self.sites[*site].is_there) {
            let _ = write!(text, "[tls]\nunknown_name = \"default\"\ndefault_site = {:?}\n", FIRST[site]);
        }
        for (at, site) in self.sites.iter().enumerate().filter(|(_, site)| site.is_there) {
            let _ = write!(text, "[[site]]\nhosts = {:?}\nupstream = {upstream:?}\n", self.hosts(at));
            if site.is_canonical {
                text += "canonical_redirect = true\n";
            }
            for kind in ["e", "r"].into_iter().take(1 + usize::from(site.has_rsa)) {
                let (chain, key) = (chain_path(folder, at, kind), key_path(folder, at, kind));
                let _ = write!(text, "[[site.certificate]]\nchain = {chain:?}\nkey = {key:?}\n");
            }
            let age = |age: u64| age + at as u64;
            if site.hsts {
                let _ = write!(text, "[site.hsts]\nmax_age = \"{}\"\n", age(86_400));
            }
            if site.mode == Mode::None {
                continue;
            }
            // A parent that binds its child has the child's keys as backups.
            let of_child = (0..KEYS).filter(|_| at == 0 && site.binds_with_keys).map(|key| keys.backup(1, key));
            let own = (0..BACKUPS).filter(|key| site.backups & 1 << key != 0).map(|key| keys.backup(at, key));
            let backups: Vec<_> = own.chain(of_child).collect();
            let mode = match site.mode {
                Mode::ReportOnly => "report-only",
                Mode::Withdraw => "withdraw",
                Mode::None | Mode::Enforce => "enforce",
            };
            let _ = write!(text, "[site.hpkp]\nmode = \"{mode}\"\nbackups = {backups:?}\n");
            if site.mode != Mode::Withdraw {
                let _ = writeln!(text, "max_age = \"{}\"", age(site.age));
            }
            if site.include_subdomains {
                text += "include_subdomains = true\n";
            }
            if site.has_ramp && site.mode == Mode::Enforce {
                let _ = write!(text, "ramp = [\"{}s\"]\nramp_every = \"1h\"\n", age(10));
            }
        }
        text
    }

    /// `true` if a site has this name.
    pub fn serves(&self, name: &str) -> bool {
        self.owner(name).is_some()
    }

    /// The key slots that a site has: the first key of each kind.
    pub fn kinds(&self, site: usize) -> &'static [(&'static str, usize)] {
        if self.sites[site].has_rsa { &[("e", 0), ("r", RSA_FROM)] } else { &[("e", 0)] }
    }
}

pub fn chain_path(folder: &Path, site: usize, kind: &str) -> std::path::PathBuf {
    folder.join(format!("site-{site}-{kind}.pem"))
}

pub fn key_path(folder: &Path, site: usize, kind: &str) -> std::path::PathBuf {
    folder.join(format!("site-{site}-{kind}.key"))
}
