//! The effect of other nodes' promises on the served sites, before they are in the ledger.

use serde_json::{Value, json};

use super::{Like, context, glance_at_book};
use crate::config::{Draft, UnknownPair};
use crate::control::served::{LockedOutSite, Sites, ask_for_served};
use crate::keys::pin::Pin;
use crate::ledger::time::{minute, rfc3339};
use crate::ledger::{Book, News, Record};
use crate::policy::promise::{Promise, Seconds};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_word};

/// The effect of a merge.
pub(super) struct Forecast {
    /// The number of new records.
    pub(super) news: usize,
    /// The chains in use that break new promises.
    pub(super) broken: Vec<BrokenHere>,
    /// The keys in use that are newly burnt.
    pub(super) burnt: Vec<BurntHere>,
    /// While pintle is stopped: chains on disk that need an excuse, and that may not be the served ones.
    pub(super) unknown: Vec<UnknownPair>,
}

/// A key in use that was compromised on another node.
pub(super) struct BurntHere(LockedOutSite);

impl BurntHere {
    /// The warning about it.
    pub(super) fn reason(&self) -> Reason {
        let LockedOutSite { site, pin, .. } = &self.0;
        let what = format!(
            "{site}: the key in use ({pin}) is burnt: it was compromised on another node. This node serves it until you \
             change over"
        );
        let list = pintle(format_args!("key list --site {site}"));
        Reason::new(what).hint(format!("change over to another key: `{list}` shows which keys clients know"))
    }

    pub(super) fn json(&self) -> Value {
        json!({ "site": self.0.site, "pin": self.0.pin })
    }
}

/// A chain in use that breaks promises of other nodes.
pub(super) struct BrokenHere {
    here: LockedOutSite,
    promises: usize,
    /// The time until which their clients are locked out.
    until: Seconds,
    /// The keys that are in all of them.
    fit: Vec<Pin>,
}

impl BrokenHere {
    fn new(here: LockedOutSite, broken: &[&Promise]) -> Self {
        let mut fit = broken.first().map(|promise| promise.pins.clone()).unwrap_or_default();
        fit.retain(|pin| broken.iter().all(|promise| promise.is_kept_by(&[*pin])));
        let until = broken.iter().map(|promise| promise.honoured_until()).max().unwrap_or_default();
        Self { here, promises: broken.len(), until, fit }
    }

    /// The warning about it.
    pub(super) fn reason(&self) -> Reason {
        let Self { here: LockedOutSite { site, pin, .. }, promises, until, fit } = self;
        let until = minute(*until);
        let sets = if *promises == 1 { "a set".to_owned() } else { format!("{promises} sets") };
        let reason = Reason::new(format!(
            "{site}: the chain in use ({pin}) has no key of {sets} of pins that are new here: readers who hold them are \
             locked out by this node until {until}"
        ));
        let fit: Vec<String> = fit.iter().map(ToString::to_string).collect();
        match fit.is_empty() {
            true => reason.note(format!("no key is in all of these sets: no chain keeps them all until {until}")),
            false => reason.hint(format!(
                "have this node serve a key of theirs, {}: {}",
                fit.join(" or "),
                pintle(format_args!("install --site {} CHAIN KEY", shell_word(site)))
            )),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "site": self.here.site,
            "pin": self.here.pin,
            "promises": self.promises,
            "until": rfc3339(self.until),
            "fit": self.fit.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

/// Judges the chains in use by new records: those of the running process, or else those on disk.
pub(super) fn forecast(draft: &Draft, records: &[Record]) -> Result<Forecast, Reason> {
    let known = glance_at_book(draft)?;
    let mut other = Book::default();
    records.iter().for_each(|record| _ = other.apply(record.clone()));
    let news = known.book.news(&other);
    let served = match draft.admin().map_or(Ok(None), |address| ask_for_served(&address)) {
        Ok(served) => served,
        Err(error) => {
            super::warn(&format!("{error}: judged only by the files").into());
            None
        }
    };
    let is_running = served.is_some();
    let sites = match served {
        Some(served) => Sites::of(&served),
        None => match draft.build(&context(draft, &known, &Like::start(false))) {
            (Some(config), _) => Sites::of_reports(config.sites()),
            (None, problems) => {
                super::print_problems(&problems);
                super::warn(&"with these errors, the effect of the merge on the sites is unknown".into());
                Sites::default()
            }
        },
    };
    let mut merged = known.book.clone();
    news.iter().for_each(|record| _ = merged.apply(record.clone()));
    let new = News::of(&news);
    let promises: Vec<Promise> = merged.promises().iter().filter(|p| new.has(p)).cloned().collect();
    let broken =
        sites.breaking(&promises, known.now).into_iter().map(|(here, promises)| BrokenHere::new(here, &promises));
    let unknown = match is_running {
        true => Vec::new(),
        false => draft.excuses(&new, |promise| !new.has(promise), &merged, known.now).unknown,
    };
    let burnt = sites.with_key(|pin| new.burns(pin)).into_iter().map(BurntHere).collect();
    Ok(Forecast { news: news.len(), broken: broken.collect(), burnt, unknown })
}
