//! From answers to conclusions, each with its evidence.

use std::path::PathBuf;

use super::answer::{ProbeOutcome, SHOWN, UpstreamAnswer};
use super::choose::{HostChoice, InitDecision, UpstreamChoice, honours_forwarded_proto, is_loop};
use super::evidence::{CertificateEvidence, Evidence};
use super::fingerprint::{PlatformVerdict, identify};
use super::platform::Platform;
use super::probe::{BlogTarget, written};
use super::text::clean;
use crate::host::{bare, bracketed, is_within};
use crate::message::Name;
use crate::policy::Scheme;
use crate::reason::counted;
use crate::verify::field::PolicyField;
use crate::verify::grammar::read;
use crate::verify::page::{PageFindings, scan, upgrades};
use crate::verify::target::{ConnectTo, Url};

/// The most insecure references and cookies that are listed.
const LISTED: usize = 5;
/// The line for `wp-config.php` that makes WordPress believe `X-Forwarded-Proto`.
pub const WP_CONFIG: &str = "if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = 'on'; }";

/// The four names of the upstream, and its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamNames {
    /// `upstream`.
    pub upstream: String,
    /// `connect`, if it differs from the host and port of `upstream`.
    pub connect: Option<InitDecision<String>>,
    /// The host and port that pintle connects to.
    pub connects_to: String,
    /// `server_name`, if it differs from the host of `upstream`.
    pub server_name: Option<InitDecision<String>>,
    /// The name in SNI and in the certificate. `None` without TLS.
    pub tls_name: Option<String>,
    /// `ca`: roots of the operator's own.
    pub ca: Option<PathBuf>,
}

/// A cookie with a `Domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// `true` if pintle replaces the domain, `false` if browsers refuse the cookie.
    pub is_rewritten: bool,
}

/// The site's own HSTS policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnHsts {
    /// Seconds.
    pub max_age: u64,
    /// `true` if it binds the names below.
    pub include_subdomains: bool,
    /// `true` if the blog sends it under a name of the site: browsers hold it already.
    pub is_public: bool,
}

/// A remark for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `true` if something will not work.
    pub is_warning: bool,
    /// The remark; plain ASCII.
    pub text: String,
    /// Code to paste.
    pub code: Option<&'static str>,
}

/// All conclusions.
#[derive(Debug)]
pub struct Conclusion {
    /// The URL that was looked at.
    pub url: Url,
    /// The site's names.
    pub hosts: Vec<String>,
    /// The site's first name.
    pub public: String,
    /// The platform.
    pub verdict: PlatformVerdict,
    /// Scheme and Host.
    pub choice: UpstreamChoice,
    /// The names.
    pub names: UpstreamNames,
    /// `true` if the upstream believes `X-Forwarded-Proto`; `None` if unknown.
    pub forwarded_proto: Option<bool>,
    /// The blog's own HSTS policy.
    pub hsts: Option<OwnHsts>,
    /// The cookies with a `Domain`.
    pub cookies: Vec<Cookie>,
    /// The number of links of the start page that name the upstream.
    pub own_links: usize,
    /// The insecure references of the start page, if there was a page.
    pub page: Option<PageFindings>,
    /// The answers in words.
    pub answers: Vec<(String, String)>,
    /// Remarks.
    pub notes: Vec<Note>,
    /// The number of requests.
    pub requests: usize,
}

/// Draws all conclusions.
#[must_use]
pub fn conclude(evidence: &Evidence, target: &BlogTarget, choice: UpstreamChoice, ca: Option<PathBuf>) -> Conclusion {
    let names = names(evidence, target, &choice, ca);
    let mut conclusion = Conclusion {
        url: evidence.url.clone(),
        hosts: evidence.hosts.iter().map(ToString::to_string).collect(),
        public: evidence.public.clone(),
        verdict: identify(evidence),
        names,
        forwarded_proto: honours_forwarded_proto(evidence),
        hsts: hsts(evidence),
        cookies: cookies(evidence),
        own_links: start_page(evidence).map_or(0, |page| own_links(page, evidence)),
        page: start_page(evidence).map(mixed),
        answers: answers(evidence),
        notes: Vec::new(),
        requests: evidence.requests,
        choice,
    };
    conclusion.notes = notes(evidence, &conclusion);
    conclusion
}

