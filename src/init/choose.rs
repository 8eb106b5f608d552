//! Picks the scheme and the Host for the upstream, with the reasons.

use super::answer::{ProbeOutcome, UpstreamAnswer};
use super::evidence::{CertificateEvidence, Evidence};
use super::text::contains;
use crate::message::Name;
use crate::policy::Scheme;

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitDecision<T> {
    /// The choice.
    pub value: T,
    /// `true` if the answers prove it.
    pub proven: bool,
    /// The evidence, or the reason for doubt.
    pub why: String,
}

/// The Host field that the upstream gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostChoice {
    /// The blog's own name.
    Upstream,
    /// The name that the client asked for.
    Client,
}

/// Scheme and Host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamChoice {
    /// The scheme of the upstream.
    pub scheme: InitDecision<Scheme>,
    /// The Host field.
    pub host: InitDecision<HostChoice>,
}

fn proven<T>(value: T, why: String) -> InitDecision<T> {
    InitDecision { value, proven: true, why }
}

fn open<T>(value: T, why: String) -> InitDecision<T> {
    InitDecision { value, proven: false, why }
}

/// Picks scheme and Host.
#[must_use]
pub fn choose(evidence: &Evidence) -> UpstreamChoice {
    let scheme = scheme(evidence);
    let host = host(evidence, scheme.value);
    UpstreamChoice { scheme, host }
}

/// Picks the scheme to look at first, before anything else is known.
#[must_use]
pub fn scheme(evidence: &Evidence) -> InitDecision<Scheme> {
    let own = &evidence.url.host;
    let certificate = match (&evidence.certificate, evidence.secure.answer()) {
        (CertificateEvidence::Trusted, Some(_)) => {
            return proven(Scheme::Https, format!("The server answers over https with a valid certificate for {own}"));
        }
        // An address has no certificate; a name of the site may have one there.
        (_, Some(_)) if evidence.foreign_certificate == CertificateEvidence::Trusted => {
            let public = &evidence.public;
            return proven(
                Scheme::Https,
                format!("The server answers over https with a valid certificate for {public}"),
            );
        }
        (CertificateEvidence::Refused(why), _) => format!(". The certificate of {own} is refused: {why}"),
        _ if matches!(evidence.secure, ProbeOutcome::NotAsked) => String::new(),
        _ => format!(". By https there is {}", evidence.secure.words()),
    };
    let plain = evidence.plain.answer();
    let declared = evidence.declared.answer();
    match plain {
        Some(answer) if !answer.leads_to_https() => {
            proven(Scheme::Http, format!("The server answers over http{certificate}"))
        }
        Some(_) if declared.is_some_and(|answer| !answer.leads_to_https()) => {
            let what = "The server answers over http if X-Forwarded-Proto says https";
            proven(Scheme::Http, format!("{what}{certificate}"))
        }
        Some(answer) => open(Scheme::Https, format!("Over http, the server answers {}{certificate}", answer.words())),
        None => open(Scheme::Https, format!("There is no answer over http{certificate}")),
    }
}

/// The answer under the own name that pintle would get.
fn own_answer(evidence: &Evidence, scheme: Scheme) -> Option<&UpstreamAnswer> {
    match scheme {
        Scheme::Https => evidence.secure.answer(),
        Scheme::Http => evidence.declared.answer().or_else(|| evidence.plain.answer()),
    }
}

