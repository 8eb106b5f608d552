//! The differences between two configurations: sites, and keys by their names. They tell an operator what a reload has
//! changed. Values are not shown, as some are secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, build, report};

/// The array of the sites, and the key whose first value names each of them.
const SITES: &str = "site";
const HOSTS: &str = "hosts";

/// The keys that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys of the whole process, as in `limits.idle`.
    pub keys: Vec<String>,
    /// Keys of the sites that exist before and after, as in `hsts.max_age`, by the site's first host.
    pub sites: BTreeMap<String, Vec<String>>,
}

/// A site that has changed.
pub struct Difference<'c> {
    /// The site now.
    pub now: &'c report::SiteReport,
    /// The site before; `None` if it is new.
    pub before: Option<&'c report::SiteReport>,
    /// Its files that have changed.
    pub files: Vec<&'c Path>,
}

impl Config {
    /// Returns the new and changed sites, and the names of removed ones.
    #[must_use]
    pub fn differences<'c>(&'c self, before: &'c Self) -> (Vec<Difference<'c>>, Vec<&'c str>) {
        let mut old = build::by_name(&before.entries);
        let mut different = Vec::new();
        for entry in &self.entries {
            let known = old.remove(entry.report.name());
            if known.is_none_or(|known| !Arc::ptr_eq(known, entry)) {
                let old: Vec<_> = known.into_iter().flat_map(|known| known.plan.files()).collect();
                let files = entry.plan.files().iter().filter(|file| !old.contains(file));
                different.push(Difference {
                    now: &entry.report,
                    before: known.map(|known| &known.report),
                    files: files.map(|(path, _)| path.as_path()).collect(),
                });
            }
        }
        let gone = before.sites().map(report::SiteReport::name).filter(|name| old.contains_key(name)).collect();
        (different, gone)
    }
}

impl Changes {
    /// The differences between two texts, as far as they are TOML.
    #[must_use]
    pub fn between(before: &Arc<str>, after: &Arc<str>) -> Self {
        let mut changes = Self::default();
        if before == after {
            return changes;
        }
        let ((before, _), (after, _)) = (DeTable::parse_recoverable(before), DeTable::parse_recoverable(after));
        let (before, after) = (before.get_ref(), after.get_ref());
        differing(before, after, "", &mut changes.keys);
        changes.keys.retain(|key| key != SITES);
        let old = sites(before);
        for (host, site) in sites(after) {
            let Some(known) = old.get(&host) else { continue };
            let mut keys = Vec::new();
            differing(known, site, "", &mut keys);
            if !keys.is_empty() {
                changes.sites.insert(host, keys);
            }
        }
        changes
    }
}

fn sites<'t>(root: &'t DeTable<'_>) -> BTreeMap<String, &'t DeTable<'t>> {
    let Some(DeValue::Array(sites)) = root.get(SITES).map(Spanned::get_ref) else { return BTreeMap::new() };
    let named = sites.iter().filter_map(|site| {
        let DeValue::Table(table) = site.get_ref() else { return None };
        let DeValue::Array(hosts) = table.get(HOSTS)?.get_ref() else { return None };
        match hosts.iter().next()?.get_ref() {
            DeValue::String(host) => Some((host.trim_end_matches('.').to_ascii_lowercase(), table)),
            _ => None,
        }
    });
    named.collect()
}

fn differing(before: &DeTable<'_>, after: &DeTable<'_>, prefix: &str, keys: &mut Vec<String>) {
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).map(|key| key.get_ref().as_ref()).collect();
    for name in names {
        let value = |table: &'_ DeTable<'_>| table.get(name).is_some();
        let empty = DeTable::new();
        let full = format!("{prefix}{name}");
        match (before.get(name).map(Spanned::get_ref), after.get(name).map(Spanned::get_ref)) {
            (Some(DeValue::Table(old)), Some(DeValue::Table(new))) => differing(old, new, &format!("{full}."), keys),
            (Some(DeValue::Table(old)), None) if !old.is_empty() => differing(old, &empty, &format!("{full}."), keys),
            (None, Some(DeValue::Table(new))) if !new.is_empty() => differing(&empty, new, &format!("{full}."), keys),
            (Some(old), Some(new)) if same(old, new) => {}
            _ if value(before) || value(after) => keys.push(full),
            _ => {}
        }
    }
}

fn same(one: &DeValue<'_>, other: &DeValue<'_>) -> bool {
    match (one, other) {
        (DeValue::String(a), DeValue::String(b)) => a == b,
        (DeValue::Integer(a), DeValue::Integer(b)) => a.to_string() == b.to_string(),
        (DeValue::Float(a), DeValue::Float(b)) => a.to_string() == b.to_string(),
        (DeValue::Boolean(a), DeValue::Boolean(b)) => a == b,
        (DeValue::Datetime(a), DeValue::Datetime(b)) => a == b,
        (DeValue::Array(a), DeValue::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a.get_ref(), b.get_ref()))
        }
        (DeValue::Table(a), DeValue::Table(b)) => {
            let mut keys = Vec::new();
            differing(a, b, "", &mut keys);
            keys.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_their_names() {
        const BEFORE: &str = "[limits]\nidle = \"75s\"\ndrain = 30\n[listen]\nhttp = [\"[::]:80\"]\n\
            [[site]]\nhosts = [\"a.example\"]\nupstream = \"http://one\"\n[site.hsts]\nmax_age = 5\n\
            [[site]]\nhosts = [\"b.example\", \"c.example\"]\n[[site.certificate]]\nchain = \"x\"\n";
        let check = |after: &str, keys: &[&str], sites: &[(&str, &[&str])]| {
            let changes = Changes::between(&BEFORE.into(), &after.into());
            assert_eq!(changes.keys, keys, "{after}");
            let of_sites: Vec<(&str, Vec<&str>)> =
                changes.sites.iter().map(|(s, k)| (s.as_str(), k.iter().map(String::as_str).collect())).collect();
            let wanted: Vec<(&str, Vec<&str>)> = sites.iter().map(|(s, k)| (*s, k.to_vec())).collect();
            assert_eq!(of_sites, wanted, "{after}");
        };
        check(BEFORE, &[], &[]);
        // Order, comments and spaces do not count.
        check(&BEFORE.replace("idle = \"75s\"\ndrain = 30", "# new\ndrain  =  30\nidle = \"75s\""), &[], &[]);
        check(&BEFORE.replace("75s", "70s").replace("[::]:80", "[::]:81"), &["limits.idle", "listen.http"], &[]);
        check(
            &BEFORE.replace("[listen]\nhttp = [\"[::]:80\"]\n", "[log]\naccess = \"off\"\n"),
            &["listen.http", "log.access"],
            &[],
        );
        check(
            &BEFORE.replace("max_age = 5", "max_age = 6\npreload = true"),
            &[],
            &[("a.example", &["hsts.max_age", "hsts.preload"])],
        );
        check(
            &BEFORE.replace("chain = \"x\"", "chain = \"y\"").replace("http://one", "http://two"),
            &[],
            &[("a.example", &["upstream"]), ("b.example", &["certificate"])],
        );
        check(&BEFORE.replace(", \"c.example\"", ""), &[], &[("b.example", &["hosts"])]);
        // New and removed sites are reported elsewhere.
        check(&BEFORE.replace("a.example", "z.example"), &[], &[]);
    }
}
