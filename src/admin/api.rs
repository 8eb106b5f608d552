//! The API of the running process, as its pages and commands see it: calls, answers, and the list of paths.

use std::future::Future;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::config::admin::AdminRole;
use crate::reason::Reason;

/// The prefix of the API's paths. Paths without it are aliases, for commands of an older version.
pub const VERSION: &str = "/v1";
/// A path of test builds only.
const ATTEMPT: &str = "/attempt";
/// The content type of JSON.
pub const JSON: &str = "application/json";

/// A path of the API.
#[derive(Debug, Clone, Copy)]
pub struct ApiPath {
    /// The path behind [`VERSION`].
    pub path: &'static str,
    /// The methods, each with the role that it needs.
    pub methods: &'static [(Method, AdminRole)],
    /// The longest body, in bytes; 0 if the path reads none.
    pub body: usize,
}

const fn path(path: &'static str, methods: &'static [(Method, AdminRole)]) -> ApiPath {
    ApiPath { path, methods, body: 0 }
}

impl ApiPath {
    const fn body(self, body: usize) -> Self {
        Self { body, ..self }
    }
}

/// The longest body with records: a ledger of another node.
const RECORDS_MAX: usize = 64 << 20;
/// The longest wish for a key or a first site, in bytes.
const KEY_MAX: usize = 4 << 10;
/// The longest question, in bytes. The answer to it is bounded, too: it repeats each field of the question up to three
/// times.
const QUESTION_MAX: usize = 256 << 10;

/// The longest file whose pin is asked for, or whose roots are trusted, in bytes: any chain fits well.
const KEY_FILE_MAX: usize = 64 << 10;
/// The longest chain to judge, in bytes: a file of the longest length, as a string of JSON.
const JUDGED_MAX: usize = 2 << 20;
/// The longest wish to install, in bytes: a chain and a key, in base64.
pub const INSTALL_MAX: usize = 512 << 10;
/// The longest report of the doctor, in bytes.
const DOCTOR_MAX: usize = 256 << 10;

/// Every path of the API, as a pattern of [`fits`]. `docs/reference/openapi.json` describes them, and a test compares both.
pub const PATHS: &[ApiPath] = &[
    path("/acme", &[(Method::GET, AdminRole::View)]),
    path("/acme/renew", &[(Method::POST, AdminRole::Operate)]),
    path("/acme/revoke", &[(Method::POST, AdminRole::Configure)]),
    path("/cache", &[(Method::GET, AdminRole::View)]),
    path("/certificates", &[(Method::POST, AdminRole::Operate)]),
    path("/certificates/judge", &[(Method::POST, AdminRole::View)]).body(JUDGED_MAX),
    path("/config", &[(Method::GET, AdminRole::View), (Method::PUT, AdminRole::Configure)]).body(RECORDS_MAX),
    path("/config/check", &[(Method::POST, AdminRole::Configure)]).body(RECORDS_MAX),
    path("/config/diff", &[(Method::GET, AdminRole::View)]),
    path("/config/history", &[(Method::GET, AdminRole::View)]),
    path("/config/history/*", &[(Method::GET, AdminRole::View)]),
    path("/config/restore", &[(Method::POST, AdminRole::Configure)]),
    path("/config/text", &[(Method::GET, AdminRole::Configure)]),
    path("/doctor", &[(Method::GET, AdminRole::View), (Method::POST, AdminRole::Operate)]).body(DOCTOR_MAX),
    path("/explain", &[(Method::POST, AdminRole::View)]).body(QUESTION_MAX),
    path("/fingerprint", &[(Method::GET, AdminRole::View), (Method::POST, AdminRole::View)]).body(KEY_FILE_MAX),
    path("/hook/test", &[(Method::POST, AdminRole::Operate)]),
    path("/init", &[(Method::POST, AdminRole::Configure)]).body(KEY_MAX),
    path("/install", &[(Method::GET, AdminRole::View), (Method::POST, AdminRole::Operate)]).body(INSTALL_MAX),
    path("/keys", &[(Method::GET, AdminRole::View), (Method::POST, AdminRole::Configure)]).body(KEY_MAX),
    path("/keys/csr", &[(Method::GET, AdminRole::View)]),
    path("/keys/withdraw", &[(Method::POST, AdminRole::Configure)]),
    path("/ledger", &[(Method::GET, AdminRole::View), (Method::POST, AdminRole::Configure)]).body(RECORDS_MAX),
    path("/ledger/promise", &[(Method::POST, AdminRole::Configure)]).body(RECORDS_MAX),
    path("/metrics", &[(Method::GET, AdminRole::View)]),
    path("/overview", &[(Method::GET, AdminRole::View)]),
    path("/page/browser", &[(Method::POST, AdminRole::Configure)]),
    path("/page/link", &[(Method::POST, AdminRole::Configure)]),
    path("/pins", &[(Method::GET, AdminRole::View)]),
    path("/promised", &[(Method::GET, AdminRole::View)]),
    path("/purge", &[(Method::POST, AdminRole::Operate)]),
    path("/rates", &[(Method::GET, AdminRole::View)]),
    path("/ready", &[(Method::GET, AdminRole::View)]),
    path("/records", &[(Method::GET, AdminRole::View)]),
    path("/reload", &[(Method::POST, AdminRole::Operate)]),
    path("/rotation", &[(Method::GET, AdminRole::View)]),
    path("/served", &[(Method::GET, AdminRole::View)]),
    path("/site", &[(Method::GET, AdminRole::View)]),
    path("/sites", &[(Method::GET, AdminRole::View)]),
    path("/status", &[(Method::GET, AdminRole::View)]),
    path("/upgrade", &[(Method::POST, AdminRole::Configure)]),
    path("/verify", &[(Method::POST, AdminRole::Operate)]).body(KEY_FILE_MAX),
];

