//! The API of the running process: each path of [`PATHS`](crate::admin::api::PATHS), and the command behind it.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::admin::{
    AcmeCommand, AdminCommand, AdoptionOrigin, CacheCall, DRAINING, Installed, Objection, ReloadOutcome,
};
use super::{acme, cache, config, events, first_site, install, keys, records, views};
use crate::acme::request::ask;
use crate::admin::api::{Answer, Api, Call, find, without_version};
use crate::admin::asked::{parameter, wiped};
use crate::config::admin::AdminRole;
use crate::config::history::How;
use crate::keys::pin::Pin;
use crate::telemetry::exposition::{Exposition, Format};

const METRICS: &str = "/metrics";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The way to the control thread, for callers on other threads.
#[derive(Clone)]
pub(super) struct CommandChannel(pub(super) mpsc::Sender<AdminCommand>);

impl CommandChannel {
    /// Returns the metrics, if a call asks for them: their text is long, so the listener has it written as its client reads.
    pub(super) async fn metrics(&self, call: &Call) -> Option<Exposition> {
        if call.method != Method::GET || without_version(&call.path) != METRICS {
            return None;
        }
        let format = Format::of(&call.accept);
        ask(&self.0, |reply| AdminCommand::Metrics { format, reply }).await
    }
}

impl Api for CommandChannel {
    async fn call(&self, call: Call) -> Answer {
        let path = without_version(&call.path).to_owned();
        let changes = find(&path).and_then(|path| path.role(&call.method)).is_some_and(|role| role > AdminRole::View);
        let (who, method) = (call.who.clone(), call.method.clone());
        let answered = match method {
            _ if path.starts_with("/config") => config::answer(&path, &call, &self.0).await,
            _ if path == "/install" => install::answer(call, &self.0).await,
            _ if path.starts_with("/keys") => keys::answer(&path, &call, &self.0).await,
            Method::GET if path == "/cache" => {
                let call = CacheCall::of(&call);
                Some(cache::answer(ask(&self.0, |reply| AdminCommand::Cache { call, reply }).await))
            }
            Method::POST if path == "/purge" => {
                let call = CacheCall::of(&call);
                Some(cache::answer(ask(&self.0, |reply| AdminCommand::Purge { call, reply }).await))
            }
            Method::GET => shown(&path, &call, &self.0).await,
            Method::POST => done(&path, call, &self.0).await,
            _ => None,
        };
        let answer = answered.unwrap_or_else(|| match find(&path) {
            Some(path) => {
                let allow = path.allow();
                let refusal = Answer::error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allow}"));
                Answer { allow: Some(allow), ..refusal }
            }
            None => Answer::error(StatusCode::NOT_FOUND, "no such command"),
        });
        if changes {
            let status = answer.status.as_u16();
            tracing::info!(who, %method, path, status, "command of the operator");
        }
        answer
    }
}

/// Answers a question; `None` if the path is unknown.
async fn shown(path: &str, call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    let query = call.query.as_str();
    let json = |shown: Option<Value>| shown.map_or_else(Answer::gone, |shown| Answer::json(StatusCode::OK, shown));
    Some(match path {
        "/status" => json(ask(commands, AdminCommand::Status).await),
        METRICS => {
            let format = Format::of(&call.accept);
            match ask(commands, |reply| AdminCommand::Metrics { format, reply }).await {
                Some(metrics) => Answer::text(format.content_type(), metrics.finish()),
                None => Answer::gone(),
            }
        }
        "/ready" => {
            let strict = query.split('&').any(|name| name == "strict");
            let ready = ask(commands, |reply| AdminCommand::Ready { strict, reply }).await;
            match ready.unwrap_or_else(|| Err(DRAINING.to_owned())) {
                Ok(()) => Answer::text(PLAIN, "ready\n".into()),
                Err(why) => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    Answer { status, ..Answer::text(PLAIN, format!("{why}\n")) }
                }
            }
        }
        "/promised" => {
            let site = parameter(query, "site").unwrap_or_default();
            let promised = ask(commands, |reply| AdminCommand::Promised { site, reply }).await;
            let row = |(pin, since): (Pin, i64)| json!({ "pin": pin.to_string(), "since": since });
            json(promised.map(|pins| pins.into_iter().map(row).collect::<Vec<_>>().into()))
        }
        "/ledger" => json(ask(commands, AdminCommand::Book).await.map(|known| json!(known))),
        "/served" => json(ask(commands, AdminCommand::Served).await),
        "/records" => records::shown(call, commands).await,
        "/acme" => json(ask(commands, |reply| AdminCommand::Acme(AcmeCommand::Plans(reply))).await),
        _ => return views::shown(path, query, commands).await,
    })
}

