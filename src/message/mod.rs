//! HTTP messages: heads as lists of fields over one buffer, and bodies by their framing.
//!
//! Both sides (client and upstream) and both versions (HTTP/1.1 and HTTP/2) share these types, so
//! that each rule about fields exists once. A request is parsed or copied into a [`RequestHead`].
//! pintle writes the outgoing head from it, through a [`FieldSink`].

mod chunked;
mod fault;
mod field;
mod head;
mod http1;
mod known_name;
mod parse_progress;
mod name;
mod sink;
mod tag;
mod target;
mod trailer;

pub use chunked::{BodyDecoder, BodyFault, Decoded};
pub use fault::HeadFault;
pub use field::{Field, Fields, has_token, tokens};
pub use head::{Framing, RequestHead, ResponseHead, TargetScheme, Version};
pub use http1::{HeadLimits, ResponseLimits, content_length, field_fits, parse_length, parse_request, parse_response};
pub use name::{Name, folded, folds_to};
pub use parse_progress::ParseProgress;
pub use sink::{FieldSink, HeaderMapSink, Rendered, bytes_of, is_token};
pub use tag::{UpstreamTags, strengthened};
pub use target::TARGET_MAX;
pub use trailer::is_forbidden_trailer;
