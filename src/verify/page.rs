//! Mixed content: the resources that an https page fetches without TLS (W3C Mixed Content; HTML
//! Living Standard).
//!
//! Browsers block such scripts, styles and frames, and request such pictures and sound by https,
//! even if they do not exist there. Links are not subresources: they may lead anywhere.

use std::collections::BTreeMap;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{HtmlString, Spanned, StartTag, Token, Tokenizer};

use super::finding::excerpt;
use super::style::references;

/// The most references that are reported one by one.
const SHOWN_MAX: usize = 100;
/// The most characters of a URL that are shown.
const URL_SHOWN: usize = 160;

/// The reaction of browsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrowserReaction {
    /// Browsers block it: scripts, styles, frames, objects.
    Active,
    /// Browsers request it by https instead: pictures, sound, films.
    Passive,
    /// Browsers warn before they send the form.
    Form,
}

/// A reference that leads away from TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insecure {
    /// The reaction of browsers.
    pub kind: BrowserReaction,
    /// The element and its attribute, such as `img src`.
    pub element: String,
    /// The URL as written in the page, shortened.
    pub url: String,
    /// The line in the page, from 1.
    pub line: usize,
}

/// The findings about a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageFindings {
    /// The first insecure references.
    pub insecure: Vec<Insecure>,
    /// The number of insecure references.
    pub count: usize,
    /// `true` if a `meta` element has browsers upgrade them (`upgrade-insecure-requests`).
    pub upgraded: bool,
}

/// Returns `true` if a Content-Security-Policy has browsers use https for every http reference of
/// the page (W3C Upgrade Insecure Requests, section 3).
#[must_use]
pub fn upgrades(policy: &[u8]) -> bool {
    let mut directives = policy.split(|b| matches!(b, b';' | b','));
    directives.any(|d| d.trim_ascii().eq_ignore_ascii_case(b"upgrade-insecure-requests"))
}

/// Scans a page for insecure references.
#[must_use]
pub fn scan(html: &[u8]) -> PageFindings {
    let mut scanner = Scanner { html, ..Scanner::default() };
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    // The contents of script, style, title and the like are text.
    emitter.naively_switch_states(true);
    // The contents of a template are inert until a script uses them.
    let mut templates = 0usize;
    let mut style: Option<(usize, Vec<u8>)> = None;
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) if tag.name.as_slice() == b"template" => templates += 1,
            Token::EndTag(tag) if tag.name.as_slice() == b"template" => templates = templates.saturating_sub(1),
            Token::StartTag(tag) if templates == 0 => {
                style = (tag.name.as_slice() == b"style").then(|| (tag.span.start, Vec::new()));
                scanner.element(&tag);
            }
            Token::String(text) => {
                if let Some((_, css)) = &mut style {
                    css.extend_from_slice(&text);
                }
            }
            Token::EndTag(_) => scanner.sheet(style.take()),
            _ => {}
        }
    }
    scanner.sheet(style);
    scanner.page
}

#[derive(Default)]
struct Scanner<'a> {
    html: &'a [u8],
    page: PageFindings,
    /// `true` if a `base` element makes relative references lead to http.
    base_is_http: bool,
    has_base: bool,
    /// The place up to which lines are counted, and their number.
    counted: (usize, usize),
}

type Attributes = BTreeMap<HtmlString, Spanned<HtmlString, usize>>;

fn attribute<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a [u8]> {
    attributes.get(name.as_bytes()).map(|value| value.as_slice())
}

