//! Proves control of the names of an order: by answers over HTTP and TLS, by records that the operator's program sets, or
//! by a record that stays.

use std::collections::HashMap;

use instant_acme::{AuthorizationStatus, ChallengeStatus, ChallengeType, Order};
use serde_json::Value;

use super::account;
use super::client::AcmeClient;
use super::dns::{self, Persist, RecordState, issuers, present, record, standing};
use super::fault::{StepFault, signed};
use super::hook::{self, TxtRecord};
use super::invalid::gone;
use super::lookup::Lookup;
use super::problem::AcmeRemedy;
use super::work::{CertificateWork, OrderSubject, Surroundings};
use crate::config::acme::Method;
use crate::host::without_wildcard;
use crate::ledger::time::wall;
use crate::reason::Reason;
use crate::reason::pasted::pintle;
use crate::server::ChallengeAnswer;

/// The proofs that an order needs.
#[derive(Default)]
struct Needs {
    /// Answers over HTTP and TLS.
    answers: Vec<ChallengeAnswer>,
    /// Records to set.
    records: Vec<TxtRecord>,
    /// Names whose records must be there already.
    standing: Vec<String>,
    /// Challenges that the authority waits for.
    open: Vec<(String, Method)>,
}

/// Answers the challenges of all names that are not proved yet.
pub(super) async fn prove(
    work: &CertificateWork,
    wanted: &OrderSubject,
    around: &Surroundings,
    order: &mut Order,
    client: &AcmeClient,
) -> Result<(), StepFault> {
    let issuers = fetch(order, client).await?;
    let Needs { answers, records, standing, open } = needs(work, around, order, client).await?;
    if answers != work.record.borrow().answers {
        work.change(|record| record.answers.clone_from(&answers))?;
    }
    // All workers share the answers: every later request gets them.
    around.answers.set(&work.name(), answers);
    for name in &standing {
        check_standing(name, issuers.get(name), wanted, around).await?;
    }
    if !records.is_empty() {
        set(work, around, &records).await?;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| StepFault::of(error, client))?;
        let name = authorization.identifier().to_string();
        let Some((_, method)) = open.iter().find(|(open, _)| *open == name) else { continue };
        let Some(mut challenge) = authorization.challenge(kind(*method)) else { continue };
        tracing::debug!(site = work.certificate.site, name, challenge = method.name(), "answering a challenge");
        match signed!(challenge.set_ready(), client) {
            Ok(()) => {}
            // The authority has judged it already, in an earlier process: the order says how.
            Err(fault) if matches!(fault.remedy, AcmeRemedy::Operator | AcmeRemedy::Validation) => {
                tracing::debug!(name, problem = fault.reason.line(), "the challenge is no longer pending");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Fetches all authorizations of an order. Returns the names of the authority in each challenge of dns-persist-01, which
/// instant-acme does not show.
async fn fetch(order: &mut Order, client: &AcmeClient) -> Result<HashMap<String, Vec<String>>, StepFault> {
    let mut issuers = HashMap::new();
    let mut all = async || {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let name = authorization?.identifier().to_string();
            let document: Value = serde_json::from_slice(&client.last().body).unwrap_or_default();
            let base = without_wildcard(&name);
            // An authorization that is known already was not asked for again.
            if document["identifier"]["value"] == base && !issuers.contains_key(&name) {
                issuers.extend(issuers_of(&document).map(|found| (name, found)));
            }
        }
        Ok::<(), instant_acme::Error>(())
    };
    signed!(all(), client).map_err(gone)?;
    Ok(issuers)
}

fn issuers_of(authorization: &Value) -> Option<Vec<String>> {
    let challenges = authorization["challenges"].as_array()?;
    let challenge = challenges.iter().find(|challenge| challenge["type"] == Method::DnsPersist01.name())?;
    let listed = challenge["issuer-domain-names"].as_array()?;
    Some(listed.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Collects the proofs.
async fn needs(
    work: &CertificateWork,
    around: &Surroundings,
    order: &mut Order,
    client: &AcmeClient,
) -> Result<Needs, StepFault> {
    let mut needs = Needs::default();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| StepFault::of(error, client))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = authorization.identifier().to_string();
        let method = method(work, around, &name, |method| {
            let kind = kind(method);
            authorization.challenges.iter().any(|challenge| challenge.r#type == kind)
        })?;
        let Some(challenge) = authorization.challenge(kind(method)) else { continue };
        let key = challenge.key_authorization();
        let answer = |token| ChallengeAnswer::new(&name, token, key.as_str().to_owned());
        match method {
            Method::Http01 => needs.answers.push(answer(Some(challenge.token.clone()))),
            Method::TlsAlpn01 => needs.answers.push(answer(None)),
            Method::Dns01 => needs.records.push(record(&name, key.as_str())),
            Method::DnsPersist01 => needs.standing.push(name.clone()),
        }
        if challenge.status == ChallengeStatus::Pending {
            needs.open.push((name, method));
        }
    }
    Ok(needs)
}

/// Sets the records that are not set yet, and waits until the zone's name servers serve them. They stay until the order
/// ends: a record that is removed and set again has to spread anew.
async fn set(work: &CertificateWork, around: &Surroundings, records: &[TxtRecord]) -> Result<(), StepFault> {
    let Some(hook) = hook::running() else {
        return Err(fault(&Reason::new("pintle started without acme.dns_hook").command(pintle("upgrade"))));
    };
    // An earlier process has set these, and may have removed them.
    if work.has_leftovers() {
        work.clean().await;
    }
    let missing = work.presented.borrow().as_ref().map_or_else(|| records.to_vec(), |set| set.missing(records));
    if !missing.is_empty() {
        // On disk first: a process that is killed leaves them to the next one.
        work.change(|record| {
            let new = missing.iter().filter(|new| !record.dns_records.contains(new)).cloned().collect::<Vec<_>>();
            record.dns_records.extend(new);
        })?;
        let new = present(&hook, &missing).await.map_err(|reason| fault(&reason));
        if new.is_err() {
            work.change(|record| record.dns_records.retain(|known| !missing.contains(known)))?;
        }
        let new = new?;
        match &mut *work.presented.borrow_mut() {
            Some(set) => set.join(new),
            none => *none = Some(new),
        }
        let names: Vec<&str> = missing.iter().map(|record| record.name.as_str()).collect();
        tracing::debug!(site = work.certificate.site, names = names.join(" "), "DNS records set");
    }
    let lookup = match Lookup::new(&around.name_servers) {
        Ok(lookup) => lookup,
        Err(error) => {
            tracing::warn!(problem = error, "no name server: cannot check that the DNS records are visible");
            return Ok(());
        }
    };
    let limit = around.settings.dns_propagation;
    let Err(reason) = dns::visible(records, &lookup, limit).await else { return Ok(()) };
    // This host may see another zone than the authority does: a resolver with an old answer, or an internal zone. The
    // first try costs nothing at the authority; a later one asks it.
    let age = work.presented.borrow().as_ref().map_or(limit, dns::Presented::age);
    if age < limit.saturating_mul(2) {
        return Err(fault(&reason));
    }
    let (problem, hint) = (reason.line(), reason.hint_line());
    let site = &work.certificate.site;
    tracing::warn!(site, problem, hint, "the authority is asked although the DNS records are not visible from here");
    Ok(())
}

/// The order stays open: a failure of this host's side costs none.
fn fault(reason: &Reason) -> StepFault {
    StepFault::here(reason.clone())
}

/// Checks the record of a name before the authority does. A failed lookup says nothing.
async fn check_standing(
    name: &str,
    found: Option<&Vec<String>>,
    wanted: &OrderSubject,
    around: &Surroundings,
) -> Result<(), StepFault> {
    let directory = &wanted.authority.directory;
    let named = issuers(found.map_or(&[][..], Vec::as_slice)).map_err(|reason| fault(&reason))?;
    let account = account::Stored::read(&around.settings.folder, directory)?.and_then(|stored| stored.url);
    let (Some(account), Ok(lookup)) = (account, Lookup::new(&around.name_servers)) else { return Ok(()) };
    let Ok(values) = lookup.txt(&Persist::name(name)).await.known() else { return Ok(()) };
    let RecordState::Bad(why) = standing(&values, named, &account, name, wall()) else { return Ok(()) };
    let issuer = named.first().cloned().unwrap_or_default();
    let line = Persist { issuer, account, wildcard: name.starts_with("*."), until: None }.line(name);
    Err(fault(&Reason::new(format!("{name}: {}: {why}", Persist::name(name))).hint(format!("add: {line}"))))
}

fn kind(method: Method) -> ChallengeType {
    match method {
        Method::Http01 => ChallengeType::Http01,
        Method::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Method::Dns01 => ChallengeType::Dns01,
        Method::DnsPersist01 => ChallengeType::Unknown(method.name().to_owned()),
    }
}

/// Returns the way to prove a name: that of the preflight, or else the first one that the authority offers and pintle may
/// use.
fn method(
    work: &CertificateWork,
    around: &Surroundings,
    name: &str,
    is_offered: impl Fn(Method) -> bool,
) -> Result<Method, StepFault> {
    let record = work.record.borrow();
    let checked = record.checked.iter().flat_map(|checked| &checked.ways);
    let best = checked.filter(|way| way.name == name).map(|way| way.method);
    let configured = around.settings.challenges.iter().copied();
    let fits = |method: &Method| {
        around.settings.challenges.contains(method)
            && method.proves(name)
            && (*method != Method::Dns01 || hook::running().is_some())
    };
    best.chain(configured).filter(fits).find(|method| is_offered(*method)).ok_or_else(|| {
        let ours: Vec<&str> = around.settings.challenges.iter().map(|method| method.name()).collect();
        let text =
            format!("{name}: the authority offers none of acme.challenges ({}) that can validate it", ours.join(", "));
        StepFault { ends_order: true, ..StepFault::operator(text) }
    })
}
