//! The outcome of a change, as the first thing on the page.

use crate::admin::page::value::WayOut;
use crate::config::history::short;

/// The outcome of a change.
pub(super) struct ConfigEvent {
    pub(super) class: &'static str,
    pub(super) icon: &'static str,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) notes: Vec<String>,
    pub(super) hints: Vec<WayOut>,
    /// The version that is said to be in use.
    pub(super) version: Option<String>,
}

impl ConfigEvent {
    /// A failure.
    pub(super) fn bad(title: &str) -> Self {
        let (text, notes, hints) = (String::new(), Vec::new(), Vec::new());
        Self { class: "v-bad", icon: "bad", title: title.to_owned(), text, notes, hints, version: None }
    }

    /// A change that was applied, by the id of its version; empty if that is not kept yet. `None` for anything else.
    pub(super) fn applied(id: &str) -> Option<Self> {
        id.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
        let version = (!id.is_empty()).then(|| id.to_owned());
        let kept = version.as_ref().map(|id| format!(" It is version {}.", short(id)));
        let way_back = "The history below can bring the version before it back.";
        let text = format!("pintle serves this text now.{} {way_back}", kept.unwrap_or_default());
        Some(Self { class: "v-ok", icon: "ok", text, version, ..Self::bad("Applied") })
    }
}
