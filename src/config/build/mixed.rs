//! `[site.mixed_content]`.

use std::sync::Arc;

use super::checker::{Checker, unknown};
use crate::config::file::{MixedTable, SiteTable};
use crate::config::problem::At;
use crate::host::HostPattern;
use crate::mixed::HttpsNames;
use crate::mixed::media::RewriteTypes;
use crate::mixed::policy::{MixedContent, RewriteRules};

/// The tools, in the order in which an operator tries them.
const MODES: [&str; 3] = ["report", "upgrade", "rewrite"];
/// The bodies that are rewritten.
const TYPES: [&str; 4] = ["html", "css", "feeds", "json"];
/// Hosts that may be listed.
const HOSTS_MAX: usize = 100;

/// The tools of a site, as its text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MixedPlan {
    reports: bool,
    upgrades: bool,
    rewrites: Option<RewriteTypes>,
    listed: Vec<HostPattern>,
}

impl MixedPlan {
    /// Returns the words of its mode.
    pub(super) fn modes(&self) -> Vec<&'static str> {
        let used = [self.reports, self.upgrades, self.rewrites.is_some()];
        MODES.iter().zip(used).filter(|(_, is_used)| *is_used).map(|(mode, _)| *mode).collect()
    }

    /// Returns the tools as the site uses them: with the names that pintle serves by https, and those of the upstream.
    pub(super) fn content(&self, site: Vec<HostPattern>, upstream: Vec<(Box<str>, u16)>) -> MixedContent {
        let names = || Arc::new(HttpsNames { site, listed: self.listed.clone(), upstream });
        let rewrites = self.rewrites.map(|types| RewriteRules { names: names(), types });
        MixedContent::new(self.reports, self.upgrades, rewrites).expect("names and values are constant")
    }
}

/// Returns the tools of a site; `None` if it has none.
pub(super) fn build(table: &SiteTable, r: &mut Checker<'_>) -> Option<MixedPlan> {
    let mixed = table.mixed_content.as_deref()?;
    if !table.has_upstream {
        let hint = "set upstream, or remove [site.mixed_content]";
        r.warn(&mixed.span, "site.mixed_content: has no effect without upstream", hint);
        return None;
    }
    let modes = words("mode", mixed.mode.as_deref().unwrap_or_default(), &MODES, r);
    if mixed.mode.as_ref().is_none_or(Vec::is_empty) {
        let hint = "mode = \"report\" shows http references and changes nothing";
        r.error_with_hint(&mixed.span, "site.mixed_content: mode is missing", hint);
    }
    let has = |words: &[&str], word: &str| words.contains(&word);
    let rewrites = has(&modes, "rewrite");
    let types = match &mixed.types {
        Some(types) => words("types", types, &TYPES, r),
        None => vec!["html", "css", "feeds"],
    };
    if mixed.types.as_ref().is_some_and(Vec::is_empty) {
        r.error_with_hint(&mixed.span, "site.mixed_content.types: must not be empty", "types = [\"html\"]");
    }
    if !rewrites && mixed.mode.is_some() {
        for (key, is_given) in [("hosts", mixed.hosts.is_some()), ("types", mixed.types.is_some())] {
            if is_given {
                let what = format!("site.mixed_content.{key}: has no effect unless mode has \"rewrite\"");
                r.warn(&mixed.span, what, "mode = \"rewrite\"");
            }
        }
    }
    if rewrites && table.compression.is_none() {
        let what = "site.mixed_content: rewritten pages are sent without compression";
        r.warn(&mixed.span, what, "let pintle compress them: add [site.compression]");
    }
    let types = RewriteTypes {
        html: has(&types, "html"),
        css: has(&types, "css"),
        feeds: has(&types, "feeds"),
        json: has(&types, "json"),
    };
    Some(MixedPlan {
        reports: has(&modes, "report"),
        upgrades: has(&modes, "upgrade"),
        rewrites: rewrites.then_some(types),
        listed: listed(mixed, r),
    })
}

/// Returns the known words of a list.
fn words<'w>(key: &str, given: &[At<String>], known: &[&'w str], r: &mut Checker<'_>) -> Vec<&'w str> {
    let mut found = Vec::new();
    for word in given {
        match known.iter().find(|known| **known == word.value) {
            Some(known) if found.contains(known) => {
                r.error(&word.span, format!("site.mixed_content.{key}: duplicate value {:?}", word.value));
            }
            Some(known) => found.push(*known),
            None => {
                let key = format!("site.mixed_content.{key}");
                let noun = if key.ends_with("mode") { "mode" } else { "type" };
                r.error(&word.span, unknown(&key, noun, &word.value, known.iter().copied()));
            }
        }
    }
    found
}

/// Returns the listed hosts.
fn listed(mixed: &MixedTable, r: &mut Checker<'_>) -> Vec<HostPattern> {
    let given = mixed.hosts.as_deref().unwrap_or_default();
    if let Some(beyond) = given.get(HOSTS_MAX) {
        r.error(&beyond.span, format!("site.mixed_content.hosts: at most {HOSTS_MAX} hosts"));
    }
    let mut hosts = Vec::new();
    for host in given.iter().take(HOSTS_MAX) {
        match HostPattern::of_site(&host.value) {
            Ok(pattern) => hosts.push(pattern),
            Err(error) => {
                let message = format!("site.mixed_content.hosts: invalid host {:?}: {error}", host.value);
                r.error_with_hint(&host.span, message, "hosts = [\"example.wordpress.com\"]");
            }
        }
    }
    hosts
}
