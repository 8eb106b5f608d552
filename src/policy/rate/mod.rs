//! Limits of requests: the rules of a site, and the pure decisions about one request.

mod addresses;
mod crawlers;
mod gcra;
mod path;

use http::Method;

pub use addresses::{AddressList, ListedAs};
pub use crawlers::crawler;
pub use gcra::{QuotaState, RequestRate};
pub use path::{NormalPath, PathPattern};

/// One table of limits: `[site.rate]` or `[[rate]]`.
#[derive(Debug, Clone)]
pub struct RateRule {
    /// Its key in the configuration: `site.rate`, or `rate[0]` for the first `[[rate]]`.
    pub key: Box<str>,
    /// Its name in fields and records.
    pub name: Box<str>,
    /// The paths that it applies to; all, if the list is empty.
    pub paths: Vec<PathPattern>,
    /// The methods that it applies to; all, if the list is empty.
    pub methods: Vec<Method>,
    /// Requests of one client.
    pub requests: Option<RequestRate>,
    /// Requests of one client under way at the same time.
    pub concurrent: Option<u32>,
    /// Requests of one crawler, from all its addresses.
    pub crawlers: Option<RequestRate>,
    /// `true` if all clients of the site share the limits.
    pub shared: bool,
    /// Addresses without limits, and addresses that are refused.
    pub addresses: AddressList,
    /// `true` if answers carry the fields RateLimit and RateLimit-Policy.
    pub fields: bool,
    /// Its identity: a rule with the same one keeps its counts over a reload.
    pub mark: u64,
}

/// The rules of one site, in the order in which they apply.
#[derive(Debug, Clone, Default)]
pub struct SiteRates {
    /// The rules.
    pub rules: Vec<RateRule>,
}

impl SiteRates {
    /// Returns the rules that apply to a request.
    pub fn of<'r>(&'r self, method: &'r Method, path: &'r str) -> impl Iterator<Item = &'r RateRule> {
        let normal = self.rules.iter().any(|rule| !rule.paths.is_empty()).then(|| NormalPath::of(path));
        self.rules.iter().filter(move |rule| {
            let method_fits = rule.methods.is_empty() || rule.methods.contains(method);
            let path_fits = || normal.as_ref().is_some_and(|normal| rule.paths.iter().any(|p| normal.fits(path, p)));
            method_fits && (rule.paths.is_empty() || path_fits())
        })
    }
}
