//! Names the platform. A wrong name is worse than none.

use super::answer::{ProbeOutcome, SHOWN, UpstreamAnswer};
use super::document::feed_generator;
use super::evidence::Evidence;
use super::platform::Platform;
use super::signs::{OTHER_JOURNALS, OTHER_MAKERS, OWN_SERVERS, PlatformSign, SIGNS, Test, Value, Weight};
use super::text::{begins, clean, contains};
use crate::host::{is_below, is_within};
use crate::message::Name;
use crate::verify::target::Url;

/// A sign that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSign {
    /// Its platform.
    pub platform: Platform,
    /// Its strength as evidence.
    pub weight: Weight,
    /// The sign in words; plain ASCII.
    pub words: String,
}

/// The platform, and the reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlatformVerdict {
    /// The platform. `None` if the signs are too few or contradict each other.
    pub platform: Option<Platform>,
    /// The signs of the platform, or all signs without one.
    pub signs: Vec<SeenSign>,
    /// The reason why there is no platform.
    pub doubt: Option<String>,
}

/// Names the platform of a blog.
#[must_use]
pub fn identify(evidence: &Evidence) -> PlatformVerdict {
    if let Some(refusal) = refusal(evidence) {
        return PlatformVerdict { doubt: Some(refusal), ..PlatformVerdict::default() };
    }
    let seen: Vec<SeenSign> = SIGNS.iter().filter_map(|sign| see(sign, evidence)).collect();
    let is_moved = is_made_by_others(evidence);
    for is_software in [false, true] {
        for weight in [Weight::Strong, Weight::Weak] {
            let named = |platform: &Platform| {
                let has = |of: Weight| seen.iter().filter(|s| s.platform == *platform && s.weight == of).count();
                let weak = has(Weight::Weak);
                match weight {
                    Weight::Strong => has(Weight::Strong) > 0,
                    _ => !is_moved && weak > 0 && weak + has(Weight::Backing) > 1,
                }
            };
            let platforms = Platform::all().filter(|p| p.is_software() == is_software);
            match platforms.filter(named).collect::<Vec<_>>()[..] {
                [] => {}
                [platform] => {
                    let signs = seen.into_iter().filter(|sign| sign.platform == platform).collect();
                    return PlatformVerdict { platform: Some(platform), signs, doubt: None };
                }
                [one, other, ..] => {
                    let doubt = format!("the answers have signs of {} and of {}", one.name(), other.name());
                    return PlatformVerdict { platform: None, signs: seen, doubt: Some(doubt) };
                }
            }
        }
    }
    PlatformVerdict { platform: None, signs: seen, doubt: None }
}

/// A guard in front of the blog: its pages are not the blog's.
fn refusal(evidence: &Evidence) -> Option<String> {
    let first = evidence.secure.answer().or_else(|| evidence.plain.answer())?;
    first.is_refusal().then(|| format!("the server answers {} and does not show the blog", first.words()))
}

fn is_made_by_others(evidence: &Evidence) -> bool {
    let mut generators = evidence.of_blog().flat_map(|answer| &answer.page.generators);
    generators.any(|generator| OTHER_MAKERS.iter().any(|maker| begins(generator, maker.as_bytes())))
}

/// Looks for a sign.
fn see(sign: &PlatformSign, evidence: &Evidence) -> Option<SeenSign> {
    if is_vetoed(sign, evidence) {
        return None;
    }
    let words = match sign.test {
        Test::Below(domains) => {
            let host = &evidence.url.host;
            let domain = domains.iter().find(|domain| is_below(host, domain));
            domain.map(|domain| format!("the name is below {domain}"))
        }
        Test::Foreign(text) => {
            let body = evidence.foreign.answer().filter(|a| a.url.host != evidence.url.host)?.body();
            has_text(body, text).then(|| format!("{text:?} in the answer to a foreign Host"))
        }
        Test::Robots(line) => {
            let body = page_of(&evidence.robots)?.body();
            let mut lines = body.split(|b| *b == b'\n');
            lines.any(|l| begins(l.trim_ascii(), line.as_bytes())).then(|| format!("`{line}` in robots.txt"))
        }
        Test::Feed(text) => {
            let generator = feed_generator(page_of(&evidence.feed)?.body())?;
            let shown = || format!("the feed's generator `{}`", clean(generator.trim_ascii(), SHOWN));
            contains(generator, text.as_bytes()).then(shown)
        }
        _ => evidence.of_blog().find_map(|answer| in_answer(&sign.test, answer, evidence)),
    };
    words.map(|words| SeenSign { platform: sign.platform, weight: sign.weight, words })
}

/// Pages write an apostrophe as it is, as an entity, or as a typographic one.
fn has_text(body: &[u8], text: &str) -> bool {
    ["'", "&#39;", "&#039;", "&rsquo;", "\u{2019}"]
        .iter()
        .any(|apostrophe| contains(body, text.replace('\'', apostrophe).as_bytes()))
}

fn page_of(look: &ProbeOutcome) -> Option<&UpstreamAnswer> {
    look.answer().filter(|answer| answer.is_page())
}

