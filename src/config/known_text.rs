//! A text of a configuration, and what takes a while to find out about it: its tag, its form without secrets, its id in
//! the history. Ten thousand sites have a hundred thousand lines, so each is found out once for a text, by whoever asks
//! first.

use std::sync::{Arc, OnceLock};

use super::edit::tag;
use super::history::{blob_id, secrets};

/// A text with its facts.
#[derive(Debug)]
pub struct KnownText {
    text: Arc<str>,
    tag: OnceLock<String>,
    masked: OnceLock<Option<MaskedText>>,
}

/// A text without its secrets.
#[derive(Debug)]
struct MaskedText {
    /// The text itself if it has no secrets.
    text: Arc<str>,
    /// Its id in the history.
    id: Option<String>,
}

impl KnownText {
    /// Nothing is known of a text yet.
    #[must_use]
    pub fn new(text: Arc<str>) -> Self {
        Self { text, tag: OnceLock::new(), masked: OnceLock::new() }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Its tag, as `ETag` has it.
    #[must_use]
    pub fn tag(&self) -> &str {
        self.tag.get_or_init(|| tag(&self.text))
    }

    /// The text without its secrets; `None` if it is not TOML.
    #[must_use]
    pub fn masked(&self) -> Option<&Arc<str>> {
        self.without_secrets().map(|masked| &masked.text)
    }

    /// Its id in the history. Versions with the same text have the same. `None` if it is not TOML.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.without_secrets()?.id.as_deref()
    }

    fn without_secrets(&self) -> Option<&MaskedText> {
        let mask = || {
            let masked = secrets::masked(&self.text)?;
            let id = blob_id(&masked);
            let text = if masked == *self.text { self.text.clone() } else { masked.into() };
            Some(MaskedText { text, id })
        };
        self.masked.get_or_init(mask).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_out_once() {
        let plain = KnownText::new("a = 1\n".into());
        assert!(Arc::ptr_eq(plain.masked().unwrap(), plain.text()), "no second copy of a text without secrets");
        assert_eq!(plain.id(), blob_id("a = 1\n").as_deref());
        assert!(std::ptr::eq(plain.tag(), plain.tag()) && std::ptr::eq(plain.id().unwrap(), plain.id().unwrap()));
        let secret = KnownText::new("[[hook]]\nname = \"chat\"\nurl = \"https://a.example/secret\"\n".into());
        assert!(!secret.masked().unwrap().contains("https"));
        assert_eq!(secret.id(), blob_id(secret.masked().unwrap()).as_deref());
        let broken = KnownText::new("a = ".into());
        assert_eq!((broken.masked(), broken.id()), (None, None));
        assert_eq!(broken.tag(), tag("a = "));
    }
}
