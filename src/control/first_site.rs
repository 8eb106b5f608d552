//! `pintle init` over the API: looks at a blog, and returns the configuration with its site. Changes nothing.

use http::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::admin::{AdminCommand, PageQuestion};
use super::config;
use crate::acme::request::ask;
use crate::admin::api::Answer;
use crate::host::bare;
use crate::init::conclude::{Conclusion, conclude};
use crate::init::given::{email, hosts};
use crate::init::json;
use crate::init::probe::{BlogTarget, Prober};
use crate::init::write::{Wishes, render};
use crate::reason::Reason;
use crate::upstream::dns::{NameServers, Resolver};
use crate::verify::target::{ConnectTo, Url};
use crate::verify::trust;

/// One look at a time: each sends up to eight requests.
static LOOKING: Semaphore = Semaphore::const_new(1);

/// The answers of the operator.
#[derive(Deserialize)]
struct WantedSite {
    /// The blog's URL.
    url: String,
    /// The site's names, separated by spaces or commas.
    hosts: String,
    /// The address for the certificate authority; empty for certificates from elsewhere.
    #[serde(default)]
    email: String,
    /// The operator agrees to the terms of the authority.
    #[serde(default)]
    terms: bool,
    /// Active pins.
    #[serde(default)]
    pins: bool,
}

/// Looks at the blog, and returns the configuration with its site.
pub(super) async fn init(body: &[u8], commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let wanted: WantedSite = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => return Answer::bad(&error.to_string()),
    };
    let (file, tag) = match config::text_of_file(commands).await {
        Ok(read) => read,
        Err(answer) => return answer,
    };
    let servers = match ask(commands, |reply| AdminCommand::View { question: PageQuestion::NameServers, reply }).await {
        Some(Ok(servers)) => NameServers(serde_json::from_value(servers).unwrap_or_default()),
        Some(Err(refusal)) => return refusal.answer(),
        None => return Answer::gone(),
    };
    let Ok(_looking) = LOOKING.try_acquire() else {
        let reason = Reason::new("pintle looks at another blog just now").hint("ask again when that has ended");
        return Answer::refused(StatusCode::CONFLICT, &reason);
    };
    let wishes = match wishes(&wanted) {
        Ok(wishes) => wishes,
        Err(reason) => return Answer::refused(StatusCode::UNPROCESSABLE_ENTITY, &reason),
    };
    match look(&wanted, servers).await {
        Ok(conclusion) => {
            let added = render(&conclusion, &wishes);
            let report = json::report(&conclusion, None, &added);
            let gap = if file.is_empty() || file.ends_with("\n\n") { "" } else { "\n" };
            let text = format!("{file}{gap}{added}");
            let body = json!({ "text": text, "tag": tag, "added": added, "report": report });
            Answer { etag: Some(tag), ..Answer::json(StatusCode::OK, body) }
        }
        Err(reason) => Answer::refused(StatusCode::UNPROCESSABLE_ENTITY, &reason),
    }
}

fn wishes(wanted: &WantedSite) -> Result<Wishes, Reason> {
    let email = match wanted.email.trim() {
        "" => None,
        text => Some(email(text).map_err(|why| Reason::new(format!("email: {why}")))?),
    };
    Ok(Wishes {
        email,
        terms: wanted.terms,
        pins: wanted.pins,
        // The file has its own [state], or needs none.
        is_system: true,
        day: Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string(),
        path: "FILE".to_owned(),
    })
}

/// Sends the requests. Names are looked up as for upstreams, since the sandbox hides the files of the C library.
async fn look(wanted: &WantedSite, servers: NameServers) -> Result<Conclusion, Reason> {
    let text = wanted.url.trim();
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url: Url = text.parse().map_err(|why| Reason::new(format!("url: {why}")))?;
    let hosts = hosts(&wanted.hosts).map_err(|why| Reason::new(format!("hosts: {why}")))?;
    let unreachable = |why: String| {
        let reason = Reason::new(format!("{url}: cannot be reached: {why}")).hint("check the URL");
        let port = url.port;
        reason.hint(format!("if the sandbox forbids the port: connect_ports = [{port}] in [sandbox], then a restart"))
    };
    let found = Resolver::new(servers).addresses(bare(&url.host), url.port).await.map_err(unreachable)?;
    let address = found.first().ok_or_else(|| unreachable("no address".to_owned()))?;
    let connect = Some(ConnectTo { host: address.ip().to_string(), port: None });
    let (trust, now) = (trust::of_browsers(), Timestamp::now());
    let asked = BlogTarget { url: url.clone(), connect, connect_http: None, trust, now };
    let mut prober = Prober::new(&asked);
    let mut evidence = prober.first().await.map_err(unreachable)?;
    evidence.set_hosts(hosts);
    let choice = prober.rest(&mut evidence).await;
    // The address is not the operator's wish: the file names it only if it must.
    Ok(conclude(&evidence, &BlogTarget { connect: None, ..asked.clone() }, choice, None))
}
