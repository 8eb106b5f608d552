//! One order, from its first request to the chain. Every step is on disk before it is made, so a killed process
//! continues.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Identifier, NewOrder, Order, OrderStatus};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::budget::{CountedOrder, OrderBudget};
use super::client::{AcmeClient, Received};
use super::directory::Directory;
use super::facts::OpenOrder;
use super::fault::{StepFault, signed};
use super::hook;
use super::invalid::{barred, gone, invalid, not_made};
use super::problem::AcmeRemedy;
use super::prove::prove;
use super::step::KeyChoice;
use super::store;
use super::work::{CertificateWork, OrderSubject, Surroundings};
use super::{account, held};
use crate::config::Authority;
use crate::ledger::time::wall;
use crate::reason::Reason;
use crate::tls::certificate::Chain;

/// The longest time that pintle stays with an order that makes no progress. Then it asks again later.
const PATIENCE: Duration = Duration::from_secs(300);
/// The waits between two questions about an order if the authority does not say: each twice the last.
const POLL_FIRST: Duration = Duration::from_millis(500);
const POLL_MAX: Duration = Duration::from_secs(10);
/// A longer Retry-After is not waited for here, in seconds.
const WAIT_MAX: i64 = 60;
/// The longest lifetime of an order that the authority does not limit, in seconds.
const EXPIRES: i64 = 7 * 86_400;
/// The longest one that the authority may set, in seconds.
const EXPIRES_MAX: i64 = 90 * 86_400;
/// An order that is older is looked at rarely, in seconds.
const OLD: i64 = 3600;
/// The time limit for one run of an order, besides that of the program that sets DNS records.
const RUN_MAX: Duration = Duration::from_secs(1800);

/// The end of a look at an order.
pub(super) enum OrderEnd {
    /// The chain has arrived, and fits the order: its PEM, and the same read.
    Issued(String, Box<Chain>),
    /// The authority is to be asked again later; the record says when.
    Later,
}

/// Orders a certificate, or continues the open order. Takes a bounded time, whatever the authority does.
pub(super) async fn run(
    work: &CertificateWork,
    wanted: &OrderSubject,
    around: &Surroundings,
    budget: &Rc<RefCell<OrderBudget>>,
) -> Result<OrderEnd, StepFault> {
    let names = u32::try_from(held::names(&work.certificate).len()).unwrap_or(u32::MAX);
    let by_hook = hook::running().map(|hook| hook.limit().saturating_mul(names) + around.settings.dns_propagation);
    let limit = RUN_MAX.saturating_add(by_hook.unwrap_or_default());
    let ended = timeout(limit, make(work, wanted, around, budget)).await.unwrap_or_else(|_| {
        let text = format!("{}: the order took more than {} minutes", wanted.authority.name, limit.as_secs() / 60);
        Err(StepFault::here(text))
    });
    let is_over = match &ended {
        Ok(OrderEnd::Issued(..)) => true,
        Ok(OrderEnd::Later) => false,
        Err(fault) => fault.ends(),
    };
    // While an order lives, its answers and records stay: they take their time to be visible everywhere.
    if is_over {
        work.clean().await;
        // The record forgets them with the order.
        around.answers.set(&work.name(), Vec::new());
    }
    ended
}

async fn make(
    work: &CertificateWork,
    wanted: &OrderSubject,
    around: &Surroundings,
    budget: &Rc<RefCell<OrderBudget>>,
) -> Result<OrderEnd, StepFault> {
    let OrderSubject { authority, .. } = wanted;
    let folder = &around.settings.folder;
    let (client, directory) = around.reach(authority).await?;
    let has_renewal_info = directory.has_renewal_info();
    let known = work.record.borrow().authorities.get(&authority.directory).map(|known| known.has_renewal_info);
    if known != Some(has_renewal_info) {
        work.change(|record| {
            record.authorities.entry(authority.directory.clone()).or_default().has_renewal_info = has_renewal_info;
        })?;
    }
    if let Some(what) = directory.lacks_eab(authority, wanted.is_fallback) {
        return Err(StepFault::operator(what));
    }
    let open = work.record.borrow().order.clone().filter(|order| order.ca == authority.directory);
    let url = open.and_then(|order| order.url);
    // The open order has its profile.
    let profile = if url.is_some() { None } else { profile(around, wanted, &directory)? };
    check_account_key(work, folder, authority)?;
    let account =
        account::open(folder, authority, around.settings.email.as_deref(), &client, budget, &directory).await?;
    account::note_identities(folder, &authority.directory, &directory.identities())?;
    let mut order = match url {
        Some(url) => {
            let resumed = signed!(account.order(url.clone()), &client);
            resumed.map_err(gone)?
        }
        None => {
            let open = OpenAccount { account: &account, client: &client, budget, folder };
            begin(work, wanted, profile.as_deref(), &open).await?
        }
    };
    check_size(work, wanted, &mut order)?;
    if let Some(expires) = expiry(&client.last(), wall()) {
        note(work, |order| order.expires = Some(expires))?;
    }
    follow(work, wanted, around, &mut order, &client, budget).await
}

