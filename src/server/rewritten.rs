//! The facts about rewritten references that a request keeps.

use std::cell::Cell;
use std::rc::Rc;

use crate::message::RequestHead;
use crate::mixed::media::may_be_rewritten;
use crate::site::Site;

/// The number of references that were rewritten in an answer, so far.
pub(super) type RewrittenCount = Rc<Cell<u64>>;

/// `true` if the target of a request may have a rewritten body.
pub(super) fn may_rewrite(site: &Site, head: &RequestHead) -> bool {
    site.mixed.as_ref().is_some_and(|mixed| mixed.rewrites.is_some()) && may_be_rewritten(head.target_bytes())
}