fn host(evidence: &Evidence, scheme: Scheme) -> InitDecision<HostChoice> {
    let (own_name, public) = (&evidence.url.host, &evidence.public);
    if evidence.is_own_public() {
        return proven(HostChoice::Client, format!("{own_name} is a name of the site, and the blog's own name"));
    }
    let default = if evidence.url.address().is_some() { HostChoice::Client } else { HostChoice::Upstream };
    let own = own_answer(evidence, scheme);
    let foreign = evidence.foreign.answer();
    let words = |look: Option<&UpstreamAnswer>| look.map_or_else(|| "no answer".to_owned(), UpstreamAnswer::words);
    let own_host = evidence.own_authority(scheme);
    let both =
        format!("The server answers {} with Host: {own_host}, and {} with Host: {public}", words(own), words(foreign));
    let leads_to_public =
        own.and_then(UpstreamAnswer::redirect).is_some_and(|to| to.host != *own_name && evidence.is_public(&to.host));
    let is_own = own.is_some_and(|a| a.is_here() && !a.is_refusal());
    let is_foreign = foreign.is_some_and(|a| a.is_here() && !a.is_refusal() && !is_stock(a));
    let is_missing = own.is_some_and(|a| matches!(a.status().as_u16(), 400 | 404 | 410 | 421));
    let leads_away = own.is_some_and(|a| a.status().is_redirection() && !a.is_here());
    match (is_own, is_foreign) {
        (_, true) if leads_to_public => proven(HostChoice::Client, both),
        _ if leads_to_public => open(HostChoice::Client, both),
        (true, false) => proven(HostChoice::Upstream, both),
        (false, true) if is_missing || leads_away => proven(HostChoice::Client, both),
        (true, true) => of_two_pages(evidence, own, foreign, default, both),
        _ => open(default, both),
    }
}

/// Both names lead to a page: the names that the pages give themselves decide.
fn of_two_pages(
    evidence: &Evidence,
    own: Option<&UpstreamAnswer>,
    foreign: Option<&UpstreamAnswer>,
    default: HostChoice,
    both: String,
) -> InitDecision<HostChoice> {
    let (Some(own), Some(foreign)) = (own, foreign) else { return open(default, both) };
    let leads_to_own = foreign.redirect().is_some_and(|to| to.host == evidence.url.host);
    let names = |answer: &UpstreamAnswer, is_it: &dyn Fn(&str) -> bool| {
        let own = answer.page.own.iter().filter_map(|url| answer.url.join(std::str::from_utf8(url).ok()?));
        own.map(|url| url.host).any(|host| is_it(&host))
    };
    let is_own = |host: &str| host == evidence.url.host;
    if leads_to_own || names(foreign, &is_own) {
        return proven(HostChoice::Upstream, format!("{both}. The pages call themselves {}", evidence.url.host));
    }
    if names(own, &|host| evidence.is_public(host)) {
        return proven(HostChoice::Client, format!("{both}. The pages call themselves {}", evidence.public));
    }
    if own.body() != foreign.body() && !are_alike(own, foreign) {
        return match default {
            HostChoice::Upstream => proven(default, format!("{both}, but another page")),
            HostChoice::Client => open(default, format!("{both}, but another page")),
        };
    }
    proven(default, format!("{both}. Both work"))
}

/// Pages of one blog under two names differ in these names, tokens and times. Their generators and
/// titles do not.
fn are_alike(one: &UpstreamAnswer, other: &UpstreamAnswer) -> bool {
    title(one.body()) == title(other.body())
        && one.page.generators == other.page.generators
        && one.page.references.len() == other.page.references.len()
}

fn title(body: &[u8]) -> Option<&[u8]> {
    let at = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|w| w.eq_ignore_ascii_case(part));
    let rest = &body[at(body, b"<title")?..];
    Some(rest[..at(rest, b"</title")?].trim_ascii())
}

/// The page of a fresh server, or of a platform that does not know the name.
fn is_stock(answer: &UpstreamAnswer) -> bool {
    const STOCK: [&str; 9] = [
        "Welcome to nginx!",
        "Apache2 Debian Default Page",
        "Apache2 Ubuntu Default Page",
        "It works!</h1>",
        "Test Page for the",
        "Do you want to register",
        "Site unavailable",
        "Isn't Connected To A Website Yet",
        "404 Blog is not found",
    ];
    STOCK.iter().any(|text| contains(answer.body(), text.as_bytes()))
}