/// Returns the entry of a path, which may begin with the version; `None` if the API has no such path.
#[must_use]
pub fn find(path: &str) -> Option<&'static ApiPath> {
    let path = without_version(path);
    PATHS.iter().find(|known| fits(known.path, path))
}

/// `true` if a path fits a pattern: a segment `*` of the pattern matches one segment of any name.
#[must_use]
pub fn fits(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(segment)) if !segment.is_empty() => {}
            (Some(wanted), Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
}

/// Returns a path without the version: the alias of its name.
#[must_use]
pub fn without_version(path: &str) -> &str {
    path.strip_prefix(VERSION).filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// `true` if a path belongs to the API, and not to a page.
#[must_use]
pub fn is_api(path: &str) -> bool {
    path == VERSION
        || path.starts_with("/v1/")
        || find(path).is_some_and(ApiPath::has_alias)
        || cfg!(debug_assertions) && path == ATTEMPT
}

impl ApiPath {
    /// `true` if commands of an older version know the path, without its version. Pages have the names of the others.
    #[must_use]
    pub fn has_alias(&self) -> bool {
        !["/config", "/init", "/install", "/keys", "/verify"].iter().any(|pages| self.path.starts_with(pages))
    }

    /// The methods, as the field `Allow` lists them. HEAD is GET without a body.
    #[must_use]
    pub fn allow(&self) -> String {
        let names = self.methods.iter().map(|(method, _)| match *method {
            Method::GET => "GET, HEAD",
            ref other => other.as_str(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    /// The role that a method needs; `None` if the path does not have the method.
    #[must_use]
    pub fn role(&self, method: &Method) -> Option<AdminRole> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.methods.iter().find(|(known, _)| known == method).map(|(_, role)| *role)
    }
}

/// A call of the API.
#[derive(Debug, Clone)]
pub struct Call {
    /// GET, POST, PUT or DELETE.
    pub method: Method,
    /// The path, with the version.
    pub path: String,
    /// The query as sent; empty without one.
    pub query: String,
    /// The body; empty without one.
    pub body: Bytes,
    /// The field `If-Match`: the change is made only if this is still the state's tag.
    pub if_match: Option<String>,
    /// The field `Accept`; empty without one.
    pub accept: String,
    /// The caller, for logs and histories. The admin listener sets it; pages leave it empty.
    pub who: String,
    /// `true` if nobody on the way can read the call: it came over a Unix socket, a loopback address or TLS. The admin
    /// listener sets it.
    pub is_confidential: bool,
    /// `true` if the caller may see the secrets of the configuration: with the role `configure`. The admin listener sets it.
    pub shows_secrets: bool,
}

impl Call {
    /// A call with a method and a path.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let (query, body, accept, who) = (String::new(), Bytes::new(), String::new(), String::new());
        let (if_match, is_confidential, shows_secrets) = (None, false, false);
        Self { method, path: path.into(), query, body, if_match, accept, who, is_confidential, shows_secrets }
    }

    /// A question: GET.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A command: POST.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// The same call with one more parameter in its query.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let before = if self.query.is_empty() { "" } else { "&" };
        self.query = format!("{}{before}{name}={}", self.query, super::asked::encoded(value));
        self
    }

    /// The same call with a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same call with a JSON body.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.body(value.to_string())
    }

    /// The same call, made only if the state still has this tag.
    #[must_use]
    pub fn if_match(mut self, tag: impl Into<String>) -> Self {
        self.if_match = Some(tag.into());
        self
    }
}

/// The answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The tag of the state that the body shows, for `If-Match`.
    pub etag: Option<String>,
    /// The content type: [`JSON`], or that of a text.
    pub kind: &'static str,
    /// The JSON; for another content type, a string that is sent as it is.
    pub body: Value,
    /// The methods, if this one is not allowed.
    pub allow: Option<String>,
}

