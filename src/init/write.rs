//! Conclusions as a commented configuration. Every value is quoted and every comment is plain
//! ASCII, so that no text of a server can become a line of the file.

use std::fmt::Write as _;

use super::choose::InitDecision;
use super::conclude::{Conclusion, Note, host_word, platform_name};
use super::text::clean;
use crate::host::{HostPattern, both_forms, file_stem};
use crate::reason::shell_word;

/// The width of a line.
const WIDTH: usize = 100;
/// The most characters of one comment.
const COMMENT_MAX: usize = 2000;
/// The most names in one certificate of the well-known authorities.
const ACME_NAMES_MAX: usize = 100;
/// The longest HSTS policy that is taken over, in seconds: two years.
const HSTS_MAX: u64 = 63_072_000;
/// The terms of the default authority.
pub const TERMS: &str = "https://letsencrypt.org/repository/";
/// The steps of the HSTS ramp.
const RAMP: &str = "[\"5m\", \"1h\", \"1d\", \"7d\", \"30d\"]";
/// The steps of the pins' ramp.
const PIN_RAMP: &str = "[\"5m\", \"1h\", \"1d\", \"7d\"]";

/// The operator's wishes.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The address for the certificate authority.
    pub email: Option<String>,
    /// `true` if the operator agreed to the authority's terms.
    pub terms: bool,
    /// `true` for active pins, if certificates come from the authority.
    pub pins: bool,
    /// `true` if the file lies in `/etc/pintle`, where folders have defaults.
    pub is_system: bool,
    /// The day of today.
    pub day: String,
    /// The file's path, for commands.
    pub path: String,
}

/// Writes the file.
#[must_use]
pub fn render(conclusion: &Conclusion, wishes: &Wishes) -> String {
    let mut file = FileText::default();
    head(&mut file, conclusion, wishes);
    if !wishes.is_system {
        file.blank();
        file.line("[state]");
        file.comment("Promises and keys; /etc/pintle/pintle.toml would use /var/lib/pintle.");
        file.line("directory = \"state\"");
    }
    let acme = AcmeChoice::of(conclusion, wishes);
    AcmeChoice::table(&mut file, wishes);
    site(&mut file, conclusion);
    certificate(&mut file, conclusion, &acme);
    hsts(&mut file, conclusion);
    pins(&mut file, conclusion, wishes, &acme);
    file.0
}

#[derive(Default)]
struct FileText(String);

impl FileText {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn blank(&mut self) {
        self.0.push('\n');
    }

    /// A comment, wrapped. Whatever is in the text, it stays a comment.
    fn comment(&mut self, text: &str) {
        let text = clean(text.as_bytes(), COMMENT_MAX);
        let mut line = String::from("#");
        for word in text.split_ascii_whitespace() {
            if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
                self.line(&line);
                line = String::from("#");
            }
            let _ = write!(line, " {word}");
        }
        self.line(&line);
    }

    /// A line of code in a comment: not wrapped.
    fn code(&mut self, code: &str) {
        self.line(&format!("#   {}", clean(code.as_bytes(), COMMENT_MAX)));
    }

    /// `key = value`, as a comment unless it is proven.
    fn key(&mut self, key: &str, value: &str, active: bool) {
        let mark = if active { "" } else { "# " };
        self.line(&format!("{mark}{key} = {value}"));
    }

    /// A decision: its reason, and its line.
    fn decision(&mut self, key: &str, decision: &InitDecision<String>) {
        self.comment(&decision.why);
        self.key(key, &quoted(&decision.value), decision.proven);
    }
}

/// Returns a TOML string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c == ' ' || c.is_ascii_graphic() => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

