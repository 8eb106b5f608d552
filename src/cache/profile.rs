//! Facts about programs that make blogs: cookies of visitors who get pages of their own, and
//! paths that are never stored.

use super::freshness::TimeRules;

/// A program, or what all have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheProfile {
    /// Any request with a cookie gets its own answer.
    #[default]
    None,
    /// WordPress.
    WordPress,
    /// Ghost.
    Ghost,
    /// Files: cookies change nothing.
    Static,
}

/// Cookies of visitors who have logged in, commented, given a password or bought, by the beginnings
/// of their names. Sources: WordPress 6.8 (`wp-includes/default-constants.php`, `comment.php`,
/// `post.php`), WooCommerce 9 and Easy Digital Downloads (their documents on page caches).
const WORDPRESS_COOKIES: [&str; 13] = [
    "wordpress_logged_in_",
    "wordpress_sec_",
    "wordpress_no_cache",
    "wp-postpass_",
    "wp-saving-post",
    "comment_author_",
    "woocommerce_items_in_cart",
    "woocommerce_cart_hash",
    "wp_woocommerce_session_",
    "edd_items_in_cart",
    "edd_",
    "PHPSESSID",
    "wordpress_",
];
/// Cookies that begin like one of those, and say nothing about the visitor.
const WORDPRESS_IGNORED: [&str; 1] = ["wordpress_test_cookie"];
/// Cookies of Ghost: members, private blogs, the editor, previews of tiers (`ghost/core`).
const GHOST_COOKIES: [&str; 4] = ["ghost-members-ssr", "ghost-private", "ghost-admin-api-session", "ghost-access"];
/// Cookies of scripts in the page, by their names and by the beginnings of their names: origins do not read them. A
/// beginning ends where no other word can continue: Rails names its sessions after the program, as `_gazette_session`.
const SCRIPT_NAMES: [&str; 8] = ["_ga", "_gid", "_gat", "_gaexp", "_fbp", "_fbc", "_clck", "_clsk"];
const SCRIPTS: [&str; 8] = ["_ga_", "_gac_", "_gat_", "_gcl_", "_hj", "_pk_", "__utm", "wp-settings-"];

/// Paths of WordPress that are never stored, each a whole segment. WordPress may live in a folder, so these names count
/// below any folder.
const WORDPRESS_PLACES: [&str; 11] = [
    "/wp-admin",
    "/wp-login.php",
    "/wp-cron.php",
    "/xmlrpc.php",
    "/wp-comments-post.php",
    "/wp-signup.php",
    "/wp-activate.php",
    "/wp-trackback.php",
    "/wp-mail.php",
    "/wc-api",
    "/edd-api",
];
/// Beginnings of paths that are never stored, each a whole segment. Below a folder, they may be those of files of a plugin.
const WORDPRESS_PATHS: [&str; 3] = ["/cart", "/checkout", "/my-account"];
const WORDPRESS_PARAMETERS: [&str; 12] = [
    "preview",
    "preview_id",
    "preview_nonce",
    "customize_changeset_uuid",
    "replytocom",
    "unapproved",
    "moderation-hash",
    "wc-ajax",
    "add-to-cart",
    "doing_wp_cron",
    "_wpnonce",
    "rest_route",
];
const GHOST_PATHS: [&str; 8] =
    ["/ghost", "/members", "/p", "/r", "/unsubscribe", "/webmentions", "/private", "/.ghost"];
const GHOST_PARAMETERS: [&str; 4] = ["uuid", "token", "action", "gift"];

/// The meaning of a request's cookies for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookies {
    /// They say nothing about the visitor. They are not sent on if the answer may be stored.
    Ignored,
    /// The visitor gets an answer of their own.
    Personal,
}

