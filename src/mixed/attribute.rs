//! Attributes with URLs, and how their values are read.

use super::css::Css;
use super::edit::{Edits, Scan};
use super::escape::{DecodedText, Escaping};
use super::names::OwnNames;
use super::probe::{UrlUse, probe, probe_decoded};
use super::srcset;
use super::tag::TagScan;

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Url(UrlUse),
    /// Candidates for an image.
    Candidates,
    /// URLs between white space.
    List,
    /// Declarations of CSS.
    Style,
    /// `0; url=...`.
    Refresh,
    /// A document.
    Document,
}

/// Attributes with one URL, on any element: those of HTML and SVG, and those by which well-known scripts load images
/// late.
const URLS: [&str; 24] = [
    "src",
    "href",
    "poster",
    "background",
    "longdesc",
    "cite",
    "icon",
    "manifest",
    "formaction",
    "xlink:href",
    "data-src",
    "data-lazy-src",
    "data-bg",
    "data-background",
    "data-original",
    "data-thumb",
    "data-poster",
    "data-orig-file",
    "data-medium-file",
    "data-large-file",
    "data-full-url",
    "data-permalink",
    "data-link",
    "data-image",
];
const CANDIDATES: [&str; 4] = ["srcset", "imagesrcset", "data-srcset", "data-lazy-srcset"];
/// Properties of `meta` whose content is a URL: by their beginnings, and whole.
const META_BEGIN: [&str; 5] = ["og:image", "og:video", "og:audio", "twitter:image", "twitter:player"];
const META: [&str; 5] = ["twitter:url", "msapplication-tileimage", "thumbnailurl", "image", "thumbnail"];

/// The rules for the attributes of a document.
#[derive(Clone, Copy)]
pub struct AttributeRules<'a> {
    /// The hosts.
    pub names: &'a OwnNames,
    /// `true` if styles stay: their hashes may be in a policy.
    pub keeps_styles: bool,
    /// Reads a document that is the value of an attribute.
    pub document: &'a dyn Fn(&[u8], &mut Edits),
}

/// Adds the changes of a tag's attributes, as places in the tag. `element` is its name in lower case.
pub fn rewrite(element: &[u8], tag: &[u8], scan: &TagScan, rules: AttributeRules<'_>, edits: &mut Edits) {
    let mut of_element = None;
    for attribute in &scan.attributes {
        let Some(value) = tag.get(attribute.value.clone()).filter(|value| may_have_url(value)) else { continue };
        let name = tag[attribute.name.clone()].to_ascii_lowercase();
        let kind = match (element, &*name) {
            // Other attributes decide. They are read once, however often this one is there.
            (b"link", b"href") | (b"meta", b"content") => *of_element.get_or_insert_with(|| match element {
                b"link" => Some(link(tag, scan)),
                _ => meta(tag, scan),
            }),
            _ => kind(element, &name),
        };
        let Some(kind) = kind else { continue };
        if kind == ValueKind::Style && rules.keeps_styles {
            continue;
        }
        let mut part = Edits::default();
        rewrite_value(value, kind, rules, &mut part);
        edits.adopt(part, |place| attribute.value.start + place);
    }
}

/// `false` for values that certainly have no http URL: most of them.
fn may_have_url(value: &[u8]) -> bool {
    value.len() > 6 && memchr::memchr3(b':', b'&', b'\\', value).is_some()
}

fn kind(element: &[u8], name: &[u8]) -> Option<ValueKind> {
    let is_in = |names: &[&str]| names.iter().any(|known| known.as_bytes() == name);
    let reference = Some(ValueKind::Url(UrlUse::Reference));
    match (element, name) {
        (b"form", b"action") | (b"object", b"data") => reference,
        (b"iframe", b"srcdoc") => Some(ValueKind::Document),
        (b"a" | b"area", b"ping") => Some(ValueKind::List),
        (_, b"style") => Some(ValueKind::Style),
        _ if is_in(&CANDIDATES) => Some(ValueKind::Candidates),
        _ if is_in(&URLS) => reference,
        _ => None,
    }
}

/// Returns the value of an attribute in lower case.
pub fn value_of(tag: &[u8], scan: &TagScan, name: &str) -> Option<Vec<u8>> {
    let found = scan.attributes.iter().find(|a| tag[a.name.clone()].eq_ignore_ascii_case(name.as_bytes()))?;
    #[cfg(test)]
    super::work::add(found.value.len());
    Some(tag[found.value.clone()].trim_ascii().to_ascii_lowercase())
}