impl Scanner<'_> {
    fn element(&mut self, tag: &StartTag<usize>) {
        let name = String::from_utf8_lossy(&tag.name).into_owned();
        let at = tag.span.start;
        let get = |attribute_name: &str| attribute(&tag.attributes, attribute_name);
        if let Some(style) = get("style") {
            self.style(&format!("{name} style"), style, at);
        }
        // Obsolete, and still supported.
        if let Some(url) = get("background") {
            self.reference(BrowserReaction::Passive, &name, "background", url, at);
        }
        for (kind, attribute) in subresources(&name) {
            if let Some(url) = get(attribute) {
                self.reference(*kind, &name, attribute, url, at);
            }
        }
        match name.as_str() {
            "base" => self.base(get("href")),
            "link" => self.link(&tag.attributes, at),
            "meta" => self.meta(&tag.attributes),
            "img" | "source" => self.candidates(&name, "srcset", get("srcset"), at),
            "form" | "button" | "input" => {
                let attribute = if name == "form" { "action" } else { "formaction" };
                if let Some(url) = get(attribute) {
                    self.reference(BrowserReaction::Form, &name, attribute, url, at);
                }
            }
            _ => {}
        }
    }

    /// HTML section 4.2.3: the first one with an href counts.
    fn base(&mut self, href: Option<&[u8]>) {
        if let Some(href) = href.filter(|_| !self.has_base) {
            self.has_base = true;
            self.base_is_http = leaves_tls(href, false);
        }
    }

    fn link(&mut self, attributes: &Attributes, at: usize) {
        let rel = String::from_utf8_lossy(attribute(attributes, "rel").unwrap_or_default()).to_ascii_lowercase();
        let is = |names: &[&str]| rel.split_ascii_whitespace().any(|word| names.contains(&word));
        let kind = if is(&["stylesheet", "preload", "modulepreload", "manifest"]) {
            BrowserReaction::Active
        } else if is(&["icon", "apple-touch-icon", "apple-touch-icon-precomposed", "mask-icon", "prefetch"]) {
            BrowserReaction::Passive
        } else {
            return;
        };
        if let Some(url) = attribute(attributes, "href") {
            self.reference(kind, "link", "href", url, at);
        }
        self.candidates("link", "imagesrcset", attribute(attributes, "imagesrcset"), at);
    }

    fn meta(&mut self, attributes: &Attributes) {
        let header = attribute(attributes, "http-equiv").unwrap_or_default();
        if header.eq_ignore_ascii_case(b"content-security-policy") {
            self.page.upgraded |= attribute(attributes, "content").is_some_and(upgrades);
        }
    }

    /// HTML section 2.5.10: candidates separated by commas, each a URL and a descriptor.
    fn candidates(&mut self, element: &str, attribute: &str, list: Option<&[u8]>, at: usize) {
        let mut rest = list.unwrap_or_default();
        loop {
            let start = rest.iter().position(|b| !b.is_ascii_whitespace() && *b != b',');
            let Some(start) = start else { return };
            rest = &rest[start..];
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            // A comma may be part of a URL, but not its end.
            let url = without_commas(&rest[..end]);
            self.reference(BrowserReaction::Passive, element, attribute, url, at);
            rest = if url.len() < end {
                &rest[end..]
            } else {
                let comma = rest[end..].iter().position(|b| *b == b',').map_or(rest.len(), |comma| end + comma);
                &rest[comma..]
            };
        }
    }

    /// A style element, and its start.
    fn sheet(&mut self, sheet: Option<(usize, Vec<u8>)>) {
        if let Some((at, css)) = sheet {
            self.style("style", &css, at);
        }
    }

    fn style(&mut self, place: &str, css: &[u8], at: usize) {
        for (is_import, url) in references(css) {
            let kind = if is_import { BrowserReaction::Active } else { BrowserReaction::Passive };
            self.reference(kind, place, if is_import { "@import" } else { "url()" }, &url, at);
        }
    }

    fn reference(&mut self, kind: BrowserReaction, element: &str, attribute: &str, url: &[u8], at: usize) {
        if !leaves_tls(url, self.base_is_http) {
            return;
        }
        self.page.count += 1;
        if self.page.insecure.len() < SHOWN_MAX {
            let line = self.line(at);
            let element = excerpt(format!("{element} {attribute}").as_bytes(), URL_SHOWN);
            self.page.insecure.push(Insecure { kind, element, url: excerpt(url.trim_ascii(), URL_SHOWN), line });
        }
    }

    /// Places come in the page's order, so that each line is counted once.
    fn line(&mut self, at: usize) -> usize {
        let (from, lines) = self.counted;
        let part = self.html.get(from..at).unwrap_or_default();
        self.counted = (at.max(from), lines + part.iter().filter(|b| **b == b'\n').count());
        self.counted.1 + 1
    }
}

