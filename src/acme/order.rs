//! One order, from its first request to the chain. Every step is on disk before it is made, so a killed process
//! continues.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier, NewOrder, Order,
    OrderStatus,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep};

use super::budget::{Ask, Budget};
use super::client::Client;
use super::directory::Directory;
use super::facts::OpenOrder;
use super::fault::{Fault, signed};
use super::invalid::{gone, invalid, not_made};
use super::problem::Remedy;
use super::step::KeyChoice;
use super::store::{self, Record};
use super::{account, held};
use crate::config::acme::Method;
use crate::config::{Acme, Authority, Managed};
use crate::keys::pin::Pin;
use crate::ledger::time::wall;
use crate::server::{Answers, ChallengeAnswer};
use crate::upstream::dns::NameServers;

/// How long pintle stays with an order that makes no progress. Then it asks again later.
const PATIENCE: Duration = Duration::from_secs(300);
/// The waits between two questions about an order if the authority does not say: each twice the last.
const POLL_FIRST: Duration = Duration::from_millis(500);
const POLL_MAX: Duration = Duration::from_secs(10);
/// A longer Retry-After is not waited for here, in seconds.
const WAIT_MAX: i64 = 60;
/// The longest lifetime of an order that the authority does not limit, in seconds.
const EXPIRES: i64 = 7 * 86_400;

/// A certificate, as the driver and its tasks share it.
pub(super) struct Work {
    pub(super) certificate: Managed,
    pub(super) record: Rc<RefCell<Record>>,
}

impl Work {
    /// Changes the record, on disk first.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), Fault> {
        let mut changed = self.record.borrow().clone();
        change(&mut changed);
        store::save_record(&self.certificate, &changed)
            .map_err(|error| Fault::here(format!("{}: {error}", self.certificate.folder.display())))?;
        *self.record.borrow_mut() = changed;
        Ok(())
    }

    /// Returns the name of its answers to challenges.
    pub(super) fn name(&self) -> String {
        self.certificate.folder.display().to_string()
    }
}

/// The settings and services that every order uses.
pub(super) struct Surroundings {
    pub(super) settings: Arc<Acme>,
    pub(super) name_servers: NameServers,
    pub(super) answers: Arc<Answers>,
}

/// The subject of an order.
pub(super) struct Wanted {
    pub(super) authority: Authority,
    pub(super) key: KeyChoice,
    pub(super) pin: Pin,
    pub(super) replaces: Option<String>,
    /// `true` if the authority is asked without the profile if it does not offer it.
    pub(super) is_fallback: bool,
}

/// The end of a look at an order.
pub(super) enum Ended {
    /// The chain has arrived.
    Issued(String),
    /// The authority is to be asked again later; the record says when.
    Later,
}

/// Orders a certificate, or continues the open order.
pub(super) async fn run(
    work: &Work,
    wanted: &Wanted,
    around: &Surroundings,
    budget: &Rc<RefCell<Budget>>,
) -> Result<Ended, Fault> {
    let Wanted { authority, .. } = wanted;
    let folder = &around.settings.folder;
    let client = Client::start(authority, &around.name_servers).map_err(Fault::operator)?;
    let directory = Directory::fetch(&client, &authority.directory).await?;
    let has_renewal_info = directory.has_renewal_info();
    let known = work.record.borrow().authorities.get(&authority.directory).map(|known| known.has_renewal_info);
    if known != Some(has_renewal_info) {
        work.change(|record| {
            record.authorities.entry(authority.directory.clone()).or_default().has_renewal_info = has_renewal_info;
        })?;
    }
    if directory.needs_eab() && authority.eab.is_none() {
        let key = if wanted.is_fallback { "fallback_eab" } else { "eab" };
        return Err(Fault::operator(format!(
            "{} needs an external account binding: {key} = {{ key_id = \"...\", hmac_key_file = \"...\" }} in [acme]",
            authority.name
        )));
    }
    let profile = profile(around, wanted, &directory)?;
    check_account_key(work, folder, authority)?;
    let account = account::open(folder, authority, around.settings.email.as_deref(), &client).await?;
    let url = work.record.borrow().order.as_ref().and_then(|order| order.url.clone());
    let mut order = match url {
        Some(url) => {
            let resumed = signed!(account.order(url.clone()), &client);
            resumed.map_err(gone)?
        }
        None => begin(work, wanted, &account, profile.as_deref(), &client, budget, folder).await?,
    };
    let ended = follow(work, wanted, around, &mut order, &client).await;
    if !matches!(ended, Ok(Ended::Later)) {
        around.answers.set(&work.name(), Vec::new());
        work.change(|record| record.answers.clear())?;
    }
    ended
}

/// The account's key never signs a CSR (RFC 8555 section 11.1).
fn check_account_key(work: &Work, folder: &Path, authority: &Authority) -> Result<(), Fault> {
    let Some(account) = account::Stored::read(folder, &authority.directory)?.and_then(|stored| stored.pin()) else {
        return Ok(());
    };
    for choice in [KeyChoice::Live, KeyChoice::Next] {
        if store::pin_of(&work.certificate, choice) == Some(account) {
            let file = store::key_path(&work.certificate, choice);
            return Err(Fault::operator(format!(
                "{}: this is the key of the account, too: an authority accepts neither (RFC 8555 section 11.1); move \
                 the file away, and pintle makes a key",
                file.display()
            )));
        }
    }
    Ok(())
}