fn names(evidence: &Evidence, target: &BlogTarget, choice: &UpstreamChoice, ca: Option<PathBuf>) -> UpstreamNames {
    let scheme = choice.scheme.value;
    let url = &evidence.url;
    let over = url.over(scheme);
    let (port, at) = (over.port, over.authority());
    let own = format!("{}:{port}", url.host);
    let given = match scheme {
        Scheme::Http if target.connect_http.is_some() => true,
        _ => target.connect.is_some(),
    };
    let connect = match (given.then(|| target.place(scheme)).flatten(), evidence.address(scheme)) {
        (Some(place), _) => {
            let answered = evidence.address(scheme).is_some();
            let why = "the address of --connect".to_owned();
            Some(InitDecision { value: place_text(&place, port), proven: answered, why })
        }
        (None, Some(address)) if evidence.is_own_public() => {
            let value = written(address);
            let why = format!("the address of {} today: its name will point to pintle", url.host);
            Some(InitDecision { value, proven: true, why })
        }
        _ => None,
    };
    let is_https = scheme == Scheme::Https;
    let server_name = (is_https
        && url.address().is_some()
        && evidence.foreign_certificate == CertificateEvidence::Trusted)
        .then(|| {
            let why = format!("{} has a valid certificate for this name", url.host);
            InitDecision { value: evidence.public.clone(), proven: true, why }
        });
    let connects_to = connect.as_ref().map_or(own, |connect| connect.value.clone());
    let own_name = bare(&url.host).to_owned();
    let tls_name = is_https.then(|| server_name.as_ref().map_or(own_name, |name| name.value.clone()));
    let ca = ca.filter(|_| is_https);
    UpstreamNames { upstream: format!("{}://{at}", scheme.as_str()), connect, connects_to, server_name, tls_name, ca }
}

fn place_text(place: &ConnectTo, port: u16) -> String {
    format!("{}:{}", bracketed(&place.host), place.port.unwrap_or(port))
}

/// The start page as visitors will get it, or as the blog shows it now.
fn start_page(evidence: &Evidence) -> Option<&UpstreamAnswer> {
    let looks = [&evidence.rehearsal, &evidence.secure, &evidence.declared, &evidence.plain];
    looks.into_iter().filter_map(ProbeOutcome::answer).find(|answer| answer.has_document() && !answer.is_refusal())
}

fn mixed(answer: &UpstreamAnswer) -> PageFindings {
    let mut page = scan(answer.body());
    page.upgraded |= answer.response.values_of("content-security-policy").any(upgrades);
    page
}

fn own_links(page: &UpstreamAnswer, evidence: &Evidence) -> usize {
    if evidence.is_own_public() {
        return 0;
    }
    let is_absolute = |r: &&Vec<u8>| r.starts_with(b"//") || r.windows(3).take(8).any(|w| w == b"://");
    let urls = page.page.references.iter().filter(is_absolute);
    urls.filter_map(|r| page.url.join(std::str::from_utf8(r).ok()?)).filter(|u| u.host == evidence.url.host).count()
}

fn hsts(evidence: &Evidence) -> Option<OwnHsts> {
    if evidence.certificate != CertificateEvidence::Trusted || evidence.url.address().is_some() {
        return None;
    }
    let answer = evidence.secure.answer()?;
    let values = answer.response.values(Name::StrictTransportSecurity);
    let reading = read(PolicyField::Sts, values.first()?);
    let max_age = reading.max_age.filter(|age| *age > 0 && reading.is_valid())?;
    let is_public = evidence.is_own_public();
    Some(OwnHsts { max_age, include_subdomains: reading.include_subdomains, is_public })
}