fn head(file: &mut FileText, conclusion: &Conclusion, wishes: &Wishes) {
    let url = &conclusion.url;
    file.comment(&format!("Written by `pintle init` on {} for {url}", wishes.day));
    let signs: Vec<&str> = conclusion.verdict.signs.iter().map(|s| s.words.as_str()).collect();
    match conclusion.verdict.platform {
        Some(_) => file.comment(&format!("Platform: {} ({})", platform_name(&conclusion.verdict), signs.join("; "))),
        None if signs.is_empty() => file.comment("Platform: unknown"),
        None => file.comment(&format!("Platform: unknown (seen: {})", signs.join("; "))),
    }
    for (what, answer) in &conclusion.answers {
        file.comment(&format!("  {what}: {answer}"));
    }
    file.comment("The answers do not prove the lines in comments: remove the # to use them.");
}

fn site(file: &mut FileText, conclusion: &Conclusion) {
    let names = &conclusion.names;
    file.blank();
    file.line("[[site]]");
    for host in &conclusion.hosts {
        let both = both_forms(host);
        if both != *host {
            // Its letters are no ASCII: in an escaped form, nobody could read them.
            file.comment(&format!("{host} is an international name."));
        }
    }
    let hosts: Vec<String> = conclusion.hosts.iter().map(|host| quoted(host)).collect();
    file.key("hosts", &format!("[{}]", hosts.join(", ")), true);
    file.comment(&conclusion.choice.scheme.why);
    file.key("upstream", &quoted(&names.upstream), true);
    file.blank();
    file.line("[site.upstream_options]");
    file.comment(&conclusion.choice.host.why);
    let host = &conclusion.choice.host;
    file.key("host_header", &quoted(host_word(host.value)), host.proven);
    match &names.connect {
        Some(connect) => file.decision("connect", connect),
        None => file.key("connect", &quoted(&names.connects_to), false),
    }
    if let Some(name) = &names.tls_name {
        match &names.server_name {
            Some(decision) => file.decision("server_name", decision),
            None => file.key("server_name", &quoted(name), false),
        }
        file.key("verify_name", &quoted(name), false);
        match names.ca.as_ref().and_then(|ca| ca.to_str()) {
            Some(ca) => file.key("ca", &quoted(ca), true),
            None if !conclusion.choice.scheme.proven => file.key("ca", "\"upstream-ca.pem\"", false),
            None => {}
        }
    }
    for Note { text, code, .. } in &conclusion.notes {
        file.comment(text);
        if let Some(code) = code {
            file.code(code);
        }
    }
}

/// Returns `true` if the file has pintle obtain the certificate, without another change.
#[must_use]
pub fn orders(conclusion: &Conclusion, wishes: &Wishes) -> bool {
    matches!(AcmeChoice::of(conclusion, wishes), AcmeChoice::Active)
}

/// Certificates from an authority.
enum AcmeChoice {
    /// All lines are active.
    Active,
    /// The lines are comments, for this reason.
    Possible(&'static str),
    /// Nobody asked for it.
    Unwanted,
}

impl AcmeChoice {
    fn of(conclusion: &Conclusion, wishes: &Wishes) -> Self {
        let mut hosts = conclusion.hosts.iter().filter_map(|host| HostPattern::parse(host).ok());
        if wishes.email.is_none() {
            return Self::Unwanted;
        }
        if hosts.any(|host| host.is_wildcard() || host.address().is_some()) {
            return Self::Possible("Wildcards need acme.dns_hook, and addresses need a profile of the authority.");
        }
        if conclusion.hosts.len() > ACME_NAMES_MAX {
            return Self::Possible("A certificate has at most 100 names.");
        }
        if !wishes.terms {
            return Self::Possible("This needs terms = true in [acme].");
        }
        Self::Active
    }

