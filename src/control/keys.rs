//! The keys of the sites over the API: which there are, and new ones.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Control;
use super::admin::AdminCommand;
use crate::acme::request::ask;
use crate::admin::api::{Answer, Call};
use crate::config::new_key::{Algorithm, KeyFailure, KeyPath, KeyWithCsr, make};
use crate::config::{Outline, report};
use crate::export::Role;
use crate::host::file_stem;
use crate::policy::promise::Promises;
use crate::reason::Reason;

/// A key to make.
#[derive(Deserialize)]
struct WantedKey {
    /// Any host of the site.
    site: String,
    /// `next` or `spare`.
    role: String,
    /// `ecdsa-p256`, `rsa-2048` or `ed25519`.
    #[serde(default)]
    algorithm: Option<String>,
}

/// Answers a call about keys; `None` if the path has no such method.
pub(super) async fn answer(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    match call.method {
        Method::GET => Some(match ask(commands, AdminCommand::Keys).await {
            Some(keys) => Answer::json(StatusCode::OK, keys),
            None => Answer::gone(),
        }),
        Method::POST => Some(new(call, commands).await),
        _ => None,
    }
}

async fn new(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let wanted: WantedKey = match serde_json::from_slice(&call.body) {
        Ok(wanted) => wanted,
        Err(error) => return Answer::bad(&error.to_string()),
    };
    let role = match wanted.role.as_str() {
        "next" => Role::Next,
        "spare" => Role::Spare,
        _ => return Answer::bad("role: neither next nor spare"),
    };
    let algorithm = wanted.algorithm.as_deref().unwrap_or("ecdsa-p256");
    let Ok(algorithm) = <Algorithm as clap::ValueEnum>::from_str(algorithm, true) else {
        return Answer::bad("algorithm: neither ecdsa-p256, rsa-2048 nor ed25519");
    };
    let Some(outline) = ask(commands, AdminCommand::Outline).await else { return Answer::gone() };
    let Some(outline) = outline else { return Answer::bad("the configuration cannot be read") };
    let made = spawn_blocking(move || make_for(&outline, &wanted.site, role, algorithm)).await;
    made.unwrap_or_else(|panic| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()))
}

fn make_for(outline: &Outline, host: &str, role: Role, algorithm: Algorithm) -> Answer {
    let Some(site) = outline.site(host) else {
        return Answer::refused(StatusCode::NOT_FOUND, &Reason::new(format!("no site has the host {host}")));
    };
    if site.is_managed() && role != Role::Spare {
        let what = format!("{host}: pintle obtains the certificate of this site, and makes its next key by itself");
        let hint = format!("pintle key rotate --site {host}");
        return Answer::refused(StatusCode::CONFLICT, &Reason::new(what).hint(hint));
    }
    let stem = format!("{}-{}", file_stem(&site.label()), role.name());
    let place = KeyPath::free(outline, KeyPath::of(site), &stem);
    let (key, csr) = (outline.path(&place.name("key")), outline.path(&place.name("csr")));
    let command = format!("as root: pintle key new --role {} --site {host}", role.name());
    match make(outline, site, algorithm, &place) {
        Ok(KeyWithCsr { public: made, csr: pem }) => {
            tracing::info!(site = site.label(), role = role.name(), pin = %made.pin, key = %key.display(), "key made");
            let body = json!({
                "site": site.label(), "role": role.name(), "algorithm": made.algorithm.to_string(),
                "pin": made.pin.to_string(), "hex": made.pin.to_hex(), "key": key.display().to_string(),
                "csr": csr.display().to_string(), "csr_pem": pem, "name": place.name("csr"),
            });
            Answer::json(StatusCode::OK, body)
        }
        Err(KeyFailure::Exists(there)) => {
            let what = format!("{}: exists already, and pintle never overwrites a key", there.display());
            Answer::refused(StatusCode::CONFLICT, &Reason::new(what).hint("give the old one another name"))
        }
        Err(KeyFailure::NoFolder(folder)) => {
            let what = format!("{}: no such folder", folder.display());
            Answer::refused(StatusCode::CONFLICT, &Reason::new(what).hint(format!("mkdir -p {}", folder.display())))
        }
        Err(KeyFailure::Other(why)) => {
            let hint = "edit = true in [admin], then `pintle upgrade`, and write permission for the user that serves";
            Answer::refused(StatusCode::FORBIDDEN, &Reason::new(why).hint(command).hint(hint))
        }
    }
}

impl Control {
    /// The keys of all sites, with their promises.
    pub(super) fn keys(&self) -> Value {
        let ledger = self.ledger();
        let alive = Promises::alive(ledger.book().promises(), self.now());
        let moment = |seconds: i64| Timestamp::from_second(seconds).ok().map(|time| time.to_string());
        let key = |site: &report::SiteReport, role: Role, pin: crate::keys::pin::Pin, usable: Option<i64>| {
            let since = ledger.book().promised_since(site.name(), pin);
            json!({
                "role": role.name(), "pin": pin.to_string(), "hex": pin.to_hex(),
                "promised_since": since.and_then(moment), "usable_from": usable.and_then(moment),
            })
        };
        let sites = self.config.sites().zip(self.bound()).map(|(site, (hosts, except))| {
            let usable = |pin| alive.safe_from(hosts, &except, pin);
            let live = site.certificates.iter().map(|certificate| {
                let mut row = key(site, Role::Live, certificate.pin, usable(certificate.pin));
                row["algorithm"] = json!(certificate.algorithm.to_string());
                row["file"] = json!(certificate.path);
                row["not_after"] = json!(certificate.not_after.to_string());
                row
            });
            let backups = site.backups.iter().enumerate().map(|(index, (file, public))| {
                let mut row = key(site, Role::of_backup(index), public.pin, usable(public.pin));
                row["algorithm"] = json!(public.algorithm.to_string());
                row["file"] = json!(file);
                row
            });
            let managed = site.certificates.iter().any(|certificate| certificate.is_managed);
            json!({
                "site": site.name(), "hosts": site.hosts, "managed": managed, "pins_sent": site.hpkp.is_some(),
                "keys": live.chain(backups).collect::<Vec<_>>(),
            })
        });
        json!({ "sites": sites.collect::<Vec<_>>() })
    }
}
