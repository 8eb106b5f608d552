//! Installations over the API: what is installed, the verdict on another pair, the swap, the look from outside, and the way
//! back. It does what `pintle install` does, with the same code.

mod asking;
mod carry_out;
mod request;
mod shown;

use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::spawn_local;

use super::admin::{AdminCommand, InstallFacts, InstallJob, InstallStep, ReplacedFiles, Swapped};
use crate::acme::request::ask;
use crate::admin::api::{Answer, Call, INSTALL_MAX};
use crate::admin::asked::{parameter, wiped};
use crate::install::kept::die_at;
use crate::install::plan::{InstallPlan, command, may_write, plan, tag_of};
use crate::install::{previous, probe};
use crate::keys::key_file::KeyAlgorithm;
use crate::reason::{Problem, Reason, texts};

use asking::{Commands, beside, facts, judged, no_site};
use carry_out::log;
use request::{InstallWish, WishedPair, no_keys};

/// Answers a call about installations; `None` if the path has no such method.
pub(super) async fn answer(call: Call, commands: &Commands) -> Option<Answer> {
    let answer = match call.method {
        Method::GET => shown::shown(&parameter(&call.query, "site").unwrap_or_default(), commands).await,
        Method::POST => asked(call, commands).await,
        _ => return None,
    };
    Some(answer.unwrap_or_else(|answer| answer))
}

/// The answer to the wish to install a pair.
async fn asked(call: Call, commands: &Commands) -> Result<Answer, Answer> {
    let Call { body, if_match, who, is_confidential, .. } = call;
    if body.len() > INSTALL_MAX {
        let why = format!("the body is longer than {INSTALL_MAX} bytes");
        return Err(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &why));
    }
    let wish = InstallWish::read(&wiped(body))?;
    let facts = facts(&wish.site, commands).await?;
    if wish.has_key()
        && let Some(reason) = no_keys(&wish.site, facts.allow_keys, is_confidential)
    {
        return Err(kind(Answer::refused(StatusCode::FORBIDDEN, &reason), "private-key"));
    }
    if !wish.dry_run && if_match.is_none() {
        let reason = Reason::new("If-Match is missing: an installation names the certificate that it replaces");
        let reason = reason.hint("If-Match: the ETag of GET /v1/install?site=HOST");
        return Err(Answer::refused(StatusCode::PRECONDITION_REQUIRED, &reason));
    }
    let (dry_run, accept, host) = (wish.dry_run, wish.accept.clone(), wish.site.clone());
    let (planned, facts) = beside(move || (planned(wish, &facts), facts)).await?;
    let PlannedInstall { plan, tag, writable } = planned?;
    let plan = Arc::new(plan);
    let judged = judged(&plan, accept.clone(), commands).await?;
    let ok = judged.verdict.ok;
    let mut body = shown::verdict(&plan, judged, dry_run);
    body["tag"] = json!(tag);
    shown::set_writable(&mut body, &writable);
    if !ok || dry_run {
        let status = if ok { StatusCode::OK } else { StatusCode::CONFLICT };
        return Ok(Answer { etag: Some(tag), ..Answer::json(status, body) });
    }
    if let Err(reason) = writable {
        body["ok"] = false.into();
        return Ok(failed(StatusCode::FORBIDDEN, body, &reason));
    }
    let outline = facts.outline.clone().ok_or_else(|| no_site(&host))?;
    let job = InstallJob { plan: plan.clone(), outline, accept, if_match: if_match.unwrap_or_default() };
    // A caller who goes away leaves no installation half done.
    let carried = Carried { plan, facts, host, who, body };
    let commands = commands.clone();
    let done = spawn_local(async move { carried.out(job, &commands).await }).await;
    done.unwrap_or_else(|panic| Err(Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string())))
}

fn kind(mut answer: Answer, kind: &str) -> Answer {
    answer.body["kind"] = kind.into();
    answer
}

/// An answer with the reason of a failure.
fn failed(status: StatusCode, mut body: Value, reason: &Reason) -> Answer {
    body["error"] = reason.line().into();
    body["hints"] = json!(reason.hints);
    body["commands"] = json!(reason.commands);
    body["hint"] = json!(reason.hint_line());
    Answer::json(status, body)
}

