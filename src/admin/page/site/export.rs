//! The export of a site's pins, in the chosen form.

use serde_json::Value;

use crate::admin::api::Answer;
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::page::value::{WayOut, list, some, text, texts};
use crate::reason::pasted::pintle;
use crate::reason::shell_word;

/// The forms of an export that the page offers, in the order of use, with their names.
const FORMS: [(&str, &str); 14] = [
    ("curl", "curl"),
    ("okhttp", "OkHttp"),
    ("android", "Android"),
    ("ios", "iOS"),
    ("trustkit", "TrustKit"),
    ("tlsa", "TLSA"),
    ("dns", "DNS zone"),
    ("envoy", "Envoy"),
    ("header", "Header"),
    ("nginx", "nginx"),
    ("vcl", "Varnish"),
    ("certspotter", "Cert Spotter"),
    ("sslmate", "SSLMate"),
    ("json", "JSON"),
];

/// A form of the export.
pub(super) struct FormChoice {
    pub(super) href: String,
    pub(super) label: &'static str,
    pub(super) is_current: bool,
}

/// The part of the page: the forms to choose from, and the chosen one.
pub(super) struct SiteExport {
    pub(super) forms: Vec<FormChoice>,
    pub(super) text: Option<String>,
    pub(super) command: String,
    pub(super) warnings: Vec<WayOut>,
}

impl SiteExport {
    /// The export of a site in one form, from the answer of the API.
    pub(super) fn of(site: &str, href: &str, asked: &PageRequest, form: &str, pins: &Answer) -> Self {
        Self {
            forms: forms(href, asked, form),
            text: some(&pins.body, "text").filter(|_| pins.is_ok()),
            command: pintle(format!("export --site {} --as {form} --life 90d", shell_word(site))),
            warnings: warnings(pins).into_iter().map(WayOut::sentence).collect(),
        }
    }
}

/// The forms, each with its link.
fn forms(href: &str, asked: &PageRequest, current: &str) -> Vec<FormChoice> {
    let kept: String =
        ["key", "day"].iter().filter_map(|name| Some(format!("{name}={}&", encoded(asked.query.get(name)?)))).collect();
    let choice = |(form, label): &(&'static str, &'static str)| FormChoice {
        href: format!("{href}?{kept}form={form}#export"),
        label,
        is_current: *form == current,
    };
    FORMS.iter().map(choice).collect()
}

/// The warnings of the export, or the reason why there is none.
fn warnings(pins: &Answer) -> Vec<String> {
    let sentence = |value: &Value, key: &str| {
        let hints = texts(value, "hints");
        format!(
            "{}{}",
            text(value, key),
            if hints.is_empty() { String::new() } else { format!(": {}", hints.join("; ")) }
        )
    };
    match pins.is_ok() {
        true => list(&pins.body, "warnings").iter().map(|warning| sentence(warning, "what")).collect(),
        false => vec![sentence(&pins.body, "error")],
    }
}