/// Carries a command out; `None` if the path is unknown.
async fn done(path: &str, call: Call, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    let (query, body, shows_secrets) = (call.query.as_str(), &call.body, call.shows_secrets);
    Some(match path {
        "/init" => Box::pin(first_site::init(body, commands)).await,
        "/verify" => Box::pin(views::verify(query, body, commands)).await,
        "/fingerprint" => views::fingerprint(wiped(call.body), commands).await,
        "/reload" => match origin(&call) {
            Some(origin) => verdict(ask(commands, |reply| AdminCommand::Reload { origin, reply }).await, shows_secrets),
            None => Answer::bad("how: neither reload, apply nor restore"),
        },
        "/upgrade" => match ask(commands, AdminCommand::Upgrade).await {
            Some(upgraded) => {
                Answer::json(if upgraded.ok { StatusCode::OK } else { StatusCode::CONFLICT }, json!(upgraded))
            }
            None => Answer::gone(),
        },
        "/acme/renew" | "/acme/revoke" => return acme::done(path, query, commands).await,
        "/certificates" => {
            let Ok(pin) = parameter(query, "pin").map(|pin| pin.parse()).transpose() else {
                return Some(Answer::bad("pin: not a pin in base64"));
            };
            let installed = pin.zip(parameter(query, "serial")).map(|(pin, serial)| Installed { pin, serial });
            let host = parameter(query, "host").unwrap_or_default();
            let accept = parameter(query, "accept_lockout_until");
            let looked = ask(commands, |reply| AdminCommand::Certificates { host, accept, installed, reply }).await;
            verdict(looked, shows_secrets)
        }
        "/hook/test" => {
            let name = parameter(query, "name");
            events::tested(ask(commands, |reply| AdminCommand::TestHooks { name, reply }).await)
        }
        "/explain" => explain(body, shows_secrets, commands).await,
        "/doctor" => match views::report_of(body) {
            Some(report) => match ask(commands, |reply| AdminCommand::Findings { report, reply }).await {
                Some(()) => Answer::json(StatusCode::OK, json!({ "ok": true })),
                None => Answer::gone(),
            },
            None => Answer::bad("not a report of `pintle doctor --json`"),
        },
        "/certificates/judge" => judge(body, shows_secrets, commands).await,
        "/ledger" | "/ledger/promise" => ledger(body, path == "/ledger/promise", commands).await,
        #[cfg(debug_assertions)]
        "/attempt" => {
            attempt(parameter(query, "what").unwrap_or_default(), parameter(query, "with").unwrap_or_default()).await
        }
        _ => return None,
    })
}

/// The origin of a reload. A command that has changed the file itself says so.
fn origin(call: &Call) -> Option<AdoptionOrigin> {
    let how = match parameter(&call.query, "how").as_deref() {
        None | Some("reload") => How::Reload,
        Some("apply") => How::Apply,
        Some("restore") => How::Restore,
        Some(_) => return None,
    };
    let restores = parameter(&call.query, "restores").filter(|_| how == How::Restore);
    Some(AdoptionOrigin { restores, ..AdoptionOrigin::new(how, call.who.clone()) })
}

/// Takes records as ledger lines: those of another node, or promises for another program.
async fn ledger(body: &[u8], are_new: bool, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let (book, notices) = crate::ledger::read_book(body);
    if !notices.is_empty() {
        let texts: Vec<String> = notices.iter().map(ToString::to_string).collect();
        return Answer::bad(&texts.join("; "));
    }
    let records = book.records().collect();
    let taken = match are_new {
        true => ask(commands, |reply| AdminCommand::Promise { records, reply }).await,
        false => ask(commands, |reply| AdminCommand::Ledger { records, reply })
            .await
            .map(|taken| taken.map_err(Objection::from)),
    };
    match taken {
        Some(Ok(news)) => Answer::json(StatusCode::OK, json!({ "ok": true, "news": news })),
        Some(Err(objection)) => Answer::json(StatusCode::CONFLICT, json!(objection)),
        None => Answer::gone(),
    }
}

async fn explain(body: &[u8], shows_secrets: bool, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let asked = match serde_json::from_slice(body) {
        Ok(asked) => Box::new(asked),
        Err(error) => return Answer::bad(&error.to_string()),
    };
    match ask(commands, |reply| AdminCommand::Explain { asked, shows_secrets, reply }).await {
        Some(Ok(report)) => Answer::json(StatusCode::OK, report),
        Some(Err(reason)) => Answer::bad(&reason.line()),
        None => Answer::gone(),
    }
}

async fn judge(body: &[u8], shows_secrets: bool, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    match serde_json::from_slice(body) {
        Ok(asked) => verdict(ask(commands, |reply| AdminCommand::Judge { asked, reply }).await, shows_secrets),
        Err(error) => Answer::bad(&error.to_string()),
    }
}

/// For the tests of the sandbox: makes an attempt that must fail, on an ordinary thread.
#[cfg(debug_assertions)]
async fn attempt(what: String, with: String) -> Answer {
    let tried = tokio::task::spawn_blocking(move || crate::os::sandbox::attempts::attempt(&what, &with)).await;
    let outcome = match tried {
        Ok(Ok(())) => "done".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    Answer::json(StatusCode::OK, json!({ "outcome": outcome }))
}

fn verdict(verdict: Option<ReloadOutcome>, shows_secrets: bool) -> Answer {
    match verdict {
        Some(verdict) => {
            let verdict = if shows_secrets { verdict } else { verdict.without_lines() };
            let status = if verdict.ok { StatusCode::OK } else { StatusCode::CONFLICT };
            Answer::json(status, json!(verdict))
        }
        None => Answer::gone(),
    }
}