/// The cookies with a `Domain`, each name once.
fn cookies(evidence: &Evidence) -> Vec<Cookie> {
    let looks = [&evidence.rehearsal, &evidence.login, &evidence.secure, &evidence.plain, &evidence.declared];
    let answers = looks.into_iter().filter_map(ProbeOutcome::answer);
    let mut cookies: Vec<Cookie> = Vec::new();
    for value in answers.flat_map(|answer| answer.response.values(Name::SetCookie)) {
        let mut parts = value.split(|b| *b == b';');
        let name = parts.next().and_then(|pair| pair.split(|b| *b == b'=').next()).unwrap_or_default();
        let domain = parts.find_map(|part| {
            let at = part.iter().position(|b| *b == b'=')?;
            let is_domain = part[..at].trim_ascii().eq_ignore_ascii_case(b"domain");
            is_domain.then(|| part[at + 1..].trim_ascii())
        });
        let Some(domain) = domain else { continue };
        let domain = clean(domain.strip_prefix(b".").unwrap_or(domain), SHOWN).to_ascii_lowercase();
        let name = clean(name.trim_ascii(), SHOWN);
        let is_good = evidence.hosts.iter().any(|host| is_within(host.base(), &domain));
        if domain.is_empty() || is_good || cookies.iter().any(|c| c.name == name) {
            continue;
        }
        let is_rewritten = is_within(&evidence.url.host, &domain);
        cookies.push(Cookie { name, domain, is_rewritten });
    }
    cookies
}

fn answers(evidence: &Evidence) -> Vec<(String, String)> {
    let public = &evidence.public;
    let (https, http) = (evidence.own_authority(Scheme::Https), evidence.own_authority(Scheme::Http));
    let looks = [
        (format!("https://{https}"), &evidence.secure),
        (format!("http://{http}"), &evidence.plain),
        (format!("http://{http}, X-Forwarded-Proto: https"), &evidence.declared),
        (format!("Host: {public}"), &evidence.foreign),
        ("as pintle will ask".to_owned(), &evidence.rehearsal),
        ("/robots.txt".to_owned(), &evidence.robots),
        ("the feed".to_owned(), &evidence.feed),
        ("/wp-login.php".to_owned(), &evidence.login),
    ];
    let asked = looks.into_iter().filter(|(_, look)| !matches!(look, ProbeOutcome::NotAsked));
    asked.map(|(what, look)| (what, look.words())).collect()
}

fn note(text: String) -> Note {
    Note { is_warning: false, text, code: None }
}

fn warning(text: String) -> Note {
    Note { is_warning: true, text, code: None }
}

fn notes(evidence: &Evidence, conclusion: &Conclusion) -> Vec<Note> {
    let mut notes = Vec::new();
    of_connection(evidence, conclusion, &mut notes);
    of_redirects(evidence, conclusion, &mut notes);
    of_page(conclusion, &mut notes);
    notes
}

fn of_connection(evidence: &Evidence, conclusion: &Conclusion, notes: &mut Vec<Note>) {
    let Conclusion { verdict, choice, names, .. } = conclusion;
    if let Some(doubt) = &verdict.doubt {
        notes.push(note(format!("The platform is unknown: {doubt}.")));
    }
    if let (false, CertificateEvidence::Refused(why)) = (choice.scheme.proven, &evidence.certificate) {
        let from = match evidence.is_misnamed {
            true => "If it is the right server, set verify_name to a name of its certificate.",
            false => "If it comes from a CA of your own, name that CA in ca.",
        };
        notes.push(warning(format!("pintle will refuse the upstream's certificate: {why}. {from}")));
    } else if !choice.scheme.proven {
        notes.push(warning(format!("The upstream's scheme is not proven. {}.", choice.scheme.why)));
    }
    if !choice.host.proven {
        let why = &choice.host.why;
        notes.push(warning(format!("The Host field is not proven. {why}. Try \"upstream\", then \"client\".")));
    }
    if choice.scheme.value == Scheme::Http && conclusion.forwarded_proto == Some(false) {
        let what = "The upstream ignores X-Forwarded-Proto: it treats all visitors as visitors over http.";
        let code = verdict.platform.filter(|p| p.has_wp_config()).map(|_| WP_CONFIG);
        notes.push(Note { code, ..warning(what.into()) });
    }
    if evidence.url.target != "/" {
        let path = evidence.url.target.split('?').next().unwrap_or_default();
        let shown = clean(path.as_bytes(), SHOWN);
        notes.push(note(format!("pintle keeps the path of requests: the blog stays below {shown}.")));
    }
    if names.connect.as_ref().is_some_and(|c| c.proven) && evidence.is_own_public() {
        let own = &evidence.url.host;
        notes.push(note(format!("{own} will point to pintle, so pintle connects to {}.", names.connects_to)));
    }
}