impl Answer {
    /// An answer in JSON.
    #[must_use]
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self { status, etag: None, kind: JSON, body, allow: None }
    }

    /// A text.
    #[must_use]
    pub fn text(kind: &'static str, text: String) -> Self {
        Self { kind, ..Self::json(StatusCode::OK, Value::String(text)) }
    }

    /// An error in JSON.
    #[must_use]
    pub fn error(status: StatusCode, why: &str) -> Self {
        Self::json(status, json!({ "error": why }))
    }

    /// An error in JSON, with its remedies.
    #[must_use]
    pub fn refused(status: StatusCode, reason: &Reason) -> Self {
        let (hints, commands, hint) = (&reason.hints, &reason.commands, reason.hint_line());
        let body = json!({ "error": reason.line(), "hints": hints, "commands": commands, "hint": hint });
        Self::json(status, body)
    }

    /// 400: the call is malformed.
    #[must_use]
    pub fn bad(why: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, why)
    }

    /// 403: the caller has a lower role.
    #[must_use]
    pub fn needs_role(role: AdminRole) -> Self {
        Self::error(StatusCode::FORBIDDEN, &format!("this needs the role {role}"))
    }

    /// 503: this process is stopping.
    #[must_use]
    pub fn gone() -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, "pintle is stopping")
    }

    /// `true` for 2xx.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status.is_success()
    }
}

/// The API of the running process.
pub trait Api {
    /// Makes a call, and waits for its answer.
    fn call(&self, call: Call) -> impl Future<Output = Answer>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_their_aliases() {
        for path in ["/status", "/v1/status"] {
            assert_eq!(find(path).map(|p| p.path), Some("/status"), "{path}");
        }
        for path in ["/", "/v1", "/v1/", "/v1status", "/v1/v1/status", "/status/", "/v2/status"] {
            assert!(find(path).is_none(), "{path}");
        }
        assert!(is_api("/v1/none") && !is_api("/none") && !is_api("/v10/status"));
        let ledger = find("/ledger").unwrap();
        assert_eq!(ledger.allow(), "GET, HEAD, POST");
        assert_eq!(ledger.role(&Method::HEAD), Some(AdminRole::View));
        assert_eq!(ledger.role(&Method::POST), Some(AdminRole::Configure));
        assert_eq!(ledger.role(&Method::PUT), None);
    }

    #[test]
    fn calls_encode_their_parameters() {
        let call = Call::get("/v1/promised").with("site", "a&b=c d").with("x", "é");
        assert_eq!(call.query, "site=a%26b%3Dc%20d&x=%C3%A9");
    }
}
