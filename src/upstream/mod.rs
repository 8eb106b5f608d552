//! The way to the upstream: names, connections, requests out, responses in.

pub mod check;
mod error;
mod exchange;
mod health;
mod http1;
mod http2;
mod pool;
mod replay;
mod request;
mod response;
mod interim;
mod settings;
pub mod dns;
pub mod rewrite;
pub mod tls;

pub use error::{Sign, UpstreamError};
pub use exchange::{Forwarded, Forwarding};
pub use health::{BreakerRule, Check, Circuit, Health};
pub use http1::Upgraded;
pub use interim::Interim;
pub use pool::{Pool, PoolLimits};
pub use request::{Client, PSEUDONYM, UpstreamRequest, is_grpc, is_reserved, is_vouched, own_hops};
pub use response::{Response, ResponseBody};
pub use settings::{HostHeader, Upstream, UpstreamTls, UpstreamTransport};