fn of_redirects(evidence: &Evidence, conclusion: &Conclusion, notes: &mut Vec<Note>) {
    let public = &evidence.public;
    let naming = || conclusion.verdict.platform.map(|platform| platform.naming(public));
    if is_loop(&evidence.rehearsal, evidence) {
        let code = conclusion.verdict.platform.filter(|p| p.has_wp_config()).map(|_| WP_CONFIG);
        let answer = evidence.rehearsal.words();
        notes.push(Note {
            code,
            ..warning(format!("The start page redirects to itself ({answer}): through pintle, this never ends."))
        });
    } else if let Some(to) = leads_away(&evidence.rehearsal, evidence) {
        let shown = clean(to.to_string().as_bytes(), SHOWN);
        let host = clean(to.host.as_bytes(), SHOWN);
        notes.push(warning(format!(
            "The start page redirects to {shown}: visitors of {public} end up there. If {host} is the blog's public \
             name, add --host {host}; if the blog answers there, run init with that URL."
        )));
    } else if let Some(answer) = evidence.rehearsal.answer().filter(|a| !a.is_here()) {
        notes.push(warning(format!("The start page answers {} to pintle.", answer.words())));
    }
    if is_loop(&evidence.login, evidence) {
        let what = "wp-login.php redirects to itself: WordPress does not know that visitors use https. Add this line to \
                    wp-config.php:";
        notes.push(Note { code: Some(WP_CONFIG), ..warning(what.into()) });
    }
    let links = conclusion.own_links;
    if links > 0 {
        let how = naming().map(|how| format!(" Then {how}.")).unwrap_or_default();
        let links = counted(links, "link");
        let own = &evidence.url.host;
        notes.push(note(format!("{links} of the start page lead to {own}: pintle does not rewrite pages.{how}")));
    }
}

/// The target of a redirect that neither pintle nor the site answers.
fn leads_away(look: &ProbeOutcome, evidence: &Evidence) -> Option<Url> {
    let to = look.answer()?.redirect()?;
    (to.host != evidence.url.host && !evidence.is_public(&to.host)).then_some(to)
}

fn of_page(conclusion: &Conclusion, notes: &mut Vec<Note>) {
    let public = &conclusion.public;
    for cookie in conclusion.cookies.iter().take(LISTED) {
        let Cookie { name, domain, is_rewritten } = cookie;
        notes.push(match is_rewritten {
            true => note(format!("The cookie {name} is for {domain}: pintle makes it one of {public}.")),
            false => warning(format!("The cookie {name} is for {domain}: browsers refuse it from {public}.")),
        });
    }
    if let Some(page) = conclusion.page.as_ref().filter(|page| page.count > 0) {
        let references = counted(page.count, "reference");
        let shown = page.insecure.iter().take(LISTED).map(|i| {
            let (element, url) = (clean(i.element.as_bytes(), SHOWN), clean(i.url.as_bytes(), SHOWN));
            format!("{element}={url}")
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let what = format!("Mixed content: the start page has {references} by http: {shown}.");
        notes.push(match page.upgraded {
            true => note(format!("{what} Browsers use https instead (upgrade-insecure-requests).")),
            false => warning(format!("{what} Browsers block or upgrade these on an https page.")),
        });
    }
    if let Some(hsts) = conclusion.hsts.filter(|hsts| !hsts.is_public) {
        let own = &conclusion.url.host;
        notes.push(note(format!("{own} sends HSTS with max-age={}; pintle replaces it.", hsts.max_age)));
    }
}

/// Returns the platform's name, or `unknown`.
#[must_use]
pub fn platform_name(verdict: &PlatformVerdict) -> &'static str {
    verdict.platform.map_or("unknown", Platform::name)
}

/// Returns the value of `host_header`.
#[must_use]
pub fn host_word(host: HostChoice) -> &'static str {
    match host {
        HostChoice::Upstream => "upstream",
        HostChoice::Client => "client",
    }
}