/// Returns the attributes with which browsers fetch a resource for an element.
fn subresources(element: &str) -> &'static [(BrowserReaction, &'static str)] {
    use BrowserReaction::{Active, Passive};
    match element {
        "script" => &[(Active, "src"), (Active, "href"), (Active, "xlink:href")],
        "iframe" | "frame" | "embed" => &[(Active, "src")],
        "object" => &[(Active, "data")],
        "applet" => &[(Active, "archive"), (Active, "codebase")],
        "use" => &[(Active, "href"), (Active, "xlink:href")],
        "track" => &[(Active, "src")],
        "img" | "audio" | "source" | "input" => &[(Passive, "src")],
        "video" => &[(Passive, "src"), (Passive, "poster")],
        // In SVG.
        "image" | "feimage" => &[(Passive, "href"), (Passive, "xlink:href")],
        _ => &[],
    }
}

/// Returns `true` if an https page would fetch a reference without TLS. Loopback addresses are as
/// trustworthy as TLS (W3C Secure Contexts, section 3.1).
fn leaves_tls(reference: &[u8], base_is_http: bool) -> bool {
    // URL Standard section 4.4: browsers strip white space around it, and tabs and line ends within
    // it.
    let trimmed = reference.trim_ascii();
    let url: Vec<u8> = trimmed.iter().filter(|b| !matches!(b, b'\t' | b'\n' | b'\r')).copied().collect();
    let scheme_end = url.iter().position(|b| !(b.is_ascii_alphanumeric() || b"+-.".contains(b)));
    let scheme = scheme_end.filter(|end| url[*end] == b':' && url[0].is_ascii_alphabetic()).map(|end| &url[..end]);
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => !is_local(&url[scheme.len() + 1..]),
        Some(_) => false,
        None => base_is_http && !url.is_empty() && url[0] != b'#',
    }
}

fn is_local(rest: &[u8]) -> bool {
    let authority = rest.iter().position(|b| !matches!(b, b'/' | b'\\')).map_or(&[][..], |at| &rest[at..]);
    let authority = authority.split(|b| matches!(b, b'/' | b'\\' | b'?' | b'#')).next().unwrap_or_default();
    let host = authority.rsplit(|b| *b == b'@').next().unwrap_or_default();
    if host.starts_with(b"[::1]") {
        return true;
    }
    let host = host.split(|b| *b == b':').next().unwrap_or_default().to_ascii_lowercase();
    let address = std::str::from_utf8(&host).ok().and_then(|h| h.parse::<std::net::Ipv4Addr>().ok());
    host == b"localhost" || host.ends_with(b".localhost") || address.is_some_and(|a| a.is_loopback())
}