/// Changes the open order in the record.
fn note(work: &CertificateWork, change: impl FnOnce(&mut OpenOrder)) -> Result<(), StepFault> {
    let Some(mut order) = work.record.borrow().order.clone() else { return Ok(()) };
    change(&mut order);
    if work.record.borrow().order.as_ref() == Some(&order) {
        return Ok(());
    }
    work.change(|record| record.order = Some(order))
}

/// Refuses an order with more authorizations than names: each of them would be fetched.
fn check_size(work: &CertificateWork, wanted: &OrderSubject, order: &mut Order) -> Result<(), StepFault> {
    let (found, names) = (order.state().authorizations.len(), held::names(&work.certificate).len());
    if found <= names {
        return Ok(());
    }
    let text = format!("{}: the order has {found} authorizations for {names} names", wanted.authority.name);
    Err(StepFault { ends_order: true, ..StepFault::here(text) })
}

/// Returns the end of an order by this host's clock. The authority's clock says how long that is from now.
fn expiry(received: &Received, now: i64) -> Option<i64> {
    let document: Value = serde_json::from_slice(&received.body).ok()?;
    let expires: Timestamp = document["expires"].as_str()?.parse().ok()?;
    Some(now.saturating_add(expires.as_second().saturating_sub(received.date?).clamp(0, EXPIRES_MAX)))
}

/// The account's key never signs a CSR (RFC 8555 section 11.1).
fn check_account_key(work: &CertificateWork, folder: &Path, authority: &Authority) -> Result<(), StepFault> {
    let Some(account) = account::Stored::read(folder, &authority.directory)?.and_then(|stored| stored.pin()) else {
        return Ok(());
    };
    for choice in [KeyChoice::Live, KeyChoice::Next] {
        if store::pin_of(&work.certificate, choice) == Some(account) {
            let file = store::key_path(&work.certificate, choice);
            let reason = Reason::new(format!(
                "{}: the account has the same key, and an authority refuses an order with it (RFC 8555 section 11.1)",
                file.display()
            ));
            return Err(StepFault::operator(reason.hint("move the file away, and pintle makes another key")));
        }
    }
    Ok(())
}

fn profile(around: &Surroundings, wanted: &OrderSubject, directory: &Directory) -> Result<Option<String>, StepFault> {
    let Some(profile) = &around.settings.profile else { return Ok(None) };
    let Some(what) = directory.lacks_profile(&wanted.authority, profile) else { return Ok(Some(profile.clone())) };
    if wanted.is_fallback {
        return Ok(None);
    }
    Err(StepFault { remedy: AcmeRemedy::Profile, ..StepFault::here(what) })
}

fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

fn announce(work: &CertificateWork, wanted: &OrderSubject, profile: Option<&str>, names: &[String]) {
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

/// Sends an order.
async fn send(
    account: &Account,
    names: &[String],
    replaces: Option<(&str, &str)>,
    profile: Option<&str>,
    client: &AcmeClient,
) -> Result<Order, StepFault> {
    let identifiers: Vec<Identifier> = names.iter().map(|name| identifier(name)).collect();
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
    let order = signed!(account.new_order(&new), client);
    order.map_err(|fault| not_made(fault, replaces.is_some(), client))
}

/// An account that is open, and the count of its orders.
struct OpenAccount<'a> {
    account: &'a Account,
    client: &'a AcmeClient,
    budget: &'a Rc<RefCell<OrderBudget>>,
    /// The folder of the state, with the budget's file.
    folder: &'a Path,
}