fn profile(around: &Surroundings, wanted: &Wanted, directory: &Directory) -> Result<Option<String>, Fault> {
    let Some(profile) = &around.settings.profile else { return Ok(None) };
    let offered = directory.profiles();
    if offered.contains(&profile.as_str()) {
        return Ok(Some(profile.clone()));
    }
    if wanted.is_fallback {
        return Ok(None);
    }
    let offer = if offered.is_empty() { "no profiles".to_owned() } else { offered.join(", ") };
    let text = format!("acme.profile: {} does not offer {profile:?}; it offers {offer}", wanted.authority.name);
    Err(Fault { remedy: Remedy::Profile, ..Fault::here(text) })
}

fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// Counts an order, on disk before it is made.
fn count(ask: Ask<'_>, budget: &Rc<RefCell<Budget>>, folder: &Path, directory: &str) -> Result<(), Fault> {
    let mut taken = budget.borrow().clone();
    taken.take_order(ask, wall());
    let path = store::file_of(folder, "budget", directory);
    store::save(&path, &taken).map_err(|error| Fault::here(format!("{}: {error}", path.display())))?;
    *budget.borrow_mut() = taken;
    Ok(())
}

fn announce(work: &Work, wanted: &Wanted, profile: Option<&str>, names: &[String]) {
    tracing::info!(
        site = work.certificate.site,
        algorithm = %work.certificate.algorithm,
        authority = wanted.authority.name,
        key = wanted.key.name(),
        profile,
        names = names.join(" "),
        "ordering a certificate"
    );
}

/// Makes an order.
async fn begin(
    work: &Work,
    wanted: &Wanted,
    account: &Account,
    profile: Option<&str>,
    client: &Client,
    budget: &Rc<RefCell<Budget>>,
    folder: &Path,
) -> Result<Order, Fault> {
    let names = held::names(&work.certificate);
    let identifiers: Vec<Identifier> = names.iter().map(|name| identifier(name)).collect();
    let replaces = wanted.replaces.as_deref().and_then(|id| id.split_once('.'));
    let mut new = NewOrder::new(&identifiers);
    if let Some((key, serial)) = replaces {
        new = new.replaces(CertificateIdentifier {
            authority_key_identifier: key.to_owned().into(),
            serial: serial.to_owned().into(),
        });
    }
    if let Some(profile) = profile {
        new = new.profile(profile);
    }
    let directory = &wanted.authority.directory;
    let is_new = work.record.borrow().order.is_none();
    let begun = OpenOrder {
        url: None,
        ca: directory.clone(),
        key: wanted.pin,
        names: names.clone(),
        since: wall(),
        expires: Some(wall() + EXPIRES),
        poll_from: 0,
        is_changeover: wanted.key == KeyChoice::Next,
    };
    if is_new {
        count(Ask { names: &names, replaces: replaces.is_some() }, budget, folder, directory)?;
    }
    work.change(|record| record.order = Some(begun.clone()))?;
    announce(work, wanted, profile, &names);
    let order = signed!(account.new_order(&new), client);
    let mut order = order.map_err(|fault| not_made(fault, replaces.is_some(), client))?;
    let url = Some(order.url().to_owned());
    work.change(|record| record.order = Some(OpenOrder { url, ..begun }))?;
    if profile.is_some() && order.state().profile.as_deref() != profile {
        tracing::warn!(
            site = work.certificate.site,
            profile,
            "the authority does not confirm the profile of the order"
        );
    }
    Ok(order)
}

/// Follows an order to its end.
async fn follow(
    work: &Work,
    wanted: &Wanted,
    around: &Surroundings,
    order: &mut Order,
    client: &Client,
) -> Result<Ended, Fault> {
    let begun = Instant::now();
    let mut wait = POLL_FIRST;
    let (mut has_proved, mut has_finalized) = (false, false);
    loop {
        let status = order.state().status;
        match status {
            OrderStatus::Pending if !has_proved => {
                prove(work, around, order, client).await?;
                has_proved = true;
            }
            OrderStatus::Ready if !has_finalized => {
                let csr = csr(work, wanted)?;
                has_finalized = true;
                match signed!(order.finalize_csr(&csr), client) {
                    Ok(()) => continue,
                    // It has changed, or the authority had the request already: the order shows which.
                    Err(fault) if fault.remedy == Remedy::ReadOrder => {}
                    Err(fault) => {
                        let ends_order = !matches!(fault.remedy, Remedy::Temporary | Remedy::RateLimit);
                        return Err(Fault { ends_order, ..fault });
                    }
                }
            }
            OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing => {}
            OrderStatus::Valid => return issued(work, wanted, order, client).await,
            OrderStatus::Invalid => return Err(invalid(order, client).await),
        }
        let said = client.last().retry_after.map(|seconds| seconds.clamp(1, 86_400));
        if said.is_some_and(|said| said > WAIT_MAX) || begun.elapsed() > PATIENCE {
            let from = wall() + said.unwrap_or(WAIT_MAX);
            work.change(|record| record.order.iter_mut().for_each(|order| order.poll_from = from))?;
            return Ok(Ended::Later);
        }
        let said = said.and_then(|said| u64::try_from(said).ok()).map(Duration::from_secs);
        sleep(said.unwrap_or(wait)).await;
        wait = (wait * 2).min(POLL_MAX);
        signed!(order.refresh(), client)?;
    }
}

