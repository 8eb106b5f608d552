//! `[tls]`: versions, cipher suites and groups, and the profiles that have names.

use super::checker::{Checker, unknown};
use crate::config::file::TlsTable;
use crate::config::problem::At;
use crate::reason::Reason;
use crate::tls::offer::{GROUPS, KxGroup, SUITES, Suite, TlsOffer, Versions};

/// Mozilla's server side TLS recommendations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    Modern,
    Intermediate,
}

pub(super) fn build(table: &TlsTable, r: &mut Checker<'_>) -> TlsOffer {
    let words = [("modern", Some(Profile::Modern)), ("intermediate", Some(Profile::Intermediate))];
    let profile = r.choice("tls.profile", table.profile.as_ref(), &words, None);
    let versions = versions(table, profile, r);
    let mut offer = TlsOffer::usual(versions);
    if let Some(suites) =
        listed("tls.cipher_suites", table.cipher_suites.as_deref(), table, Suite::named, known_suites(), r)
    {
        for (at, suite) in &suites {
            if profile == Some(Profile::Modern) && !suite.tls13 {
                outside("tls.cipher_suites", at, "the profile \"modern\" has suites of TLS 1.3 only", r);
            }
        }
        offer.suites = suites.into_iter().map(|(_, suite)| suite).collect();
        let has = |tls13: bool| offer.suites.iter().any(|suite| suite.tls13 == tls13);
        for (is_offered, tls13, version, other) in
            [(versions.tls12, false, "1.2", "1.3"), (versions.tls13, true, "1.3", "1.2")]
        {
            if is_offered && !has(tls13) && !offer.suites.is_empty() {
                let first = SUITES.iter().find(|suite| suite.tls13 == tls13).map_or("", |suite| suite.names[0]);
                r.error_with_hint(
                    &span_of(table.cipher_suites.as_deref(), table),
                    format!("tls.cipher_suites: no suite of TLS {version}, which tls.versions offers"),
                    format!("add {first:?}, or versions = [\"{other}\"]"),
                );
            }
        }
    }
    if let Some(groups) = listed("tls.groups", table.groups.as_deref(), table, KxGroup::named, known_groups(), r) {
        for (at, group) in groups.iter().filter(|(_, group)| profile.is_some() && !group.is_usual()) {
            let why = format!("no profile has {:?}", group.names[0]);
            outside("tls.groups", at, &why, r);
        }
        offer.groups = groups.into_iter().map(|(_, group)| group).collect();
        if versions.tls12 && !offer.groups.is_empty() && offer.groups.iter().all(|group| group.tls13_only) {
            r.error_with_hint(
                &span_of(table.groups.as_deref(), table),
                "tls.groups: no group of TLS 1.2, which tls.versions offers",
                "add \"x25519\", or versions = [\"1.3\"]",
            );
        }
    }
    offer
}

pub(super) fn span_of(list: Option<&[At<String>]>, table: &TlsTable) -> std::ops::Range<usize> {
    list.and_then(<[_]>::first).map_or_else(|| table.span.clone(), |at| at.span.clone())
}

fn outside(key: &str, at: &At<String>, why: &str, r: &mut Checker<'_>) {
    r.error_with_hint(
        &at.span,
        format!("{key}: {:?} contradicts tls.profile: {why}", at.value),
        "remove it, or remove tls.profile",
    );
}

/// Finds the values of a list by their names, and reports unknown ones.
fn listed<T>(
    key: &str,
    list: Option<&[At<String>]>,
    table: &TlsTable,
    find: impl Fn(&str) -> Option<T>,
    (noun, known): (&str, Vec<&'static str>),
    r: &mut Checker<'_>,
) -> Option<Vec<(At<String>, T)>> {
    let list = list?;
    if list.is_empty() {
        r.error_with_hint(&table.span, format!("{key}: must not be empty"), "leave the key out for the defaults");
    }
    let mut found = Vec::new();
    for text in list {
        match find(&text.value) {
            Some(value) => found.push((text.clone(), value)),
            None => r.error(&text.span, unknown(key, noun, &text.value, known.iter().copied())),
        }
    }
    Some(found)
}

fn known_suites() -> (&'static str, Vec<&'static str>) {
    ("cipher suite", SUITES.iter().map(|suite| suite.names[0]).collect())
}

fn known_groups() -> (&'static str, Vec<&'static str>) {
    ("group", GROUPS.iter().map(|group| group.names[0]).collect())
}

fn versions(table: &TlsTable, profile: Option<Profile>, r: &mut Checker<'_>) -> Versions {
    let of_profile = Versions { tls12: profile != Some(Profile::Modern), tls13: true };
    let Some(list) = &table.versions else { return of_profile };
    let mut versions = Versions { tls12: false, tls13: false };
    for text in list {
        match text.value.as_str() {
            "1.2" if !of_profile.tls12 => r.error_with_hint(
                &text.span,
                "tls.versions: \"1.2\" contradicts tls.profile: \"modern\" is TLS 1.3 only",
                "profile = \"intermediate\", or versions = [\"1.3\"]",
            ),
            "1.2" => versions.tls12 = true,
            "1.3" => versions.tls13 = true,
            other => {
                let reason = match other {
                    "1.0" | "1.1" | "SSLv3" | "TLSv1" | "TLSv1.0" | "TLSv1.1" => {
                        Reason::new(format!("tls.versions: pintle does not serve {other:?}"))
                            .note("this version is broken (RFC 8996)")
                            .hint("versions = [\"1.2\", \"1.3\"]")
                    }
                    _ => unknown("tls.versions", "version", other, ["1.2", "1.3"].into_iter()),
                };
                r.error(&text.span, reason);
            }
        }
    }
    if !versions.tls12 && !versions.tls13 && list.is_empty() {
        r.error_with_hint(&table.span, "tls.versions: must not be empty", "versions = [\"1.2\", \"1.3\"]");
    }
    versions
}