fn in_answer(test: &Test, answer: &UpstreamAnswer, evidence: &Evidence) -> Option<String> {
    // A page of errors may be anybody's.
    let page = &answer.page;
    let has_page = answer.is_page();
    match *test {
        Test::Field(name, value) => {
            let found = answer.response.values_of(name).find(|v| is(value, v.trim_ascii()))?;
            Some(format!("`{name}: {}`", clean(found.trim_ascii(), SHOWN)))
        }
        Test::Cookie(name) => {
            let cookies = answer.response.values(Name::SetCookie);
            let is_it = |c: &&[u8]| c.split(|b| *b == b'=').next().is_some_and(|n| n.trim_ascii() == name.as_bytes());
            cookies.iter().any(is_it).then(|| format!("the cookie `{name}`"))
        }
        Test::Generator(begin) if has_page => {
            let found = page.generators.iter().find(|g| begins(g, begin.as_bytes()))?;
            Some(format!("the generator `{}`", clean(found, SHOWN)))
        }
        Test::Html(name, value) if has_page => {
            let mut attributes = page.html.iter();
            attributes.any(|(n, v)| n == name.as_bytes() && is(value, v)).then(|| format!("`<html {name}>`"))
        }
        Test::Rel(rel) if has_page => {
            page.links.iter().any(|(r, ..)| r == rel.as_bytes()).then(|| format!("`<link rel=\"{rel}\">`"))
        }
        Test::DataGhost if has_page => page.ghost.then(|| "an attribute `data-ghost`".into()),
        Test::Path(part) if has_page => {
            let urls = page.references.iter().filter_map(|r| joined(answer, r));
            let mut own = urls.filter(|url| is_of_blog(url, answer, evidence));
            own.any(|url| is_program_path(&url.target, part)).then(|| format!("`{part}` in paths of the page"))
        }
        Test::Asset(domain) if has_page => {
            let mut urls = page.references.iter().filter_map(|r| joined(answer, r));
            let is_asset = |url: Url| is_within(&url.host, domain) && !is_within(&answer.url.host, domain);
            urls.any(is_asset).then(|| format!("files from {domain}"))
        }
        _ => None,
    }
}

/// A reference of the page as a URL.
fn joined(answer: &UpstreamAnswer, reference: &[u8]) -> Option<Url> {
    answer.url.join(std::str::from_utf8(reference).ok()?)
}

/// Pictures of other blogs say nothing about this one.
fn is_of_blog(url: &Url, answer: &UpstreamAnswer, evidence: &Evidence) -> bool {
    let is_target = |a: &UpstreamAnswer| a.redirect().is_some_and(|to| to.host == url.host);
    let is_canonical = |own: &Vec<u8>| joined(answer, own).is_some_and(|own| own.host == url.host);
    url.host == evidence.url.host
        || evidence.is_public(&url.host)
        || evidence.own().any(is_target)
        || answer.page.own.iter().any(is_canonical)
}

/// Uploads survive a move to other software; themes and plugins do not.
fn is_program_path(target: &str, part: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.find(part).is_some_and(|at| !path[at + part.len()..].starts_with("uploads/"))
}

fn is(value: Value, found: &[u8]) -> bool {
    match value {
        Value::Any => !found.is_empty(),
        Value::Is(text) => found.eq_ignore_ascii_case(text.as_bytes()),
        Value::Contains(text) => contains(found, text.as_bytes()),
        Value::Hex => found.len() >= 16 && found.iter().all(u8::is_ascii_hexdigit),
        Value::Place => {
            let digits = found.iter().take_while(|b| b.is_ascii_digit()).count();
            let rest = &found[digits..];
            digits > 0
                && rest.first() == Some(&b'.')
                && rest.get(1..4).is_some_and(|p| p.is_ascii())
                && rest[1..4].iter().all(u8::is_ascii_lowercase)
        }
    }
}

