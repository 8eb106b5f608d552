//! A request to explain.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A request to explain, as the operator describes it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedRequest {
    /// The URL.
    pub url: String,
    /// The address of the peer.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// The fields of the request.
    #[serde(default)]
    pub fields: Vec<(String, String)>,
    /// `true` if it comes by the plain listener, whatever the URL says.
    #[serde(default)]
    pub http: bool,
    /// The method; GET if none is named.
    #[serde(default)]
    pub method: Option<String>,
    /// The PROXY header before the request: a line of version 1, or version 2 as `hex:`.
    #[serde(default)]
    pub proxy: Option<String>,
    /// The fields of the upstream's response.
    #[serde(default)]
    pub response_fields: Vec<(String, String)>,
    /// `true` if it comes over HTTP/2.
    #[serde(default)]
    pub http2: bool,
    /// The name in SNI; that of the URL if none is named.
    #[serde(default)]
    pub sni: Option<String>,
}
