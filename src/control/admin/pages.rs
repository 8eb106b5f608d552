//! Questions of the pages.

use clap::ValueEnum as _;
use zeroize::Zeroizing;

use super::refusal::{PageRefusal, parameter, pin};
use crate::config::report::SiteReport;
use crate::control::site_state::SiteLevel;
use crate::export::ExportForm;
use crate::keys::pin::Pin;
use crate::reason::Reason;

/// The longest text to search for, in bytes: a host name.
const SEARCH_MAX: usize = 253;

/// A question of a page.
pub(in crate::control) enum PageQuestion {
    /// The state in one glance.
    Overview,
    /// Sites, by the page.
    Sites(WantedSites),
    /// One site.
    Site { host: String },
    /// The effect of a rotation.
    Rotation(RotationQuestion),
    /// The pins of a site for the clients that enforce them.
    Pins(PinsQuestion),
    /// The traffic of the last minutes.
    Rates,
    /// The pin of a certificate, CSR or public key, and its role.
    Fingerprint(Zeroizing<Vec<u8>>),
    /// The roles of a pin.
    Roles(Pin),
    /// The findings of the last doctor.
    Findings,
    /// The name servers of the configuration.
    NameServers,
    /// The address at which this process serves a host.
    OwnPlace { host: String },
}

/// The part of the list that is wanted.
#[derive(Debug, Clone, Default)]
pub(in crate::control) struct WantedSites {
    /// A part of a host name.
    search: String,
    pub(in crate::control) level: Option<SiteLevel>,
    /// The page, from 1.
    pub(in crate::control) page: usize,
}

impl WantedSites {
    pub(in crate::control) fn of(query: &str) -> Result<Self, PageRefusal> {
        let search = parameter(query, "q").trim().to_lowercase();
        if search.len() > SEARCH_MAX {
            let what = format!("q: longer than {SEARCH_MAX} bytes");
            return Err(PageRefusal::wrong(Reason::new(what).hint("a part of a host name is enough")));
        }
        let word = parameter(query, "state");
        let level = SiteLevel::ALL.into_iter().find(|level| level.word() == word);
        if level.is_none() && !word.is_empty() {
            let what = format!("unknown state {word:?}");
            return Err(PageRefusal::wrong(Reason::new(what).note("expected one of: bad, warning, fine")));
        }
        Ok(Self { search, level, page: parameter(query, "page").parse().unwrap_or(1).max(1) })
    }

    /// Looks for the text in the names of a site.
    pub(in crate::control) fn in_names(&self) -> impl Fn(&SiteReport) -> bool {
        super::in_names(&self.search)
    }
}

/// The question.
#[derive(Debug, Clone)]
pub(in crate::control) struct RotationQuestion {
    pub(in crate::control) host: String,
    /// The key; `None` for the first backup, or the live key without one.
    pub(in crate::control) key: Option<Pin>,
    /// The day, as text; `None` for today.
    pub(in crate::control) day: Option<String>,
}

impl RotationQuestion {
    pub(in crate::control) fn of(query: &str) -> Result<Self, PageRefusal> {
        let key = parameter(query, "key");
        let key = if key.trim().is_empty() { None } else { Some(pin(&key, "key")?) };
        let day = Some(parameter(query, "day")).filter(|day| !day.is_empty());
        Ok(Self { host: parameter(query, "host"), key, day })
    }
}

/// The question.
#[derive(Debug, Clone)]
pub(in crate::control) struct PinsQuestion {
    pub(in crate::control) host: String,
    pub(in crate::control) form: ExportForm,
}

impl PinsQuestion {
    pub(in crate::control) fn of(query: &str) -> Result<Self, PageRefusal> {
        let form = parameter(query, "form");
        let form = if form.is_empty() { ExportForm::Header.name().to_owned() } else { form };
        let form = ExportForm::from_str(&form, false).map_err(|_| {
            let known: Vec<&str> = ExportForm::value_variants().iter().map(|form| form.name()).collect();
            let reason = Reason::new(format!("unknown form {form:?}"));
            PageRefusal::wrong(reason.note(format!("expected one of: {}", known.join(", "))))
        })?;
        Ok(Self { host: parameter(query, "host"), form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_parts() {
        let wanted = WantedSites::of("q=%20Blog&state=warning&page=3").unwrap();
        assert_eq!((wanted.search.as_str(), wanted.level, wanted.page), ("blog", Some(SiteLevel::Warning), 3));
        for (query, page) in [("", 1), ("page=0", 1), ("page=x", 1), ("page=-1", 1)] {
            assert_eq!(WantedSites::of(query).unwrap().page, page, "{query}");
        }
        assert!(WantedSites::of("state=red").is_err() && WantedSites::of(&format!("q={}", "a".repeat(254))).is_err());
    }
}
