//! The parts of an HTML page that tell about its maker and its names.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use super::text::contains;

/// The most references that are kept.
const REFERENCES_MAX: usize = 4096;

/// The attributes that hold a URL.
const URLS: [&str; 6] = ["src", "href", "action", "data", "poster", "data-src"];

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The contents of `meta name=generator`.
    pub generators: Vec<Vec<u8>>,
    /// The attributes of the `html` element: name and value.
    pub html: Vec<(Vec<u8>, Vec<u8>)>,
    /// The URLs of all elements, as written.
    pub references: Vec<Vec<u8>>,
    /// The `link` elements: rel, type, href.
    pub links: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    /// The page's own addresses: `link rel=canonical` and `meta property=og:url`.
    pub own: Vec<Vec<u8>>,
    /// `true` if some attribute is of Ghost's own: `data-ghost`, `data-ghost-...`.
    pub ghost: bool,
}

impl Document {
    /// Reads a page.
    #[must_use]
    pub fn read(html: &[u8]) -> Self {
        let mut document = Self::default();
        let mut emitter = DefaultEmitter::<usize>::new_with_span();
        // The contents of script, style, title and the like are text.
        emitter.naively_switch_states(true);
        for token in Tokenizer::new_with_emitter(html, emitter) {
            let Ok(token) = token;
            if let Token::StartTag(tag) = token {
                document.element(&tag);
            }
        }
        document
    }

    fn element(&mut self, tag: &StartTag<usize>) {
        let get = |name: &str| tag.attributes.get(name.as_bytes()).map(|value| value.as_slice());
        self.ghost |= tag.attributes.keys().any(|name| name.starts_with(b"data-ghost"));
        for url in URLS.iter().filter_map(|name| get(name)) {
            if self.references.len() < REFERENCES_MAX {
                self.references.push(url.trim_ascii().to_vec());
            }
        }
        let text = |name: &str| get(name).unwrap_or_default().to_vec();
        match tag.name.as_slice() {
            b"html" => {
                let attributes = tag.attributes.iter();
                self.html.extend(attributes.map(|(name, value)| (name.to_vec(), value.as_slice().to_vec())));
            }
            b"meta" if get("name").is_some_and(|name| name.eq_ignore_ascii_case(b"generator")) => {
                self.generators.push(text("content").trim_ascii().to_vec());
            }
            b"meta" if get("property").is_some_and(|name| name.eq_ignore_ascii_case(b"og:url")) => {
                self.own.push(text("content"));
            }
            b"link" if self.links.len() < REFERENCES_MAX => {
                let link = (text("rel"), text("type"), text("href"));
                if link.0.eq_ignore_ascii_case(b"canonical") {
                    self.own.push(link.2.clone());
                }
                self.links.push(link);
            }
            _ => {}
        }
    }

    /// Returns the first RSS or Atom feed that the page names.
    #[must_use]
    pub fn feed(&self) -> Option<&[u8]> {
        let is_feed = |kind: &[u8]| [&b"application/rss+xml"[..], b"application/atom+xml"].contains(&kind);
        let mut feeds = self.links.iter().filter(|(rel, kind, _)| contains(rel, b"alternate") && is_feed(kind));
        feeds.next().map(|(.., href)| href.as_slice())
    }
}

/// Returns the `generator` of an RSS or Atom feed, with its attributes: the text between `<generator`
/// and `</generator>`.
#[must_use]
pub fn feed_generator(feed: &[u8]) -> Option<&[u8]> {
    let at = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
    let rest = &feed[at(feed, b"<generator")? + b"<generator".len()..];
    Some(&rest[..at(rest, b"</generator>")?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page() {
        let page = Document::read(
            b"<!doctype html><HTML lang=en data-wf-site='x'><head><meta name=Generator content=' Ghost 5.82 '>\
              <link rel=canonical href=https://blog.example.com/><meta property=og:url content=https://b.example/>\
              <link rel='ALTERNATE' type=application/rss+xml href=/rss/><script data-ghost=x src=/a.js></script>\
              <p><meta name=description content='/wp-content/'>text /wp-content/ <a href=\" /b \">b</a>\
              <script>var a = '<img src=/no>';</script><!-- <img src=/no> -->",
        );
        assert_eq!(page.generators, [b"Ghost 5.82"]);
        assert_eq!(page.html[0].0, b"data-wf-site");
        assert!(page.ghost);
        assert_eq!(page.own, [&b"https://blog.example.com/"[..], b"https://b.example/"]);
        assert_eq!(page.references, [&b"https://blog.example.com/"[..], b"/rss/", b"/a.js", b"/b"]);
        assert_eq!(page.feed(), Some(&b"/rss/"[..]));
        assert_eq!(feed_generator(b"<rss><generator uri='x'>Hatena</generator>"), Some(&b" uri='x'>Hatena"[..]));
        assert_eq!(feed_generator(b"<rss><generator>"), None);
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::read(&bytes);
            let _ = feed_generator(&bytes);
        }
    }
}