/// Returns the kind of `href` of a `link`.
fn link(tag: &[u8], scan: &TagScan) -> ValueKind {
    let relations = value_of(tag, scan, "rel").unwrap_or_default();
    let is_canonical = relations.split(u8::is_ascii_whitespace).any(|part| part == b"canonical");
    ValueKind::Url(if is_canonical { UrlUse::Canonical } else { UrlUse::Reference })
}

/// Returns the kind of `content` of a `meta`.
fn meta(tag: &[u8], scan: &TagScan) -> Option<ValueKind> {
    if value_of(tag, scan, "http-equiv").is_some_and(|value| value == b"refresh") {
        return Some(ValueKind::Refresh);
    }
    let property = ["property", "name", "itemprop"].iter().find_map(|name| value_of(tag, scan, name))?;
    let is_url = META_BEGIN.iter().any(|begin| property.starts_with(begin.as_bytes()))
        || META.iter().any(|known| known.as_bytes() == property);
    match &*property {
        b"og:url" => Some(ValueKind::Url(UrlUse::Canonical)),
        _ if is_url => Some(ValueKind::Url(UrlUse::Reference)),
        _ => None,
    }
}

/// Adds the changes of a value, as places in it.
fn rewrite_value(value: &[u8], kind: ValueKind, rules: AttributeRules<'_>, edits: &mut Edits) {
    let decoded = DecodedText::of(value, Escaping::Html, true);
    let mut part = Edits::default();
    match kind {
        ValueKind::Url(url_use) => {
            probe_decoded(decoded, true, url_use, rules.names, edits);
            return;
        }
        ValueKind::Style => _ = Css::new(rules.names.clone()).scan(&decoded.text, true, &mut part),
        ValueKind::Document => (rules.document)(&decoded.text, &mut part),
        ValueKind::Candidates | ValueKind::List | ValueKind::Refresh => {
            let urls = match kind {
                ValueKind::Candidates => srcset::urls(&decoded.text),
                ValueKind::List => srcset::list(&decoded.text),
                _ => refresh(&decoded.text).into_iter().collect(),
            };
            for url in urls {
                let mut one = Edits::default();
                probe(&decoded.text[url.clone()], Escaping::Plain, true, rules.names, &mut one);
                part.adopt(one, |place| url.start + place);
            }
        }
    }
    edits.adopt(part, |place| decoded.place(place));
}

/// Returns the place of the URL in `0; url='...'` (HTML Living Standard, section 4.2.5.3).
pub fn refresh(text: &[u8]) -> Option<std::ops::Range<usize>> {
    let skip = |at: usize| at + text[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut at = skip(text.iter().position(|b| matches!(b, b';' | b','))? + 1);
    if text.get(at..at + 3).is_some_and(|word| word.eq_ignore_ascii_case(b"url")) {
        let equals = skip(at + 3);
        if text.get(equals) == Some(&b'=') {
            at = skip(equals + 1);
        }
    }
    match text.get(at) {
        Some(quote @ (b'"' | b'\'')) => {
            let length = text[at + 1..].iter().position(|b| b == quote).unwrap_or(text.len() - at - 1);
            Some(at + 1..at + 1 + length)
        }
        _ => Some(at..text.len()),
    }
}

/// Returns a text that is a URL, rewritten; `None` if it stays.
pub fn rewrite_url(text: &[u8], names: &OwnNames, url_use: UrlUse) -> Option<Vec<u8>> {
    let mut edits = Edits::default();
    let decoded = DecodedText::of(text, Escaping::Plain, true);
    probe_decoded(decoded, true, url_use, names, &mut edits);
    (!edits.is_empty()).then(|| {
        let mut new = Vec::with_capacity(text.len() + 1);
        edits.apply(text, &mut new);
        new
    })
}

/// Adds the changes of an attribute's value that is a URL, as places in it.
pub fn rewrite_value_url(value: &[u8], names: &OwnNames, edits: &mut Edits) {
    if may_have_url(value) {
        probe_decoded(DecodedText::of(value, Escaping::Html, true), true, UrlUse::Reference, names, edits);
    }
}
