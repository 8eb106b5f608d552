//! Answers for the admin pages, beside those that the commands have: lists of sites by the page, one site whole, the effect
//! of a rotation, exports, rates, and the pin of any file.

pub(super) mod chain;
mod doctor;
mod fingerprint;
mod outline;
mod overview;
mod pins;
mod rotation;
mod site;
mod sites;
mod verify;

use http::StatusCode;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::Control;
use super::admin::refusal::{PageRefusal, parameter, pin};
use super::admin::{AdminCommand, Answered, PageQuestion, PinsQuestion, RotationQuestion, WantedSites};
use crate::acme::request::ask;
use crate::admin::api::Answer;

pub(super) use doctor::report_of;
pub(super) use verify::verify;

/// Answers a page's GET; `None` if the path is unknown.
pub(super) async fn shown(path: &str, query: &str, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    let question = match path {
        "/overview" => Ok(PageQuestion::Overview),
        "/sites" => WantedSites::of(query).map(PageQuestion::Sites),
        "/site" => Ok(PageQuestion::Site { host: parameter(query, "host") }),
        "/rotation" => RotationQuestion::of(query).map(PageQuestion::Rotation),
        "/pins" => PinsQuestion::of(query).map(PageQuestion::Pins),
        "/rates" => Ok(PageQuestion::Rates),
        "/fingerprint" => pin(&parameter(query, "pin"), "pin").map(PageQuestion::Roles),
        "/doctor" => Ok(PageQuestion::Findings),
        _ => return None,
    };
    Some(match question {
        Ok(question) => answered(question, commands).await,
        Err(refusal) => refusal.answer(),
    })
}

/// Answers a file that a page shows.
pub(super) async fn fingerprint(contents: Zeroizing<Vec<u8>>, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    answered(PageQuestion::Fingerprint(contents), commands).await
}

async fn answered(question: PageQuestion, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let asked = |reply: oneshot::Sender<Answered>| AdminCommand::View { question, reply };
    match ask(commands, asked).await {
        Some(Ok(answer)) => Answer::json(StatusCode::OK, answer),
        Some(Err(refusal)) => refusal.answer(),
        None => Answer::gone(),
    }
}

impl Control {
    /// Answers a question of a page.
    pub(super) fn view(&self, question: PageQuestion) -> Answered {
        match question {
            PageQuestion::Overview => Ok(self.overview()),
            PageQuestion::Sites(wanted) => Ok(self.listed_sites(&wanted)),
            PageQuestion::Site { host } => self.whole_site(&host),
            PageQuestion::Rotation(asked) => self.rotation(&asked),
            PageQuestion::Pins(asked) => self.exported_pins(&asked),
            PageQuestion::Rates => Ok(self.observed.rates.json(self.server.connections())),
            PageQuestion::Fingerprint(contents) => self.fingerprint_of(&contents),
            PageQuestion::Roles(pin) => Ok(self.roles(pin)),
            PageQuestion::Findings => Ok(self.findings()),
            PageQuestion::NameServers => Ok(json!(self.config.name_servers.0)),
            PageQuestion::OwnPlace { host } => self.own_place(&host),
        }
    }

    /// The index of the site that a host belongs to.
    fn index_of(&self, host: &str) -> Result<usize, PageRefusal> {
        self.place_of(host).ok_or_else(|| PageRefusal::no_site(host))
    }
}