/// Answers the challenges of all names that are not proved yet.
async fn prove(work: &Work, around: &Surroundings, order: &mut Order, client: &Client) -> Result<(), Fault> {
    let (mut answers, mut pending) = (Vec::new(), Vec::new());
    fetch(order, client).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| Fault::of(error, client))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = authorization.identifier().to_string();
        let method = method(around, &name, |method| {
            let kind = kind(method);
            authorization.challenges.iter().any(|challenge| challenge.r#type == kind)
        })?;
        let Some(challenge) = authorization.challenge(kind(method)) else { continue };
        let host = if name.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{name}]") } else { name.clone() };
        let key = challenge.key_authorization();
        let token = (method == Method::Http01).then(|| challenge.token.clone());
        answers.push(ChallengeAnswer { name: host, token, authorization: key.as_str().to_owned() });
        if challenge.status == ChallengeStatus::Pending {
            pending.push((name, method));
        }
    }
    if answers != work.record.borrow().answers {
        work.change(|record| record.answers.clone_from(&answers))?;
    }
    // All workers share the answers: every later request gets them.
    around.answers.set(&work.name(), answers);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| Fault::of(error, client))?;
        let name = authorization.identifier().to_string();
        let Some((_, method)) = pending.iter().find(|(pending, _)| *pending == name) else { continue };
        let Some(mut challenge) = authorization.challenge(kind(*method)) else { continue };
        tracing::debug!(site = work.certificate.site, name, challenge = method.name(), "answering a challenge");
        match signed!(challenge.set_ready(), client) {
            Ok(()) => {}
            // The authority has judged it already, in an earlier process: the order says how.
            Err(fault) if matches!(fault.remedy, Remedy::Operator | Remedy::Validation) => {
                tracing::debug!(name, problem = fault.text, "the challenge is no longer pending");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Fetches all authorizations of an order.
async fn fetch(order: &mut Order, client: &Client) -> Result<(), Fault> {
    let mut all = async || {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            authorization?;
        }
        Ok::<(), instant_acme::Error>(())
    };
    signed!(all(), client)
}

fn kind(method: Method) -> ChallengeType {
    match method {
        Method::Http01 => ChallengeType::Http01,
        Method::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Method::Dns01 => ChallengeType::Dns01,
        Method::DnsPersist01 => ChallengeType::Unknown(method.name().to_owned()),
    }
}

/// Returns the first way to prove a name that the authority offers, and pintle may use.
fn method(around: &Surroundings, name: &str, is_offered: impl Fn(Method) -> bool) -> Result<Method, Fault> {
    let fits = |method: &Method| match method {
        Method::Dns01 | Method::DnsPersist01 => false,
        Method::Http01 | Method::TlsAlpn01 => !name.starts_with("*."),
    };
    let chosen = around.settings.challenges.iter().copied().find(|method| fits(method) && is_offered(*method));
    chosen.ok_or_else(|| {
        let ours: Vec<&str> = around.settings.challenges.iter().map(|method| method.name()).collect();
        let text = format!("{name}: the authority offers none of acme.challenges ({})", ours.join(", "));
        Fault { ends_order: true, ..Fault::operator(text) }
    })
}

/// Makes the request for exactly the names of the order.
fn csr(work: &Work, wanted: &Wanted) -> Result<Vec<u8>, Fault> {
    let pem = store::key(&work.certificate, wanted.key).map_err(Fault::here)?;
    let made = || {
        let key = KeyPair::from_pem(&pem)?;
        let mut params = CertificateParams::new(held::names(&work.certificate))?;
        params.distinguished_name = DistinguishedName::new();
        Ok::<_, rcgen::Error>(params.serialize_request(&key)?.der().to_vec())
    };
    made().map_err(|error| Fault::operator(format!("no request can be made with the key: {error}")))
}

/// Takes the chain of a valid order, if it fits the order.
async fn issued(work: &Work, wanted: &Wanted, order: &mut Order, client: &Client) -> Result<Ended, Fault> {
    let pem = signed!(order.certificate(), client)?;
    let pem = pem.ok_or_else(|| Fault::here("the authority has no certificate for a valid order".to_owned()))?;
    let now = Timestamp::from_second(wall()).unwrap_or_default();
    match held::judge(&pem, &held::names(&work.certificate), wanted.pin, now) {
        Ok(_) => Ok(Ended::Issued(pem)),
        Err(text) => Err(Fault { remedy: Remedy::Candidate, ends_order: true, ..Fault::here(text) }),
    }
}
