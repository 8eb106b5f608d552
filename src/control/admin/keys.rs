//! The question for the keys of the sites.

use http::StatusCode;

use crate::admin::api::Answer;
use crate::admin::asked::parameter;
use crate::config::report;
use crate::reason::Reason;

/// The longest text to search for, in bytes: a host name.
const SEARCH_MAX: usize = 253;

/// The part of the list that is wanted.
pub(in crate::control) struct WantedKeys {
    /// A part of a host name.
    search: String,
    /// The page, from 1; `None` for all sites.
    pub(in crate::control) page: Option<usize>,
}

impl WantedKeys {
    pub(in crate::control) fn of(query: &str) -> Result<Self, Answer> {
        let search = parameter(query, "q").unwrap_or_default().trim().to_lowercase();
        if search.len() > SEARCH_MAX {
            let reason = Reason::new(format!("q: longer than {SEARCH_MAX} bytes"));
            return Err(Answer::refused(StatusCode::BAD_REQUEST, &reason.hint("a part of a host name is enough")));
        }
        let page = parameter(query, "page").map(|page| page.parse().unwrap_or(1).max(1));
        Ok(Self { search, page })
    }

    /// Looks for the text in the names of a site.
    pub(in crate::control) fn in_names(&self) -> impl Fn(&report::SiteReport) -> bool {
        super::in_names(&self.search)
    }
}