    fn table(file: &mut FileText, wishes: &Wishes) {
        let Some(email) = &wishes.email else { return };
        file.blank();
        file.line("[acme]");
        file.key("email", &quoted(email), true);
        if !wishes.terms {
            file.comment(&format!("Set it if you agree to the terms of the authority: {TERMS}"));
        }
        file.key("terms", "true", wishes.terms);
    }
}

fn certificate(file: &mut FileText, conclusion: &Conclusion, acme: &AcmeChoice) {
    let stem = file_stem(conclusion.hosts.first().unwrap_or(&conclusion.public));
    file.blank();
    match acme {
        AcmeChoice::Active => {
            file.line("[site.certificate]");
            file.key("acme", "true", true);
            return;
        }
        AcmeChoice::Possible(why) => {
            file.comment(why);
            file.line("# [site.certificate]");
            file.key("acme", "true", false);
            file.comment("Or, with a certificate from elsewhere:");
        }
        AcmeChoice::Unwanted => file.comment(
            "Put the certificate with its intermediates, and its key, at these paths, and remove the # of the three lines:",
        ),
    }
    file.line("# [site.certificate]");
    file.key("chain", &quoted(&format!("certs/{stem}.pem")), false);
    file.key("key", &quoted(&format!("certs/{stem}.key")), false);
}

fn hsts(file: &mut FileText, conclusion: &Conclusion) {
    let mut hosts = conclusion.hosts.iter().filter_map(|host| HostPattern::parse(host).ok());
    let has_name = hosts.any(|host| host.address().is_none());
    file.blank();
    match conclusion.hsts.filter(|hsts| hsts.is_public) {
        _ if !has_name => file.comment("Browsers keep no HSTS policy for addresses."),
        Some(hsts) => {
            file.line("[site.hsts]");
            file.comment("The blog sends this policy today, and browsers hold it.");
            file.key("max_age", &hsts.max_age.min(HSTS_MAX).to_string(), true);
            if hsts.include_subdomains {
                file.key("include_subdomains", "true", true);
            }
        }
        None => {
            file.line("[site.hsts]");
            file.comment("Browsers use only https for this long after a visit. It grows by one step a week.");
            file.key("ramp", RAMP, true);
            file.key("max_age", "\"1y\"", true);
        }
    }
}

fn pins(file: &mut FileText, conclusion: &Conclusion, wishes: &Wishes, acme: &AcmeChoice) {
    let host = conclusion.hosts.first().unwrap_or(&conclusion.public);
    let (path, host) = (&wishes.path, shell_word(host));
    file.blank();
    if wishes.pins && matches!(acme, AcmeChoice::Active) {
        file.line("[site.hpkp]");
        file.comment(
            "Pins bind apps and curl to the live key and to the next one, which pintle makes; browsers ignore them. A \
             renewal keeps the key. Clients hold the pins for this long, which grows by one step a week.",
        );
        file.key("ramp", PIN_RAMP, true);
        file.key("max_age", "\"30d\"", true);
        return;
    }
    file.comment(
        "Pins bind apps and curl to your keys; browsers ignore them. They need backup keys. Each of these commands \
         makes one, and prints the lines for [site.hpkp]:",
    );
    for role in ["next", "spare"] {
        file.code(&format!("pintle key new -c {path} --role {role} --site {host}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::de::DeTable;

    #[test]
    fn comments_are_wrapped() {
        let mut file = FileText::default();
        file.comment(&"word ".repeat(50));
        assert!(file.0.lines().count() > 2 && file.0.lines().all(|line| line.starts_with("# ") && line.len() <= WIDTH));
    }

    proptest! {
        #[test]
        fn strings_are_read_back(text in "\\PC{0,30}|[\\x00-\\x1f\"\\\\]{0,10}") {
            let line = format!("a = {}", quoted(&text));
            let table = DeTable::parse(&line).unwrap();
            let read = table.get_ref().get("a").and_then(|value| value.get_ref().as_str());
            prop_assert_eq!(read, Some(text.as_str()));
        }

        #[test]
        fn a_comment_stays_one(text in "(\\PC|[\\x00-\\x1f]|\n){0,60}") {
            let mut file = FileText::default();
            file.comment(&text);
            file.code(&text);
            prop_assert!(DeTable::parse(&file.0).unwrap().get_ref().is_empty());
        }
    }
}