impl CacheProfile {
    /// Judges the cookies of a request: the values of its Cookie fields.
    #[must_use]
    pub fn cookies<'a>(self, fields: impl Iterator<Item = &'a [u8]>) -> Cookies {
        let mut all = fields.flat_map(|value| value.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
        if all.all(|pair| pair.is_empty() || self.ignores(pair)) { Cookies::Ignored } else { Cookies::Personal }
    }

    fn ignores(self, pair: &[u8]) -> bool {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
        let begins = |list: &[&str]| list.iter().any(|beginning| name.starts_with(beginning.as_bytes()));
        if SCRIPT_NAMES.iter().any(|known| name == known.as_bytes()) {
            return true;
        }
        match self {
            Self::None => begins(&SCRIPTS),
            // A name that nobody knows may be a plugin's session.
            Self::WordPress => begins(&WORDPRESS_IGNORED) || (begins(&SCRIPTS) && !begins(&WORDPRESS_COOKIES)),
            Self::Ghost => begins(&SCRIPTS) && !begins(&GHOST_COOKIES),
            Self::Static => true,
        }
    }

    /// `true` if the target is never stored: an editor's, a log-in, a form, a preview.
    ///
    /// Both the target as it is and as an origin may read it count.
    #[must_use]
    pub fn bypasses(self, target: &[u8]) -> bool {
        let (paths, places, parameters): (&[&str], &[&str], &[&str]) = match self {
            Self::None | Self::Static => return false,
            Self::WordPress => (&WORDPRESS_PATHS, &WORDPRESS_PLACES, &WORDPRESS_PARAMETERS),
            Self::Ghost => (&GHOST_PATHS, &[], &GHOST_PARAMETERS),
        };
        let decoded = decoded(target);
        [target, &decoded].into_iter().any(|target| {
            let at = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
            let (path, query) = target.split_at(at);
            let path = plain(path);
            let is_path = paths.iter().any(|beginning| is_below(&path, beginning.as_bytes()));
            let mut folders = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[at..]);
            let is_place = folders.any(|rest| places.iter().any(|place| is_below(rest, place.as_bytes())));
            let mut names = query.split(|b| matches!(b, b'?' | b'&' | b';')).map(parameter);
            is_path || is_place || names.any(|name| parameters.iter().any(|known| name == known.as_bytes()))
        })
    }

    /// The times that suit the program, before what the operator says.
    #[must_use]
    pub fn times(self) -> TimeRules {
        let none = TimeRules::default();
        match self {
            Self::None => none,
            Self::WordPress => TimeRules { default_ttl: Some(600), negative: Some(10), ..none },
            Self::Ghost => TimeRules { default_ttl: Some(600), replaces_zero: true, negative: Some(10), ..none },
            Self::Static => TimeRules { heuristic_max: Some(3600), ..none },
        }
    }
}

fn parameter(text: &[u8]) -> &[u8] {
    text.split(|b| matches!(b, b'=' | b'[')).next().unwrap_or_default()
}

/// `true` for the path itself, or one below it: `/cart` and `/cart/x`, in any case, not `/cartoon`.
/// What follows a `;` belongs to a segment.
fn is_below(path: &[u8], beginning: &[u8]) -> bool {
    let Some((start, rest)) = path.split_at_checked(beginning.len()) else { return false };
    start.eq_ignore_ascii_case(beginning) && matches!(rest.first(), None | Some(b'/' | b';' | b'.' | b' ' | 0))
}

/// The path without empty segments and dots: `//a/./b/../c` is `/a/c`.
fn plain(path: &[u8]) -> Vec<u8> {
    let mut left: Vec<&[u8]> = Vec::new();
    for segment in path.split(|b| matches!(b, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => {
                left.pop();
            }
            segment => left.push(segment),
        }
    }
    let mut plain = vec![b'/'];
    plain.extend_from_slice(&left.join(&b'/'));
    plain
}