/// A strong sign that others show, too, in some circumstances.
fn is_vetoed(sign: &PlatformSign, evidence: &Evidence) -> bool {
    let server = |name: &str| {
        let mut servers = evidence.of_blog().flat_map(|a| a.response.values_of("server"));
        servers.any(|value| begins(value, name.as_bytes()))
    };
    match (sign.platform, sign.test) {
        (Platform::Webflow, Test::Html(..)) => OWN_SERVERS.iter().any(|name| server(name)),
        (Platform::Dreamwidth, Test::Cookie(_)) => OTHER_JOURNALS.iter().any(|journal| {
            is_within(&evidence.url.host, journal) || evidence.of_blog().any(|a| contains(a.body(), journal.as_bytes()))
        }),
        // GitHub itself.
        (Platform::GitHubPages, Test::Field(..)) => {
            let cookies =
                |a: &UpstreamAnswer| a.response.values(Name::SetCookie).iter().any(|c| begins(c, b"_gh_sess="));
            evidence.url.host == "github.com" || evidence.of_blog().any(cookies)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(fields: &[(&str, &str)], body: &str) -> Option<&'static str> {
        let mut evidence = Evidence::new("https://own.example/".parse().unwrap());
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        evidence.secure = ProbeOutcome::sample("https://own.example/", 200, &fields, body);
        identify(&evidence).platform.map(Platform::id)
    }

    #[test]
    fn one_strong_sign_or_two_weak_ones() {
        const GHOST: &str = "<meta name=generator content='Ghost 5.82'>";
        const WORDPRESS: &str = "<meta name=generator content='WordPress 6.5'>";
        const THEME: &str = "<link rel=stylesheet href=/wp-content/themes/x/style.css>";
        assert_eq!(named(&[("Host-Header", "WordPress.com")], ""), Some("wordpress.com"));
        assert_eq!(named(&[("x-ac", "3.fra _dca")], ""), None);
        assert_eq!(
            named(&[("x-ac", "3.fra _dca"), ("x-hacker", "see automattic.com/jobs")], ""),
            Some("wordpress.com")
        );
        assert_eq!(
            named(&[("host-header", "a9130478a60e5f9135f765b23f26593b"), ("x-rq", "fra1")], ""),
            Some("wordpress-vip")
        );
        assert_eq!(
            named(&[("server", "cloudflare"), ("cf-ray", "8a"), ("x-github-request-id", "A:B")], ""),
            Some("github-pages")
        );
        assert_eq!(named(&[], GHOST), None);
        assert_eq!(named(&[("x-powered-by", "Express")], GHOST), Some("ghost"));
        assert_eq!(named(&[("x-powered-by", "Express"), ("server", "openresty")], ""), None);
        assert_eq!(named(&[("ghost-fastly", "true;production")], GHOST), Some("ghost-pro"));
        assert_eq!(named(&[], &format!("{WORDPRESS}{THEME}")), Some("wordpress"));
        assert_eq!(named(&[], WORDPRESS), None);
        assert_eq!(named(&[], THEME), None);
        assert_eq!(named(&[("server", "GSE")], "<meta name=generator content=blogger>"), Some("blogger"));
        assert_eq!(named(&[("server", "GSE")], ""), None);
    }

    #[test]
    fn neighbours_that_are_something_else() {
        const MOVED: &str = "<meta name=generator content='Hugo 0.120'><meta name=generator content='WordPress 5.0'>\
             <img src=/wp-content/themes/x/a.png>";
        assert_eq!(named(&[], MOVED), None);
        const UPLOADS: &str = "<meta name=generator content='WordPress 5.0'><img src=/wp-content/uploads/a.png>";
        assert_eq!(named(&[], UPLOADS), None);
        const FOREIGN_PICTURES: &str =
            "<meta name=generator content='WordPress 5.0'><img src=https://other.example/wp-content/themes/a.png>";
        assert_eq!(named(&[], FOREIGN_PICTURES), None);
        const QUOTED: &str =
            "<p>Put it below <code>/wp-content/themes/</code>, says hatenablog, data-wf-site, Ghost 5.</p>";
        assert_eq!(named(&[], QUOTED), None);
        // The host of a static export is not the software that made it.
        assert_eq!(
            named(&[("server", "Netlify")], "<html data-ghost><meta name=generator content='Ghost 5'>"),
            Some("netlify")
        );
        // Two hosts contradict each other.
        assert_eq!(named(&[("server", "Netlify"), ("x-vercel-id", "fra1::x")], ""), None);
        assert_eq!(named(&[("server", "nginx")], "<html data-wf-site=5f>"), None);
        assert_eq!(named(&[("server", "cloudflare")], "<html data-wf-site=5f>"), Some("webflow"));
        assert_eq!(named(&[("set-cookie", "ljuniq=x; path=/")], ""), Some("dreamwidth"));
        assert_eq!(named(&[("set-cookie", "ljuniq=x; path=/")], "<script src=//l-stat.livejournal.net/a.js>"), None);
        assert_eq!(named(&[("x-pingback", "https://own.example/action/xmlrpc")], THEMELESS), None);
    }

    const THEMELESS: &str = "<meta name=generator content='Typecho 1.2'>";

    #[test]
    fn refusals_say_nothing() {
        for (status, field) in
            [(403, "host-header: WordPress.com"), (429, "x-tumblr-user: a"), (503, "server: Netlify")]
        {
            let mut evidence = Evidence::new("https://own.example/".parse().unwrap());
            evidence.secure = ProbeOutcome::sample("https://own.example/", status, &[field], "");
            let verdict = identify(&evidence);
            assert_eq!((verdict.platform, verdict.doubt.is_some()), (None, true), "{status}");
        }
        let mut evidence = Evidence::new("https://own.example/".parse().unwrap());
        evidence.secure =
            ProbeOutcome::sample("https://own.example/", 200, &["cf-mitigated: challenge", "server: Netlify"], "");
        assert_eq!(identify(&evidence).platform, None);
    }

    #[test]
    fn every_sign_belongs_to_a_platform_that_can_be_named() {
        for platform in Platform::all() {
            let of = |weight| SIGNS.iter().filter(|s| s.platform == platform && s.weight == weight).count();
            assert!(of(Weight::Strong) > 0 || of(Weight::Weak) + of(Weight::Backing) > 1, "{platform:?}");
        }
    }
}
