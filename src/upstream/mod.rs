//! Upstreams: their names, connections, health, requests and responses.

mod at_once;
mod send;
mod unprocessed;
mod response;
mod filtered;
mod http1;
mod http2;
mod replay;
mod request;
pub mod rewrite;
mod interim;
mod pool;
pub mod check;
mod health;
pub mod tls;
pub mod dns;
mod settings;
mod error;

pub use at_once::{Forwarded, Forwarding};
pub use error::{HeadLimit, Sign, UpstreamError};
pub use health::{BreakerRule, Circuit, Health, HealthCheck};
pub use http1::UpgradedConnection;
pub use interim::Interim;
pub use pool::{Pool, PoolLimits};
pub use request::{Client, PSEUDONYM, UpstreamRequest, is_grpc, is_reserved, is_vouched, own_hops, strong_tags};
pub use response::{ResponseBody, UpstreamResponse};
pub use settings::{HostHeader, Upstream, UpstreamTls, UpstreamTransport};
