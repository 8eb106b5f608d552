//! SVG and MathML within HTML (HTML Living Standard, section 13.2.6.5): there, scripts and styles are no raw text, and
//! CDATA exists.

/// The deepest nesting that is followed.
const DEPTH_MAX: usize = 64;
/// HTML elements whose start tags end all foreign elements.
const BREAKS_OUT: [&str; 44] = [
    "b",
    "big",
    "blockquote",
    "body",
    "br",
    "center",
    "code",
    "dd",
    "div",
    "dl",
    "dt",
    "em",
    "embed",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "hr",
    "i",
    "img",
    "li",
    "listing",
    "menu",
    "meta",
    "nobr",
    "ol",
    "p",
    "pre",
    "ruby",
    "s",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tt",
    "u",
    "ul",
    "var",
];
/// Foreign elements whose contents are HTML.
const HTML_WITHIN: [&str; 9] = ["foreignobject", "desc", "title", "annotation-xml", "mi", "mo", "mn", "ms", "mtext"];

/// The open elements that begin or end foreign content.
#[derive(Debug, Default)]
pub struct ForeignContent {
    open: Vec<(Box<[u8]>, bool)>,
}

impl ForeignContent {
    /// `true` in SVG or MathML.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.open.last().is_some_and(|(_, is_foreign)| *is_foreign)
    }

    /// Follows a start tag, by its name in lower case.
    pub fn start(&mut self, name: &[u8], closes_itself: bool) {
        let is_in = |names: &[&str]| names.iter().any(|known| known.as_bytes() == name);
        if self.is_foreign() && is_in(&BREAKS_OUT) {
            while self.is_foreign() {
                self.open.pop();
            }
        }
        let begins = is_in(&["svg", "math"]);
        if (begins || self.is_foreign() && is_in(&HTML_WITHIN)) && !closes_itself && self.open.len() < DEPTH_MAX {
            self.open.push((name.into(), begins));
        }
    }

    /// Follows an end tag.
    pub fn end(&mut self, name: &[u8]) {
        if let Some(at) = self.open.iter().rposition(|(open, _)| **open == *name) {
            self.open.truncate(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting() {
        let mut foreign = ForeignContent::default();
        for (tag, want) in [
            ("p", false),
            ("svg", true),
            ("title", false),
            ("/title", true),
            ("foreignobject", false),
            ("svg", true),
            ("/svg", false),
            ("/foreignobject", true),
            ("path", true),
            ("div", false),
            ("math", true),
            ("/math", false),
        ] {
            match tag.strip_prefix('/') {
                Some(name) => foreign.end(name.as_bytes()),
                None => foreign.start(tag.as_bytes(), false),
            }
            assert_eq!(foreign.is_foreign(), want, "{tag}");
        }
    }
}
