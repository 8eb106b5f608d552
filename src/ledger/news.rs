//! Records that are new to a node, by what they may refuse.

use std::collections::HashSet;

use super::line::set_id;
use super::record::{Burnt, Record};
use crate::keys::pin::Pin;
use crate::policy::promise::Promise;

/// New records that may refuse chains: sets that chains may break, and burnt keys.
#[derive(Debug, Clone, Default)]
pub struct News {
    sets: HashSet<String>,
    burnt: HashSet<Pin>,
}

impl News {
    /// Returns what some records may refuse.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let mut news = Self::default();
        for record in records {
            match record {
                Record::Promise(promise) => _ = news.sets.insert(set_id(promise)),
                Record::Burnt(burnt) => _ = news.burnt.insert(burnt.pin),
                Record::Unknown(json) => {
                    news.sets.extend(Record::strictest(json).as_ref().map(set_id));
                    news.burnt.extend(Burnt::strictest(json).map(|burnt| burnt.pin));
                }
                _ => {}
            }
        }
        news
    }

    /// Returns `true` if nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.burnt.is_empty()
    }

    /// Returns `true` if a promise is new.
    #[must_use]
    pub fn has(&self, promise: &Promise) -> bool {
        self.sets.contains(&set_id(promise))
    }

    /// Returns `true` if it is new that a key is burnt.
    #[must_use]
    pub fn burns(&self, pin: Pin) -> bool {
        self.burnt.contains(&pin)
    }
}
