//! The people who are logged in to WordPress, as far as it has shown that it knows them. Anybody can send a cookie with the
//! right name.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most people that are remembered.
const EDITORS_MAX: usize = 4096;
/// The beginning of the cookie's name.
const COOKIE: &[u8] = b"wordpress_logged_in_";
/// The shortest value of a cookie that logs somebody in, in bytes. One that logs them out has a short one.
const VALUE_LEAST: usize = 64;

/// The cookies that WordPress knows, as hashes.
#[derive(Debug, Default)]
pub struct KnownEditors {
    hasher: RandomState,
    known: Mutex<HashSet<u64>>,
}

impl KnownEditors {
    fn known(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns the cookies of a request that WordPress has answered as it answers people who are logged in.
    pub fn learn<'a>(&self, cookies: impl Iterator<Item = &'a [u8]>) {
        pairs(cookies).for_each(|pair| self.note(pair));
    }

    /// Learns the cookie that a Set-Cookie field gives to somebody who logs in.
    pub fn learn_new(&self, set_cookie: &[u8]) {
        let pair = set_cookie.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if pair.starts_with(COOKIE) && pair.len() >= COOKIE.len() + VALUE_LEAST {
            self.note(pair);
        }
    }

    fn note(&self, pair: &[u8]) {
        let hash = self.hasher.hash_one(pair);
        let mut known = self.known();
        if known.len() >= EDITORS_MAX && !known.contains(&hash) {
            known.clear();
        }
        known.insert(hash);
    }

    /// `true` if one of the cookies of a request is known.
    pub fn knows<'a>(&self, cookies: impl Iterator<Item = &'a [u8]>) -> bool {
        pairs(cookies).any(|pair| self.known().contains(&self.hasher.hash_one(pair)))
    }
}

/// The cookies of people who are logged in, among the values of Cookie fields.
fn pairs<'a>(cookies: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let all = cookies.flat_map(|list| list.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
    all.filter(|pair| pair.starts_with(COOKIE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies() {
        let editors = KnownEditors::default();
        let knows = |cookies: &str| editors.knows(std::iter::once(cookies.as_bytes()));
        let value = "v".repeat(VALUE_LEAST);
        editors.learn_new(format!("wordpress_logged_in_a={value}; path=/; HttpOnly").as_bytes());
        assert!(knows(&format!("_ga=1; wordpress_logged_in_a={value}")));
        assert!(!knows(&format!("wordpress_logged_in_a={value}v")) && !knows(&format!("other={value}")));
        editors.learn_new(b"wordpress_logged_in_a=%20; Max-Age=0");
        assert!(!knows("wordpress_logged_in_a=%20"));
        editors.learn(std::iter::once(&b"theme=x; wordpress_logged_in_b=1"[..]));
        assert!(knows("wordpress_logged_in_b=1") && !knows("theme=x"));
        for n in 0..2 * EDITORS_MAX {
            editors.note(&n.to_be_bytes());
        }
        assert!(editors.known().len() <= EDITORS_MAX);
    }
}
