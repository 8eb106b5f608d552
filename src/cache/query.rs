//! The rules for parameters of the query: which are dropped, and whether they are sorted. The request to the origin has
//! the same query as the key.

use std::borrow::Cow;

/// The setting `site.cache.query`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// Names of parameters that are dropped; a `*` at the end matches any rest.
    pub drop: Vec<Box<str>>,
    /// Only these are kept.
    pub keep: Option<Vec<Box<str>>>,
    /// Parameters are sorted.
    pub sort: bool,
}

impl QueryRules {
    /// Returns the target with the query that these rules leave.
    ///
    /// A parameter that origins may read as several (`;`), or as the beginning of another query
    /// (`?`), stays as it is. So does one whose name is percent-encoded.
    #[must_use]
    pub fn apply<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        if self.drop.is_empty() && self.keep.is_none() && !self.sort {
            return Cow::Borrowed(target);
        }
        let Some(at) = target.iter().position(|b| *b == b'?') else { return Cow::Borrowed(target) };
        let (path, query) = (&target[..at], &target[at + 1..]);
        let all: Vec<&[u8]> = query.split(|b| *b == b'&').collect();
        let mut left: Vec<&[u8]> = all.iter().copied().filter(|parameter| !self.drops(parameter)).collect();
        if self.sort {
            // Parameters of one name keep their order: the last or the first one may count.
            left.sort_by(|a, b| name(a).cmp(name(b)));
        }
        if left == all {
            return Cow::Borrowed(target);
        }
        let mut rewritten = path.to_vec();
        if !left.is_empty() {
            rewritten.push(b'?');
            rewritten.extend_from_slice(&left.join(&b'&'));
        }
        Cow::Owned(rewritten)
    }

    fn drops(&self, parameter: &[u8]) -> bool {
        if parameter.iter().any(|b| matches!(b, b';' | b'?' | b'[' | b']')) {
            return false;
        }
        let name = name(parameter);
        if name.contains(&b'%') {
            return false;
        }
        let is_kept = |keep: &Vec<Box<str>>| keep.iter().any(|pattern| fits(pattern, name));
        self.drop.iter().any(|pattern| fits(pattern, name)) || self.keep.as_ref().is_some_and(|keep| !is_kept(keep))
    }
}

fn name(parameter: &[u8]) -> &[u8] {
    parameter.split(|b| *b == b'=').next().unwrap_or_default()
}

fn fits(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(drop: &[&str], keep: Option<&[&str]>, sort: bool) -> QueryRules {
        let boxed = |list: &[&str]| list.iter().map(|name| (*name).into()).collect();
        QueryRules { drop: boxed(drop), keep: keep.map(boxed), sort }
    }

    #[test]
    fn queries() {
        let utm = rules(&["utm_*", "fbclid"], None, false);
        let keep = rules(&[], Some(&["p", "page"]), false);
        let sort = rules(&[], None, true);
        for (rules, target, want) in [
            (&utm, "/a", "/a"),
            (&utm, "/a?", "/a?"),
            (&utm, "/a?a=1&utm_source=x", "/a?a=1"),
            (&utm, "/a?utm_source=x&a=1", "/a?a=1"),
            (&utm, "/a?utm_source=x", "/a"),
            (&utm, "/a?utm_source", "/a"),
            (&utm, "/a?fbclid=1&fbclid=2&b", "/a?b"),
            (&utm, "/a?fbclidx=1", "/a?fbclidx=1"),
            (&utm, "/a?UTM_SOURCE=1", "/a?UTM_SOURCE=1"),
            (&utm, "/a?a=1&&b=2&", "/a?a=1&&b=2&"),
            // What an origin may read in another way stays.
            (&utm, "/a?utm_content=x;callback=evil", "/a?utm_content=x;callback=evil"),
            (&utm, "/a?a=1?utm_source=2", "/a?a=1?utm_source=2"),
            (&utm, "/a?utm_source=2?b=1", "/a?utm_source=2?b=1"),
            (&utm, "/a?utm_x[]=1", "/a?utm_x[]=1"),
            (&utm, "/a?utm%5fsource=1", "/a?utm%5fsource=1"),
            (&utm, "/a?b=%26utm_source=1", "/a?b=%26utm_source=1"),
            (&keep, "/?p=5&x=1&page=2", "/?p=5&page=2"),
            (&keep, "/?x=1", "/"),
            (&keep, "/?x=1;p=2", "/?x=1;p=2"),
            (&sort, "/?b=1&a=2&c", "/?a=2&b=1&c"),
            (&sort, "/?b=2&a=1&b=1", "/?a=1&b=2&b=1"),
        ] {
            assert_eq!(rules.apply(target.as_bytes()), want.as_bytes(), "{target}");
        }
    }

    proptest::proptest! {
        /// Rules change nothing that they have written.
        #[test]
        fn rules_are_stable(query in "[a-cu=&;?%_\\[*]{0,30}", sort: bool) {
            let rules = rules(&["u*", "a"], None, sort);
            let target = format!("/x?{query}");
            let once = rules.apply(target.as_bytes()).into_owned();
            proptest::prop_assert_eq!(&*rules.apply(&once), &*once);
        }
    }
}
