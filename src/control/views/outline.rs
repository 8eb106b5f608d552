//! The outline of the configuration in use, made once: pages ask for it again and again, and ten thousand sites are many.

use std::sync::Arc;

use crate::config::Outline;
use crate::control::Control;
use crate::control::state::KnownOutline;

impl Control {
    /// The sites and their files, as the configuration in use names them; `None` if it is not TOML.
    pub(in crate::control) fn outline(&self) -> Option<Arc<Outline>> {
        let KnownOutline(known) = &self.observed.outline;
        let draft = Arc::downgrade(&self.draft);
        if let Some((_, outline)) = known.borrow().as_ref().filter(|(of, _)| of.ptr_eq(&draft)) {
            return Some(outline.clone());
        }
        let outline = Arc::new(self.draft.outline()?);
        known.replace(Some((draft, outline.clone())));
        Some(outline)
    }
}
