//! Which trailers pass: those of gRPC, and those that the site's rules name.

use super::snapshot::SiteOfView;
use crate::wire::body::{Frame, RequestBodyError};

/// A piece of a request's body, without the trailers that may not pass; without any, the body ends there.
pub(super) fn of_request(
    frame: Option<Result<Frame, RequestBodyError>>,
    site: Option<&SiteOfView>,
) -> Option<Result<Frame, RequestBodyError>> {
    let Some(Ok(Frame::Trailers(mut fields))) = frame else { return frame };
    // Requests of gRPC have none.
    site?.request.keep_trailers(&mut fields, None);
    (!fields.is_empty()).then_some(Ok(Frame::Trailers(fields)))
}
