//! What a request asks for: the host, and by it the site; and who asks.

use std::rc::Rc;

use super::context::Context;
use super::snapshot::{SiteOfView, View};
use crate::message::{RequestHead, TargetScheme, Version};
use crate::policy::Scheme;
use crate::policy::forwarded::{Origin, origin};

/// What is known of a request before anything is done about it.
pub(super) struct Asked {
    pub(super) view: Rc<View>,
    pub(super) site: Option<SiteOfView>,
    pub(super) origin: Origin,
    /// Whether the request itself names its host: where it does not, no policy goes with the answer.
    pub(super) names_host: bool,
}

impl Asked {
    /// `true` if the request is a trusted proxy's own, and not one that it passes on for a stranger.
    pub(super) fn is_trusted(&self, context: &Context) -> bool {
        context.client.peer.proxy.is_some() && self.view.shared.trust.contains(self.origin.client)
    }
}

/// Finds site and client of a request.
pub(super) fn read(head: &mut RequestHead, context: &Context) -> Asked {
    let view = context.worker.view();
    let names_host = !head.host_bytes().is_empty();
    if !names_host
        && head.version == Version::Http10
        && let Some(name) = context.name()
    {
        // RFC 9112 section 3.3: HTTP/1.0 needs no Host, and by TLS the client has named one before. It is a name that the
        // resolver of certificates has read; if it were none, the request would be for no site.
        let _ = head.set_authority(name.as_bytes());
    }
    let site = view.site(head.host_bytes());
    let origin = origin(&context.client.peer, &head.fields, &view.shared.trust);
    head.drop_default_port(match origin.scheme {
        Scheme::Http => TargetScheme::Http,
        Scheme::Https => TargetScheme::Https,
    });
    Asked { view, site, origin, names_host }
}

/// The same for a request that is refused by its head; none unless it is certain for which host it is.
pub(super) fn read_refused(head: &mut RequestHead, context: &Context) -> Option<Asked> {
    (!head.host_bytes().is_empty()).then(|| read(head, context))
}