/// Returns `true` if the upstream believes `X-Forwarded-Proto: https`, `false` if it does not, and
/// `None` if its answers do not tell.
#[must_use]
pub fn honours_forwarded_proto(evidence: &Evidence) -> Option<bool> {
    let (plain, declared) = (evidence.plain.answer()?, evidence.declared.answer()?);
    if plain.is_refusal() || declared.is_refusal() {
        return None;
    }
    let (before, after) = (leads_to_secure(plain, evidence), leads_to_secure(declared, evidence));
    if before {
        return Some(!after);
    }
    if !plain.is_page() || !declared.is_page() {
        return None;
    }
    match (links(plain, evidence), links(declared, evidence)) {
        ([0, 0], _) | (_, [0, 0]) => None,
        ([http, _], [0, https]) if http > 0 && https > 0 => Some(true),
        ([http, _], [still, _]) if http > 0 && still > 0 => Some(false),
        _ => None,
    }
}

/// A redirect to https, under the own name or a name of the site.
fn leads_to_secure(answer: &UpstreamAnswer, evidence: &Evidence) -> bool {
    answer
        .redirect()
        .is_some_and(|to| to.scheme == Scheme::Https && (to.host == evidence.url.host || evidence.is_public(&to.host)))
}

/// The number of absolute links to the blog itself: by http, and by https.
fn links(answer: &UpstreamAnswer, evidence: &Evidence) -> [usize; 2] {
    let count = |scheme: &str| {
        let urls = answer.page.references.iter().filter_map(|r| std::str::from_utf8(r).ok());
        let urls = urls.filter(|r| r.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)));
        urls.filter_map(|r| answer.url.join(r))
            .filter(|u| u.host == evidence.url.host || evidence.is_public(&u.host))
            .count()
    };
    [count("http://"), count("https://")]
}