/// A plan, the tag of what it replaces, and whether this process may write there.
struct PlannedInstall {
    plan: InstallPlan,
    tag: String,
    writable: Result<(), Reason>,
}

/// Reads the files, and plans which goes where.
fn planned(wish: InstallWish, facts: &InstallFacts) -> Result<PlannedInstall, Answer> {
    let outline = facts.outline.as_ref().ok_or_else(|| Answer::bad("the configuration cannot be read"))?;
    let site = outline.site(&wish.site).ok_or_else(|| no_site(&wish.site))?;
    let unfit = |reason: Reason| Answer::refused(StatusCode::UNPROCESSABLE_ENTITY, &reason);
    let conflict = |reason: Reason| Answer::refused(StatusCode::CONFLICT, &reason);
    let pair = match wish.source {
        WishedPair::Given(pair) => pair,
        WishedPair::Previous => previous::find(outline, site, wish.rsa).map_err(conflict)?.pair,
    };
    if site.is_managed() {
        return Err(kind(conflict(crate::install::plan::managed(site)), "managed"));
    }
    let in_use = |path: &Path| facts.pins.get(path).copied();
    let plan = plan(outline, site, pair, &in_use).map_err(unfit)?;
    let is_rsa = matches!(plan.chain.leaf.algorithm, KeyAlgorithm::Rsa(_));
    if wish.rsa.is_some_and(|rsa| rsa != is_rsa) {
        return Err(unfit(Reason::new(format!("algorithm: the key of the chain is {}", plan.chain.leaf.algorithm))));
    }
    let writable = may_write(&plan.site, plan.places_of_files());
    Ok(PlannedInstall { tag: tag_of(outline, site), writable, plan })
}

/// An installation that is being carried out.
struct Carried {
    plan: Arc<InstallPlan>,
    facts: InstallFacts,
    /// The host of the wish.
    host: String,
    who: String,
    /// The answer so far.
    body: Value,
}

/// The result of the look from outside.
enum Seen {
    Verified(String),
    /// Nobody could look, or it is another certificate of the site: with the reason.
    Unknown(String),
    /// Clients get another certificate.
    Another(String),
}

impl Carried {
    async fn out(mut self, job: InstallJob, commands: &Commands) -> Result<Answer, Answer> {
        let swap = |reply| AdminCommand::Install(InstallStep::Swap { job: Box::new(job), reply });
        let (outcome, files, leaves) = match ask(commands, swap).await.ok_or_else(Answer::gone)? {
            Swapped::InUse { outcome, files, leaves } => (outcome, files, leaves),
            Swapped::Refused { outcome, failures } => return Ok(self.refused(outcome.reasons(), &failures)),
            Swapped::Changed(reason) => return Ok(self.not(StatusCode::PRECONDITION_FAILED, &reason)),
            Swapped::Not(reason) => return Ok(self.not(StatusCode::INTERNAL_SERVER_ERROR, &reason)),
        };
        self.body["notes"] = json!(outcome.notes);
        let written: Vec<String> = self.plan.places_of_files().map(|path| path.display().to_string()).collect();
        self.body["written"] = json!(written);
        match self.look(leaves).await? {
            Seen::Verified(by) => {
                self.body["verified"] = true.into();
                self.body["verification"] = by.into();
                self.finish(*files).await
            }
            Seen::Unknown(why) => {
                self.body["verification"] = why.into();
                self.finish(*files).await
            }
            Seen::Another(what) => self.roll_back(files, what, commands).await,
        }
    }

