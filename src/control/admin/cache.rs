//! Questions and commands about caches.

use serde_json::Value;
use tokio::sync::oneshot;

use crate::admin::api::Call;
use crate::admin::asked::parameter;
use crate::reason::Reason;

/// The answer to a purge.
pub(in crate::control) type PurgeReply = oneshot::Sender<Result<Value, Reason>>;

/// A question or a command about caches.
#[derive(Debug)]
pub(in crate::control) struct CacheCall {
    pub(in crate::control) url: Option<String>,
    pub(in crate::control) prefix: Option<String>,
    pub(in crate::control) tag: Option<String>,
    pub(in crate::control) site: Option<String>,
    pub(in crate::control) is_soft: bool,
}

impl CacheCall {
    /// Reads the query of a call.
    pub(in crate::control) fn of(call: &Call) -> Self {
        let named = |name| parameter(&call.query, name).filter(|value| !value.is_empty());
        let is_soft = call.query.split('&').any(|part| part == "soft" || part == "soft=true");
        Self { url: named("url"), prefix: named("prefix"), tag: named("tag"), site: named("site"), is_soft }
    }
}
