//! The form of the page Install as a call of the API. A private key passes through: every copy of it is wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use crate::admin::asked::FormFields;

/// The longest name of a file that is shown, in characters.
const NAME_MAX: usize = 120;

/// A named file, or a pasted text.
type NamedBytes<'f> = (String, &'f [u8]);

/// The files of the form.
pub(super) struct Uploaded<'f> {
    pub(super) chain: Option<NamedBytes<'f>>,
    pub(super) key: Option<NamedBytes<'f>>,
}

/// The files of the form: each as a file, or pasted.
pub(super) fn uploaded(form: &FormFields) -> Uploaded<'_> {
    let shown = |name: &str| name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect::<String>();
    let one = |file: &str, text: &str, pasted: &str| {
        let file = form.file(file).filter(|(_, bytes)| !bytes.is_empty());
        let text = form.get(text).filter(|text| !text.trim().is_empty());
        let file = file.map(|(name, bytes)| (shown(name), bytes));
        file.or_else(|| text.map(|text| (pasted.to_owned(), text.as_bytes())))
    };
    let chain = one("file", "pem", "chain.pem").or_else(|| one("", "chain", "chain.pem"));
    Uploaded { chain, key: one("key", "key_pem", "chain.key") }
}

/// The wish of a form.
pub(super) struct WishedInstall<'f> {
    pub(super) site: &'f str,
    pub(super) given: &'f Uploaded<'f>,
    pub(super) is_previous: bool,
    pub(super) dry_run: bool,
    pub(super) algorithm: Option<&'f str>,
    pub(super) accept: Option<&'f str>,
}

impl WishedInstall<'_> {
    /// The name of the pair.
    pub(super) fn name(&self) -> String {
        match &self.given.chain {
            _ if self.is_previous => "The previous pair".to_owned(),
            Some((name, _)) => name.clone(),
            None => "The chain".to_owned(),
        }
    }

    /// The body of `POST /v1/install`, in one buffer, which the API wipes.
    pub(super) fn body(&self) -> Bytes {
        let (chain, key) = (self.given.chain.as_ref(), self.given.key.as_ref());
        let (chain, key) = if self.is_previous { (None, None) } else { (chain, key) };
        let plain = json!({
            "site": self.site, "previous": self.is_previous, "dry_run": self.dry_run,
            "algorithm": self.algorithm, "accept_lockout_until": self.accept,
            "chain_name": chain.map(|(name, _)| name), "key_name": key.map(|(name, _)| name),
        })
        .to_string();
        let size =
            |of: Option<&NamedBytes<'_>>| of.map_or(0, |(_, bytes)| bytes.len().div_ceil(3).saturating_mul(4) + 16);
        let mut body = Vec::with_capacity(plain.len() + size(chain) + size(key));
        body.extend_from_slice(plain.strip_suffix('}').unwrap_or(&plain).as_bytes());
        for (field, file) in [("chain", chain), ("key", key)] {
            let Some((_, bytes)) = file else { continue };
            body.extend_from_slice(format!(",\"{field}\":\"").as_bytes());
            let begin = body.len();
            body.resize(begin + bytes.len().div_ceil(3).saturating_mul(4), 0);
            let written = STANDARD.encode_slice(bytes, &mut body[begin..]).unwrap_or_default();
            body.truncate(begin + written);
            body.push(b'"');
        }
        body.push(b'}');
        body.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let form = FormFields::of_query("pem=%20&chain=abc&key_pem=k%C3%A9y").unwrap();
        let given = uploaded(&form);
        let wish = |is_previous| WishedInstall {
            site: "a\"b",
            given: &given,
            is_previous,
            dry_run: true,
            algorithm: None,
            accept: Some("2027-01-01"),
        };
        let body: serde_json::Value = serde_json::from_slice(&wish(false).body()).unwrap();
        assert_eq!((&body["site"], &body["chain"], &body["key"]), (&"a\"b".into(), &"YWJj".into(), &"a8OpeQ==".into()));
        assert_eq!((&body["accept_lockout_until"], &body["key_name"]), (&"2027-01-01".into(), &"chain.key".into()));
        let body: serde_json::Value = serde_json::from_slice(&wish(true).body()).unwrap();
        assert!(body["chain"].is_null() && body["key"].is_null() && body["previous"] == true, "{body}");
    }
}