/// Makes an order.
async fn begin(
    work: &CertificateWork,
    wanted: &OrderSubject,
    profile: Option<&str>,
    &OpenAccount { account, client, budget, folder }: &OpenAccount<'_>,
) -> Result<Order, StepFault> {
    let names = held::names(&work.certificate);
    let replaces = wanted.replaces.as_deref().and_then(|id| id.split_once('.'));
    let directory = &wanted.authority.directory;
    let is_new = work.record.borrow().order.as_ref().is_none_or(|order| order.ca != *directory);
    let mut begun = OpenOrder {
        url: None,
        ca: directory.clone(),
        key: wanted.pin,
        names: names.clone(),
        since: wall(),
        expires: Some(wall() + EXPIRES),
        poll_from: 0,
        is_changeover: wanted.key == KeyChoice::Next,
        replaces: replaces.is_some(),
        waiting_since: None,
        is_finalized: false,
        is_counted: false,
        seen: 0,
    };
    if is_new {
        store::count(folder, directory, budget, |budget| budget.take_order(wall()))?;
    }
    work.change(|record| record.order = Some(begun.clone()))?;
    announce(work, wanted, profile, &names);
    let made = send(account, &names, replaces, profile, client).await;
    let is_possible = |fault: &StepFault| fault.remedy == AcmeRemedy::WithoutReplaces && fault.retry_after.is_none();
    let ask = CountedOrder { names: &names, replaces: false };
    let has_room = || budget.borrow().delay_of(ask, wanted.emergency, wall()).is_none();
    let file = store::file_of(folder, "account", directory);
    let judged = |fault: StepFault| barred(fault, &file, &work.certificate.site);
    let mut order = match made {
        Err(fault) if is_possible(&fault) && has_room() => {
            store::count(folder, directory, budget, |budget| budget.take_order(wall()))?;
            begun.replaces = false;
            leave_out_replaces(work, &begun, &fault)?;
            send(account, &names, None, profile, client).await.map_err(judged)?
        }
        made => made.map_err(judged)?,
    };
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

/// Notes that the order is made again without `replaces`.
fn leave_out_replaces(work: &CertificateWork, begun: &OpenOrder, fault: &StepFault) -> Result<(), StepFault> {
    let (site, problem, hint) = (&work.certificate.site, fault.reason.line(), fault.reason.hint_line());
    tracing::info!(site, problem, hint, "the order is made again without the certificate that it replaces");
    work.change(|record| {
        record.order = Some(begun.clone());
        record.authorities.entry(begun.ca.clone()).or_default().attempts.without_replaces = true;
    })
}

/// Asks the authority to issue. Returns `true` if it has taken the request.
async fn finalize(
    work: &CertificateWork,
    wanted: &OrderSubject,
    order: &mut Order,
    client: &AcmeClient,
) -> Result<bool, StepFault> {
    let csr = csr(work, wanted)?;
    // From here on, the authority may issue, whatever becomes of its answer.
    let is_first = work.record.borrow().order.as_ref().is_some_and(|order| !order.is_finalized);
    note(work, |order| order.is_finalized = true)?;
    match signed!(order.finalize_csr(&csr), client) {
        Ok(()) => {
            if is_first {
                note(work, |order| order.waiting_since = Some(wall()))?;
            }
            Ok(true)
        }
        // It has changed, or the authority had the request already: the order shows which.
        Err(fault) if fault.remedy == AcmeRemedy::ReadOrder => {
            note(work, |order| order.is_finalized = !is_first)?;
            Ok(false)
        }
        Err(fault) => {
            let ends_order = !matches!(fault.remedy, AcmeRemedy::Temporary | AcmeRemedy::RateLimit);
            Err(StepFault { ends_order, ..fault })
        }
    }
}

/// Follows an order to its end.
async fn follow(
    work: &CertificateWork,
    wanted: &OrderSubject,
    around: &Surroundings,
    order: &mut Order,
    client: &AcmeClient,
    budget: &Rc<RefCell<OrderBudget>>,
) -> Result<OrderEnd, StepFault> {
    let mut begun = Instant::now();
    let mut wait = POLL_FIRST;
    let (mut has_proved, mut has_finalized) = (false, false);
    loop {
        let status = order.state().status;
        if status != OrderStatus::Pending {
            work.clean().await;
        }
        match status {
            OrderStatus::Pending if !has_proved => {
                prove(work, wanted, around, order, client).await?;
                has_proved = true;
                note(work, |order| order.waiting_since = order.waiting_since.or_else(|| Some(wall())))?;
                // DNS records take their time.
                begun = Instant::now();
            }
            OrderStatus::Ready if !has_finalized => {
                has_finalized = true;
                if finalize(work, wanted, order, client).await? {
                    continue;
                }
            }
            OrderStatus::Pending | OrderStatus::Ready => {}
            OrderStatus::Processing => note(work, |order| {
                order.is_finalized = true;
                order.waiting_since = order.waiting_since.or_else(|| Some(wall()));
            })?,
            OrderStatus::Valid => {
                count(work, &around.settings.folder, budget)?;
                return issued(work, wanted, order, client).await;
            }
            OrderStatus::Invalid => return Err(invalid(order, client).await),
        }
        let retry_after = client.last().retry_after.map(|seconds| seconds.clamp(1, 86_400));
        let age = work.record.borrow().order.as_ref().map_or(0, |order| wall().saturating_sub(order.since));
        let patience = if age > OLD { Duration::ZERO } else { PATIENCE };
        if retry_after.is_some_and(|retry_after| retry_after > WAIT_MAX) || begun.elapsed() > patience {
            let from = wall() + retry_after.unwrap_or_else(|| (age / 8).clamp(WAIT_MAX, 3600));
            note(work, |order| (order.poll_from, order.seen) = (from, wall()))?;
            return Ok(OrderEnd::Later);
        }
        let retry_after = retry_after.and_then(|retry_after| u64::try_from(retry_after).ok()).map(Duration::from_secs);
        sleep(retry_after.unwrap_or(wait)).await;
        wait = (wait * 2).min(POLL_MAX);
        signed!(order.refresh(), client).map_err(gone)?;
    }
}

/// Makes the request for exactly the names of the order.
fn csr(work: &CertificateWork, wanted: &OrderSubject) -> Result<Vec<u8>, StepFault> {
    let pem = store::key(&work.certificate, wanted.key).map_err(StepFault::here)?;
    let made = || {
        let key = KeyPair::from_pem(&pem)?;
        let mut params = CertificateParams::new(held::names(&work.certificate))?;
        params.distinguished_name = DistinguishedName::new();
        Ok::<_, rcgen::Error>(params.serialize_request(&key)?.der().to_vec())
    };
    made().map_err(|error| StepFault::operator(format!("no request can be made with the key: {error}")))
}

/// Counts the certificate of an order, once.
pub(super) fn count(work: &CertificateWork, folder: &Path, budget: &Rc<RefCell<OrderBudget>>) -> Result<(), StepFault> {
    let open = work.record.borrow().order.clone().filter(|order| !order.is_counted);
    let Some(order) = open else { return Ok(()) };
    let ask = CountedOrder { names: &order.names, replaces: order.replaces };
    store::count(folder, &order.ca, budget, |budget| budget.take_certificate(ask, wall()))?;
    note(work, |order| order.is_counted = true)
}

/// Takes the chain of a valid order, if it fits the order.
async fn issued(
    work: &CertificateWork,
    wanted: &OrderSubject,
    order: &mut Order,
    client: &AcmeClient,
) -> Result<OrderEnd, StepFault> {
    let pem = signed!(order.certificate(), client).map_err(gone)?;
    let pem = pem.ok_or_else(|| StepFault::here("the authority has no certificate for a valid order"))?;
    let now = Timestamp::from_second(wall()).unwrap_or_default();
    match held::judge(&pem, &held::names(&work.certificate), wanted.pin, now) {
        Ok(chain) => Ok(OrderEnd::Issued(pem, Box::new(chain))),
        Err(text) => Err(StepFault { remedy: AcmeRemedy::Candidate, ends_order: true, ..StepFault::here(text) }),
    }
}
