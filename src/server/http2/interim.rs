//! Sends interim responses into a stream.

use std::cell::RefCell;
use std::rc::Rc;

use h2::server::SendResponse;
use http::Response as HttpResponse;

use super::memory::{ChargedBytes, Share};
use crate::message::{FieldSink as _, HeaderMapSink, ResponseHead};
use crate::server::interim::{InterimFilter, PassedPart};
use crate::upstream::Interim;

/// Passes interim responses into a stream, while its memory lasts.
pub(super) struct StreamInterim<'a> {
    respond: &'a RefCell<SendResponse<ChargedBytes>>,
    filter: InterimFilter<'a>,
    share: Rc<Share>,
}

impl<'a> StreamInterim<'a> {
    pub(super) fn new(
        respond: &'a RefCell<SendResponse<ChargedBytes>>,
        filter: InterimFilter<'a>,
        share: Rc<Share>,
    ) -> Self {
        Self { respond, filter, share }
    }
}

impl Interim for StreamInterim<'_> {
    fn interim(&mut self, head: &ResponseHead) {
        let Some(passed) = self.filter.pass(head) else { return };
        let mut fields = HeaderMapSink::default();
        if let PassedPart::Hints = passed {
            let mut bytes = 0;
            for (name, value) in self.filter.hints(head) {
                bytes += name.len() + value.len();
                fields.field(name, &value);
            }
            if !self.share.hold_interim(bytes) {
                return;
            }
        }
        let mut response = HttpResponse::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = fields.0;
        let _ = self.respond.borrow_mut().send_informational(response);
    }
}
