//! Filters trailers: those of gRPC pass, and those that the site's rules name.

use super::snapshot::SiteOfView;
use crate::wire::body::{Frame, RequestBodyError};

/// Removes the trailers that may not pass from a frame of a request's body. The body ends there if none is left.
pub(super) fn of_request(
    frame: Option<Result<Frame, RequestBodyError>>,
    site: Option<&SiteOfView>,
) -> Option<Result<Frame, RequestBodyError>> {
    let Some(Ok(Frame::Trailers(mut fields))) = frame else { return frame };
    // gRPC requests have no trailers.
    site?.request.keep_trailers(&mut fields, None);
    (!fields.is_empty()).then_some(Ok(Frame::Trailers(fields)))
}