/// The bytes behind percent signs, twice: some origins decode again.
fn decoded(target: &[u8]) -> Vec<u8> {
    let once = |text: &[u8]| {
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        while let Some(b) = text.get(at) {
            let hex = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
            match hex.filter(|_| *b == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    at += 3;
                }
                None => {
                    out.push(*b);
                    at += 1;
                }
            }
        }
        out
    };
    once(&once(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(profile: CacheProfile, value: &str) -> Cookies {
        profile.cookies(std::iter::once(value.as_bytes()))
    }

    #[test]
    fn cookies_of_visitors() {
        use Cookies::{Ignored, Personal};
        for (value, none, wordpress, ghost) in [
            ("", Ignored, Ignored, Ignored),
            ("_ga=1; _gid=2", Ignored, Ignored, Ignored),
            ("_pk_id.1.abc=1", Ignored, Ignored, Ignored),
            ("theme=dark", Personal, Personal, Personal),
            ("wordpress_test_cookie=WP", Personal, Ignored, Personal),
            ("wp-settings-time-1=1", Ignored, Ignored, Ignored),
            ("wordpress_logged_in_0123=x", Personal, Personal, Personal),
            ("wordpress_0123=x", Personal, Personal, Personal),
            ("_ga=1; comment_author_email_0123=x", Personal, Personal, Personal),
            ("wp-postpass_0123=x", Personal, Personal, Personal),
            ("PHPSESSID=x", Personal, Personal, Personal),
            ("woocommerce_items_in_cart=1", Personal, Personal, Personal),
            ("ghost-members-ssr=x; ghost-members-ssr.sig=y", Personal, Personal, Personal),
            ("ghost-access-hmac=x", Personal, Personal, Personal),
            ("lonely", Personal, Personal, Personal),
            (";;", Ignored, Ignored, Ignored),
        ] {
            assert_eq!(cookies(CacheProfile::None, value), none, "{value}");
            assert_eq!(cookies(CacheProfile::WordPress, value), wordpress, "{value}");
            assert_eq!(cookies(CacheProfile::Ghost, value), ghost, "{value}");
            assert_eq!(cookies(CacheProfile::Static, value), Ignored, "{value}");
        }
        let lines = [&b"_ga=1"[..], b"wordpress_sec_1=x"];
        assert_eq!(CacheProfile::WordPress.cookies(lines.into_iter()), Personal);
    }

    #[test]
    fn targets_of_wordpress() {
        for target in [
            "/wp-admin",
            "/wp-admin/",
            "/wp-admin/admin-ajax.php?action=x",
            "/WP-Admin/",
            "//wp-admin/",
            "/./wp-admin/",
            "/x/../wp-admin/",
            "/wp-admin%2f",
            "/%77p-admin/",
            "/%2577p-admin/",
            "/wp-admin;x.css",
            "/wp-admin%3bx.css",
            "/wp-admin%00.css",
            "/static/..%2fwp-admin/",
            "/static/%2e%2e/wp-login.php",
            "\\wp-admin\\",
            "/wp-login.php",
            "/wp-login.php/x.css",
            "/blog/wp-login.php",
            "/blog/wp-admin/post.php?post=1",
            "/a/b/WP-admin",
            "/blog/x/../wp-admin/",
            "/blog%2fwp-admin/",
            "/2026/wp-admin",
            "/blog/wc-api/x",
            "/my-account/orders",
            "/?preview=true",
            "/?p=1&preview=true",
            "/?a=1;preview=true",
            "/?p=1&pre%76iew=true",
            "/a?unapproved=5&moderation-hash=x",
            "/?preview[]=1",
            "/%3fpreview=true",
        ] {
            assert!(CacheProfile::WordPress.bypasses(target.as_bytes()), "{target}");
        }
        for target in [
            "/",
            "/wp-administration",
            "/cartoon",
            "/blog/wp-administration/",
            "/blog/my-wp-admin/",
            "/wp-content/x.css",
            "/wp-content/plugins/shop/cart/checkout.js",
            "/?p=1",
            "/?s=preview",
            "/feed/",
            "/%",
        ] {
            assert!(!CacheProfile::WordPress.bypasses(target.as_bytes()), "{target}");
        }
    }

    #[test]
    fn targets_of_others() {
        for target in
            ["/ghost/", "/ghost/api/admin/", "/members/?token=x", "/p/0123/", "/r/x", "/?uuid=1", "/a/?token=x"]
        {
            assert!(CacheProfile::Ghost.bypasses(target.as_bytes()), "{target}");
        }
        for target in ["/", "/ghosts/", "/post/", "/a/?x=token", "/content/images/a.png"] {
            assert!(!CacheProfile::Ghost.bypasses(target.as_bytes()), "{target}");
        }
        assert!(!CacheProfile::Static.bypasses(b"/wp-admin/") && !CacheProfile::None.bypasses(b"/wp-admin/"));
    }
}
