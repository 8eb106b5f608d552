//! The report as JSON: of `pintle verify --json`, and of the API.

use serde_json::{Value, json};

use super::chain::{SeenCertificate, SeenChain};
use super::client::{VisitFailure, VisitResponse};
use super::finding::{Group, Level, VerifyFinding};
use super::hello::TlsVersion;
use super::judge::preload::Preload;
use super::judge::versions::VersionResult;
use super::notes::ClientMemory;
use super::options::Options;
use super::page::{BrowserReaction, Insecure, PageFindings};
use super::report::VerifyReport;
use crate::message::Name;

/// Returns all findings, and the facts behind them.
#[must_use]
pub fn report(options: &Options, report: &VerifyReport) -> Value {
    let page = report.page.as_ref();
    json!({
        "ok": report.count(Level::Error) == 0,
        "url": options.url.to_string(),
        "address": report.address.to_string(),
        "time": options.now.to_string(),
        "tls": {
            "negotiated": report.negotiated.map(TlsVersion::as_str),
            "versions": report.versions.iter().map(offer).collect::<Vec<_>>(),
        },
        "chain": report.chain.as_ref().map(chain).unwrap_or_default(),
        "chain_trusted": report.chain.as_ref().is_some_and(|c| c.distrust.is_none()),
        "other_chains": report.other_chains.iter().map(chain).collect::<Vec<_>>(),
        "response": report.response.as_ref().map(response),
        "redirect": {
            "url": report.plain.url.to_string(),
            "status": report.plain.status,
            "location": report.plain.location,
        },
        "noted": noted(&report.memory),
        "preload": report.preload.as_ref().map(preload),
        "page": page.map(page_json),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Returns the report for a server that could not be reached.
#[must_use]
pub fn unreachable(options: &Options, failure: &VisitFailure) -> Value {
    let row = VerifyFinding::new(Group::Tls, Level::Error, "unreachable", failure.to_string());
    json!({
        "ok": false,
        "url": options.url.to_string(),
        "time": options.now.to_string(),
        "findings": [finding(&row)],
    })
}

fn finding(finding: &VerifyFinding) -> Value {
    json!({
        "group": finding.group.as_str(), "level": finding.level.as_str(), "check": finding.check,
        "message": finding.message, "hint": finding.hint,
    })
}

fn offer(offer: &VersionResult) -> Value {
    json!({ "version": offer.version.as_str(), "offered": offer.offered, "unknown": offer.unknown })
}

/// Returns the certificates as sent, then the root, if it was not sent.
fn chain(chain: &SeenChain) -> Vec<Value> {
    let mut all: Vec<Value> = chain.served.iter().map(certificate).collect();
    let root = chain.root.as_ref().filter(|root| chain.served.iter().all(|c| c.pin != root.pin));
    all.extend(root.map(|r| json!({ "subject": r.subject, "pin": r.pin.to_string(), "served": false })));
    all
}

fn certificate(certificate: &SeenCertificate) -> Value {
    let facts = &certificate.facts;
    json!({
        "subject": certificate.subject, "issuer": facts.issuer, "names": facts.names(), "serial": facts.serial,
        "algorithm": facts.algorithm.to_string(), "pin": certificate.pin.to_string(),
        "not_before": facts.not_before.to_string(), "not_after": facts.not_after.to_string(), "served": true,
    })
}

fn response(response: &VisitResponse) -> Value {
    let values = |name| {
        let values = response.values(name);
        values.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect::<Vec<_>>()
    };
    json!({
        "status": response.head.status.as_u16(),
        "strict_transport_security": values(Name::StrictTransportSecurity),
        "public_key_pins": values(Name::PublicKeyPins),
        "public_key_pins_report_only": values(Name::PublicKeyPinsReportOnly),
    })
}

/// `pintle verify --pins` reads this again.
fn noted(memory: &ClientMemory) -> Value {
    json!({
        "hsts": memory.hsts.map(|n| json!({ "max_age": n.max_age, "include_subdomains": n.include_subdomains })),
        "pins": memory.pins.as_ref().map(|n| json!({
            "pins": n.pins.iter().map(ToString::to_string).collect::<Vec<_>>(), "max_age": n.max_age,
            "include_subdomains": n.include_subdomains, "report_uri": n.report_uri,
        })),
    })
}

fn preload(preload: &Preload) -> Value {
    json!({ "ready": preload.reasons.is_empty(), "asked": preload.asked, "reasons": preload.reasons })
}

fn page_json(page: &PageFindings) -> Value {
    let one = |i: &Insecure| {
        let kind = match i.kind {
            BrowserReaction::Active => "active",
            BrowserReaction::Passive => "passive",
            BrowserReaction::Form => "form",
        };
        json!({ "kind": kind, "element": i.element, "url": i.url, "line": i.line })
    };
    let insecure: Vec<Value> = page.insecure.iter().map(one).collect();
    json!({ "count": page.count, "upgraded": page.upgraded, "insecure": insecure })
}
