//! The counts that a request holds until it is over.

use std::rc::Rc;

use super::rate_counts::ClientKey;
use super::snapshot::View;
use crate::policy::rate::{QuotaState, RequestRate};

/// The counts that a request holds until it is over, and the quota that its answer shows.
pub(super) struct HeldRates {
    pub(super) view: Rc<View>,
    pub(super) taken: Vec<Taken>,
    pub(super) shown: Option<ShownQuota>,
    /// The name of the rule that refuses the request.
    pub(super) refused_by: Option<Box<str>>,
}

/// A request that a rule has admitted.
pub(super) struct Taken {
    pub(super) key: ClientKey,
    pub(super) rate: Option<RequestRate>,
    /// `true` if it counts as under way.
    pub(super) counted: bool,
}

/// The quota of the rule that admits the fewest further requests.
pub(super) struct ShownQuota {
    pub(super) name: Box<str>,
    pub(super) rate: RequestRate,
    pub(super) state: QuotaState,
}

impl Drop for HeldRates {
    fn drop(&mut self) {
        let Some(rates) = &self.view.shared.rates else { return };
        self.taken.iter().filter(|taken| taken.counted).for_each(|taken| rates.counts.release(taken.key));
    }
}
