//! Questions to the control thread about installations, and work beside it.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::acme::request::ask;
use crate::admin::api::Answer;
use crate::control::admin::{AdminCommand, InstallFacts, InstallStep, JudgedInstall};
use crate::install::plan::InstallPlan;
use crate::reason::Reason;

pub(super) type Commands = mpsc::Sender<AdminCommand>;

pub(super) async fn facts(host: &str, commands: &Commands) -> Result<InstallFacts, Answer> {
    let facts = |reply| AdminCommand::Install(InstallStep::Facts { host: host.to_owned(), reply });
    ask(commands, facts).await.ok_or_else(Answer::gone)
}

pub(super) async fn judged(
    plan: &Arc<InstallPlan>,
    accept: Option<String>,
    commands: &Commands,
) -> Result<JudgedInstall, Answer> {
    let plan = plan.clone();
    let judge = |reply| AdminCommand::Install(InstallStep::Judge { plan, accept, reply });
    ask(commands, judge).await.ok_or_else(Answer::gone)
}

/// Runs a part that waits for the disk or the network.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Answer> {
    let done = spawn_blocking(work).await;
    done.map_err(|panic| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()))
}

pub(super) fn no_site(host: &str) -> Answer {
    let reason = Reason::new(format!("no site has the host {host:?}")).hint("/v1/sites lists the sites");
    Answer::refused(StatusCode::NOT_FOUND, &reason)
}