/// Returns `true` for a redirect to the page that was asked for: with pintle in between, it would
/// never end.
#[must_use]
pub fn is_loop(look: &ProbeOutcome, evidence: &Evidence) -> bool {
    let Some(answer) = look.answer() else { return false };
    let Some(to) = answer.redirect() else { return false };
    // A cookie may end it.
    let is_ours = to.host == evidence.url.host || evidence.is_public(&to.host);
    is_ours && to.target == answer.url.target && answer.response.values(Name::SetCookie).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;

    const OWN: &str = "https://own.example/";
    const PUBLIC: &str = "https://blog.example/";

    /// Answers over https with a valid certificate: of the own name, and of the public one.
    fn secure(own: ProbeOutcome, foreign: ProbeOutcome) -> Evidence {
        let mut evidence = Evidence::new(OWN.parse().unwrap());
        evidence.set_hosts(vec![HostPattern::parse("blog.example").unwrap()]);
        evidence.certificate = CertificateEvidence::Trusted;
        evidence.secure = own;
        evidence.foreign = foreign;
        evidence
    }

    fn own(status: u16, fields: &[&str], body: &str) -> ProbeOutcome {
        ProbeOutcome::sample(OWN, status, fields, body)
    }

    fn foreign(status: u16, fields: &[&str], body: &str) -> ProbeOutcome {
        ProbeOutcome::sample(PUBLIC, status, fields, body)
    }

    #[test]
    fn hosts() {
        let check = |one: ProbeOutcome, other: ProbeOutcome, want: HostChoice, is_proven: bool| {
            let evidence = secure(one, other);
            let host = choose(&evidence).host;
            assert_eq!((host.value, host.proven), (want, is_proven), "{}", host.why);
        };
        let to_public = ["location: https://blog.example/"];
        let canonical = "<link rel=canonical href=https://blog.example/>";
        check(own(200, &[], "a"), foreign(404, &[], ""), HostChoice::Upstream, true);
        check(own(200, &[], "a"), foreign(301, &["location: https://own.example/"], ""), HostChoice::Upstream, true);
        check(own(200, &[], "a"), foreign(200, &[], "Welcome to nginx!"), HostChoice::Upstream, true);
        check(own(200, &[], "<title>a</title>"), foreign(200, &[], "<title>b</title>"), HostChoice::Upstream, true);
        check(own(200, &[], canonical), foreign(200, &[], canonical), HostChoice::Client, true);
        check(own(302, &["location: /en/"], ""), foreign(421, &[], ""), HostChoice::Upstream, true);
        check(own(301, &to_public, ""), foreign(200, &[], "a"), HostChoice::Client, true);
        check(own(301, &to_public, ""), foreign(404, &[], ""), HostChoice::Client, false);
        check(own(404, &[], ""), foreign(200, &[], "a"), HostChoice::Client, true);
        check(own(403, &[], ""), foreign(200, &[], "a"), HostChoice::Upstream, false);
        check(own(403, &[], ""), foreign(403, &[], ""), HostChoice::Upstream, false);
        check(own(301, &["location: https://else.example/"], ""), foreign(404, &[], ""), HostChoice::Upstream, false);
        check(ProbeOutcome::NotAsked, ProbeOutcome::NotAsked, HostChoice::Upstream, false);
    }

    #[test]
    fn schemes() {
        let plain = |status: u16, fields: &[&str]| ProbeOutcome::sample("http://own.example/", status, fields, "");
        let to_https = ["location: https://own.example/"];
        let check = |certificate: CertificateEvidence,
                     plain: ProbeOutcome,
                     declared: ProbeOutcome,
                     want: Scheme,
                     is_proven: bool| {
            let mut evidence = secure(own(200, &[], "a"), ProbeOutcome::NotAsked);
            (evidence.certificate, evidence.plain, evidence.declared) = (certificate, plain, declared);
            let scheme = choose(&evidence).scheme;
            assert_eq!((scheme.value, scheme.proven), (want, is_proven), "{}", scheme.why);
        };
        let refused = || CertificateEvidence::Refused("expired".into());
        check(CertificateEvidence::Trusted, plain(200, &[]), plain(200, &[]), Scheme::Https, true);
        check(refused(), plain(200, &[]), plain(200, &[]), Scheme::Http, true);
        check(refused(), plain(301, &to_https), plain(200, &[]), Scheme::Http, true);
        check(refused(), plain(301, &to_https), plain(301, &to_https), Scheme::Https, false);
        check(refused(), ProbeOutcome::NotAsked, ProbeOutcome::NotAsked, Scheme::Https, false);
    }

    #[test]
    fn two_answers_show_what_the_upstream_believes() {
        let page = |links: &str| ProbeOutcome::sample("http://own.example/", 200, &[], links);
        let to_https = || ProbeOutcome::sample("http://own.example/", 301, &["location: https://own.example/"], "");
        let check = |plain: ProbeOutcome, declared: ProbeOutcome, want: Option<bool>| {
            let mut evidence = Evidence::new("http://own.example/".parse().unwrap());
            (evidence.plain, evidence.declared) = (plain, declared);
            assert_eq!(honours_forwarded_proto(&evidence), want);
        };
        let (http, https) = ("<a href=http://own.example/a>", "<a href=https://own.example/a>");
        check(to_https(), page(""), Some(true));
        check(to_https(), to_https(), Some(false));
        check(page(http), page(https), Some(true));
        check(page(http), page(http), Some(false));
        check(page(https), page(https), None);
        check(page("<a href=/a>"), page("<a href=/a>"), None);
        check(page("<a href=http://else.example/>"), page("<a href=https://else.example/>"), None);
        check(page(http), ProbeOutcome::sample("http://own.example/", 403, &[], https), None);
        check(page(""), ProbeOutcome::NotAsked, None);
    }

    #[test]
    fn loops() {
        let evidence = secure(ProbeOutcome::NotAsked, ProbeOutcome::NotAsked);
        let check = |url: &str, fields: &[&str], want: bool| {
            assert_eq!(is_loop(&ProbeOutcome::sample(url, 302, fields, ""), &evidence), want, "{url} {fields:?}");
        };
        check("http://blog.example/x", &["location: https://blog.example/x"], true);
        check("http://own.example/x", &["location: https://blog.example/x"], true);
        check("https://own.example/x", &["location: /x"], true);
        check("https://own.example/x", &["location: /x", "set-cookie: a=b"], false);
        check("https://own.example/x", &["location: /y"], false);
        check("https://own.example/x", &["location: https://else.example/x"], false);
    }
}
