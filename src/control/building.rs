//! Candidates for the configuration in use: a draft is built with the pairs in use, the ledger and the time.

use super::Control;
use crate::config::{AcceptedByCommand, CheckContext, Config, Draft, MayLack, Problems, Stamps, StandIn};

/// The sites that keep their present pairs if the files on disk are unfit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keep {
    /// No site, and no pair either.
    NoPair,
    /// No site: the whole configuration is refused. Pairs in use stay.
    Nothing,
    /// Sites that cannot be served.
    Unfit,
    /// Also sites with a shorter chain, which may be half written; except the named sites.
    UnfitAndShorter(Vec<String>),
}

impl Control {
    /// Builds the draft again, with the pairs in use.
    pub(super) fn build(
        &self,
        draft: &Draft,
        keep: Keep,
        accept: Option<AcceptedByCommand>,
    ) -> (Option<Config>, Problems) {
        self.resolve_with(draft, Stamps::default(), keep, accept)
    }

    /// The same, with the stamps of files just looked at.
    pub(super) fn resolve_with(
        &self,
        draft: &Draft,
        looked: Stamps,
        keep: Keep,
        accept: Option<AcceptedByCommand>,
    ) -> (Option<Config>, Problems) {
        let now = self.now();
        let ledger = self.ledger();
        let named = self.files.named.borrow();
        let context = CheckContext {
            before: Some(&*self.config),
            keeps_sites: !matches!(keep, Keep::NoPair | Keep::Nothing),
            stand_in: if keep == Keep::NoPair { StandIn::Never } else { StandIn::Always },
            may_lack: if self.strict || keep == Keep::NoPair { MayLack::None } else { MayLack::All },
            waits_for_chains: match keep {
                Keep::UnfitAndShorter(settled) => Some(settled),
                Keep::NoPair | Keep::Nothing | Keep::Unfit => None,
            },
            accept,
            looked,
            named: Some(&*named),
            ..CheckContext::new(ledger.book(), now)
        };
        draft.build(&context)
    }
}