fn without_commas(url: &[u8]) -> &[u8] {
    &url[..url.iter().rposition(|b| *b != b',').map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the references of a page, as `line kind element url`.
    #[track_caller]
    fn check(html: &str, want: &[&str]) {
        let page = scan(html.as_bytes());
        let rows: Vec<String> =
            page.insecure.iter().map(|i| format!("{} {:?} {} {}", i.line, i.kind, i.element, i.url)).collect();
        assert_eq!(rows, want, "{html}");
        assert_eq!(page.count, want.len());
    }

    #[test]
    fn what_is_fetched() {
        check("<p>\n<img src=http://x/a.png>", &["2 Passive img src http://x/a.png"]);
        check("<script src='HTTP://x/a.js'></script>", &["1 Active script src HTTP://x/a.js"]);
        check("<LINK REL='Shortcut ICON' HREF=\" http://x/i.ico \">", &["1 Passive link href http://x/i.ico"]);
        check("<link rel=stylesheet href=http://x/s.css>", &["1 Active link href http://x/s.css"]);
        check("<link rel=preload as=font href=http://x/f>", &["1 Active link href http://x/f"]);
        check("<iframe src=http://x/></iframe>", &["1 Active iframe src http://x/"]);
        check("<object data=http://x/o></object>", &["1 Active object data http://x/o"]);
        check("<embed src=http://x/e>", &["1 Active embed src http://x/e"]);
        check(
            "<video src=http://x/v poster=http://x/p></video>",
            &["1 Passive video src http://x/v", "1 Passive video poster http://x/p"],
        );
        check(
            "<audio src=http://x/a></audio><track src=http://x/t>",
            &["1 Passive audio src http://x/a", "1 Active track src http://x/t"],
        );
        check(
            "<picture>\n<source srcset='http://x/1,2.png 1x, /b.png 2x,http://x/3.png'>",
            &["2 Passive source srcset http://x/1,2.png", "2 Passive source srcset http://x/3.png"],
        );
        check("<svg><image xlink:href=http://x/i /></svg>", &["1 Passive image xlink:href http://x/i"]);
        check("<body background=http://x/b>", &["1 Passive body background http://x/b"]);
        check("<div style=\"background: url('http://x/b')\">", &["1 Passive div style url() http://x/b"]);
        check(
            "<style>\n@import 'http://x/s.css'; a { background: url(http://x/a) }</style>",
            &["1 Active style @import http://x/s.css", "1 Passive style url() http://x/a"],
        );
        check("<img src=\"ht\ntp://x/a\">", &["1 Passive img src ht\u{fffd}tp://x/a"]);
        check("<img src=http&#58;//x/a>", &["1 Passive img src http://x/a"]);
    }

    #[test]
    fn what_is_not() {
        for html in [
            "<a href=http://x/>http://x/</a>",
            "<!-- <img src=http://x/a> -->",
            "<p>&lt;img src=http://x/a&gt; http://x/",
            "<script>var a = '<img src=http://x/a>';</script>",
            "<title><img src=http://x/a></title><textarea><img src=http://x/a></textarea>",
            "<template><img src=http://x/a></template>",
            "<img src=https://x/a><img src=//x/a><img src=/a><img src=data:,http://x/>",
            "<img alt='http://x/a' data-src=http://x/a>",
            "<img src=http://localhost/a><img src=http://127.0.0.1:80/a><img src='http://[::1]/a'><img src=http://a.localhost>",
            "<link rel=canonical href=http://x/><link rel=alternate href=http://x/><link href=http://x/>",
            "<meta property=og:image content=http://x/a>",
            "<form action=https://x/><form action=/a>",
            "<style>/* url(http://x/a) */ a::after { content: 'url(http://x/)' }</style>",
            "<base href=https://x/><img src=a>",
            "<img src>",
        ] {
            check(html, &[]);
        }
        check("<img src=http://127.0.0.1.example/a>", &["1 Passive img src http://127.0.0.1.example/a"]);
        check("<img src=http://localhost@x/a>", &["1 Passive img src http://localhost@x/a"]);
    }

    #[test]
    fn forms_bases_and_policies() {
        check(
            "<form action=http://x/s><button formaction=http://x/t>",
            &["1 Form form action http://x/s", "1 Form button formaction http://x/t"],
        );
        check(
            "<base href=http://x/><base href=https://x/>\n<img src=a><img src=#><img src=https://x/b>",
            &["2 Passive img src a"],
        );
        let with_meta =
            "<meta http-equiv=content-security-policy content=\"default-src 'self'; Upgrade-Insecure-Requests\">";
        assert!(scan(with_meta.as_bytes()).upgraded);
        assert!(!scan(b"<meta name=x content=upgrade-insecure-requests>").upgraded);
        assert!(upgrades(b"upgrade-insecure-requests") && !upgrades(b"no-upgrade-insecure-requests"));
    }

    #[test]
    fn many_are_counted_and_the_first_are_told() {
        let page = scan("<img src=http://x/a>\n".repeat(SHOWN_MAX + 7).as_bytes());
        assert_eq!(
            (page.count, page.insecure.len(), page.insecure[SHOWN_MAX - 1].line),
            (SHOWN_MAX + 7, SHOWN_MAX, SHOWN_MAX)
        );
    }

    proptest! {
        #[test]
        fn bytes_never_panic(html in "(<(img|link|style|base|template|source)( (src|srcset|rel|href|style)(=[\"']?[a-z:/, (]{0,12}[\"']?)?)*>?|[a-z<>&;!-]{0,6}|\\PC){0,12}") {
            let page = scan(html.as_bytes());
            prop_assert!(page.insecure.len() <= page.count);
        }
    }
}