    /// Looks at what clients get.
    async fn look(&self, leaves: Vec<rustls::pki_types::CertificateDer<'static>>) -> Result<Seen, Answer> {
        if !self.plan.is_served() {
            return Ok(Seen::Unknown("not verified: TLS ends in front of pintle, which has no key for it".into()));
        }
        let Some(https) = self.facts.https else {
            return Ok(Seen::Unknown("not verified: there is no TLS listener".into()));
        };
        let host = crate::host::ascii(&self.host).map_or_else(|_| self.host.clone(), |host| host.into_owned());
        let name = host.strip_prefix("*.").map_or_else(|| host.clone(), |base| format!("pintle-install.{base}"));
        let (plan, greeting, at) = (self.plan.clone(), self.facts.greeting, looked_at(https));
        beside(move || {
            let is_rsa = matches!(plan.chain.leaf.algorithm, KeyAlgorithm::Rsa(_));
            match probe::leaf(at, &name, is_rsa, greeting) {
                Ok(leaf) if Some(&leaf) == plan.leaf() => Seen::Verified(format!("{https} serves it for {name}")),
                Ok(leaf) if leaves.contains(&leaf) => {
                    Seen::Unknown(format!("not verified: {https} prefers another certificate of the site for {name}"))
                }
                Ok(_) => Seen::Another(format!("{https} serves another certificate for {name}")),
                Err(error) => Seen::Unknown(format!("not verified: {https}: {error}")),
            }
        })
        .await
    }

    /// The old files become the previous pair.
    async fn finish(mut self, files: ReplacedFiles) -> Result<Answer, Answer> {
        let plan = self.plan.clone();
        let outline = self.facts.outline.take();
        let tag = beside(move || {
            log(&files.kept.become_previous(&plan));
            die_at(plan.files.len() + 2);
            outline.as_ref().and_then(|outline| Some(tag_of(outline, outline.site(&plan.site)?)))
        });
        let tag = tag.await?;
        let (site, pin, serial) = (&self.plan.site, self.plan.chain.pin(), &self.plan.chain.leaf.serial);
        tracing::info!(site, %pin, serial, who = self.who, "certificate installed");
        self.body["tag"] = json!(tag);
        Ok(Answer { etag: tag, ..Answer::json(StatusCode::OK, self.body) })
    }

    /// Clients would get another certificate than the verdict was about: the old files come back.
    async fn roll_back(
        mut self,
        files: Box<ReplacedFiles>,
        what: String,
        commands: &Commands,
    ) -> Result<Answer, Answer> {
        let plan = self.plan.clone();
        let undo = |reply| AdminCommand::Install(InstallStep::Undo { plan, files, reply });
        let failures = ask(commands, undo).await.ok_or_else(Answer::gone)?;
        let reason = self.undone(&what, &failures);
        tracing::error!(site = self.plan.site, problem = reason.line(), "installation undone");
        let by_hand = command(&self.plan.site, "CHAIN KEY");
        Ok(self.not(StatusCode::CONFLICT, &reason.hint(by_hand)))
    }

    fn refused(mut self, problems: Vec<Problem>, failures: &[Reason]) -> Answer {
        self.body["verdict"] = "refused".into();
        self.body["problems"] = json!(texts(&problems));
        self.body["reasons"] = json!(problems);
        let reason = self.undone("pintle refuses it", failures);
        self.not(StatusCode::CONFLICT, &reason)
    }

    /// Notes whether the old files are back, and says it.
    fn undone(&mut self, why: &str, failures: &[Reason]) -> Reason {
        self.body["rolled_back"] = failures.is_empty().into();
        let end = if failures.is_empty() { "the old files are back" } else { "the old files are not back" };
        let reason = Reason::new(format!("not installed: {why}; {end}"));
        failures.iter().fold(reason, |reason, failure| reason.note(failure.line()))
    }

    fn not(mut self, status: StatusCode, reason: &Reason) -> Answer {
        self.body["ok"] = false.into();
        failed(status, self.body, reason)
    }
}

/// The listener to look at; for the tests, another server.
#[cfg(debug_assertions)]
fn looked_at(https: std::net::SocketAddr) -> std::net::SocketAddr {
    std::env::var("PINTLE_TEST_LOOK_AT").ok().and_then(|other| other.parse().ok()).unwrap_or(https)
}

#[cfg(not(debug_assertions))]
fn looked_at(https: std::net::SocketAddr) -> std::net::SocketAddr {
    https
}
