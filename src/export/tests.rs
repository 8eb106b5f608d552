//! Rules that hold for all forms, whatever the site is called and its files are. Real parsers of each format are in
//! tests/it/export.rs.

use super::*;
use clap::ValueEnum as _;
use proptest::prelude::*;

use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;
use crate::keys::pin::Pin;
use crate::policy::hpkp::{Hpkp, Mode};

fn set(hosts: &[&str], include_subdomains: bool) -> PinSet {
    let key = |n: u8, role| SiteKey {
        pin: Pin::of_spki(&[n]),
        algorithm: KeyAlgorithm::EcdsaP256,
        role,
        file: format!("{n}.pem"),
        not_after: None,
    };
    let keys = vec![key(1, Role::Live), key(2, Role::Next), key(3, Role::Spare)];
    PinSet {
        site: hosts[0].to_owned(),
        hosts: hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect(),
        header: Hpkp {
            mode: Mode::Enforce,
            max_age: 86400,
            pins: keys.iter().map(|k| k.pin).collect(),
            include_subdomains,
            report_uri: None,
        },
        keys,
        valid_until: "2026-12-01T06:00:00Z".parse().unwrap(),
        ports: vec![HTTPS],
        issuers: Vec::new(),
    }
}

#[test]
fn names_on_the_command_line() {
    for form in ExportForm::value_variants() {
        assert_eq!(form.to_possible_value().unwrap().get_name(), form.name());
    }
    for role in Role::value_variants() {
        assert_eq!(role.to_possible_value().unwrap().get_name(), role.name());
    }
}

/// The first backup is the next key; with live keys of two algorithms, the first one of each.
#[test]
fn roles_of_backups() {
    let (p256, p384, ed) = (KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519);
    let check = |live: &[KeyAlgorithm], backups: &[Option<KeyAlgorithm>], want: &[Role]| {
        assert_eq!(Role::of_backups(live.iter().copied(), backups.iter().copied()), want, "{live:?} {backups:?}");
    };
    check(&[p256], &[Some(p256), Some(p256), Some(p384)], &[Role::Next, Role::Spare, Role::Spare]);
    check(&[p256], &[Some(p384), Some(p256)], &[Role::Next, Role::Spare]);
    check(&[p256, p384], &[Some(p256), Some(p384), Some(p256)], &[Role::Next, Role::Next, Role::Spare]);
    check(&[p256, p384], &[Some(ed), Some(p256), None], &[Role::Next, Role::Next, Role::Spare]);
    check(&[p256, p256], &[Some(p256), Some(p256)], &[Role::Next, Role::Spare]);
    check(&[], &[None, Some(p256)], &[Role::Next, Role::Spare]);
}

#[test]
fn every_form_has_every_pin_and_says_which_export_it_is() {
    let set = set(&["a.example", "*.b.example"], false);
    for form in ExportForm::value_variants() {
        let text = render(*form, &set).unwrap();
        for key in &set.keys {
            assert!(text.contains(&key.pin.to_string()) || text.contains(&key.pin.to_hex()), "{form:?}: {text}");
        }
        // These have no comments.
        if !matches!(form, ExportForm::Header | ExportForm::Curl | ExportForm::SslMate) {
            assert!(text.contains(&set.number(*form)) && text.contains("2026-12-01"), "{form:?}: {text}");
        }
    }
}

#[test]
fn numbers() {
    let one = set(&["a.example"], false);
    assert_eq!(one.number(ExportForm::Curl), one.clone().number(ExportForm::Curl));
    assert_ne!(one.number(ExportForm::Curl), one.number(ExportForm::Tlsa));
    assert_ne!(one.number(ExportForm::Curl), set(&["b.example"], false).number(ExportForm::Curl));
    assert_ne!(one.number(ExportForm::Curl), set(&["a.example"], true).number(ExportForm::Curl));
    let later = PinSet { valid_until: "2026-12-01T18:00:00Z".parse().unwrap(), ..one.clone() };
    assert_eq!(one.number(ExportForm::Curl), later.number(ExportForm::Curl));
    let elsewhere = PinSet { ports: vec![8443], ..one.clone() };
    assert_eq!(one.number(ExportForm::Curl), elsewhere.number(ExportForm::Curl));
    assert_ne!(one.number(ExportForm::Tlsa), elsewhere.number(ExportForm::Tlsa));
    // Midnight in the last time zone is noon in UTC.
    assert_eq!(one.held_until(ExportForm::Curl), one.valid_until);
    let held = i64::try_from(one.header.max_age).unwrap();
    for form in [ExportForm::Header, ExportForm::Nginx, ExportForm::Vcl] {
        assert_eq!(one.held_until(form).as_second(), one.valid_until.as_second() + held, "{form:?}");
    }
    assert_eq!(one.held_until(ExportForm::Android), "2026-12-01T12:00:00Z".parse().unwrap());
    assert_eq!(later.held_until(ExportForm::Android), later.valid_until);
}

#[test]
fn what_is_bound() {
    let check = |form: ExportForm, hosts: &[&str], sub: bool, want: &[(&str, bool)]| {
        let found: Vec<(String, bool)> = set(hosts, sub)
            .bindings(form)
            .into_iter()
            .flat_map(|(hosts, below)| hosts.into_iter().map(move |h| (h.to_string(), below)))
            .collect();
        let want: Vec<(String, bool)> = want.iter().map(|(h, b)| ((*h).to_owned(), *b)).collect();
        assert_eq!(found, want, "{form:?} {hosts:?} {sub}");
    };
    let hosts = ["a.example", "*.b.example"];
    check(ExportForm::Curl, &hosts, false, &[("a.example", false), ("*.b.example", false)]);
    check(ExportForm::OkHttp, &hosts, true, &[("a.example", true), ("*.b.example", true)]);
    check(ExportForm::Android, &hosts, false, &[("a.example", false), ("b.example", true)]);
    check(ExportForm::Ios, &hosts, true, &[("a.example", true), ("b.example", true)]);
    check(ExportForm::Tlsa, &hosts, true, &[("a.example", false), ("*.b.example", true)]);
    check(ExportForm::Tlsa, &["a.example", "192.0.2.1"], false, &[("a.example", false)]);
}

#[test]
fn addresses_have_no_tlsa_records() {
    let set = set(&["192.0.2.1", "[2001:db8::1]"], false);
    assert_eq!(render(ExportForm::Tlsa, &set), None);
    assert_eq!(render(ExportForm::TrustKit, &set), None);
    assert!(render(ExportForm::Ios, &set).unwrap().contains("<key>2001:db8::1</key>"));
    assert!(render(ExportForm::Envoy, &set).unwrap().contains("san_type: IP_ADDRESS"));
}

/// A TLSA record is for one port (RFC 6698 section 3).
#[test]
fn tlsa_records_name_the_ports() {
    let mut set = set(&["a.example", "*.b.example"], false);
    set.ports = vec![8443, 9443];
    let text = render(ExportForm::Tlsa, &set).unwrap();
    let owners: Vec<&str> = text.lines().filter(|l| !l.starts_with(';')).filter_map(|l| l.split(' ').next()).collect();
    let each = |owner| std::iter::repeat_n(owner, 3);
    let want: Vec<&str> =
        ["_8443._tcp.a.example.", "_9443._tcp.a.example.", "*.b.example."].into_iter().flat_map(each).collect();
    assert_eq!(owners, want);
    assert!(text.contains("_8443._tcp.NAME.b.example."), "{text}");
}

#[test]
fn zones() {
    let mut set = set(&["a.example", "*.b.example"], false);
    set.ports = vec![443, 8443];
    let text = render(ExportForm::Dns, &set).unwrap();
    let has = |text: &str, line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    has(&text, "a.example. IN HTTPS 1 . alpn=\"h2,http/1.1\"");
    has(&text, "_8443._https.a.example. IN HTTPS 1 a.example. alpn=\"h2,http/1.1\" port=8443");
    has(&text, "*.b.example. IN HTTPS 1 . alpn=\"h2,http/1.1\"");
    has(&text, &format!("_443._tcp.a.example. IN TLSA 3 1 1 {}", set.keys[1].pin.to_hex()));
    assert!(!text.lines().any(|line| !line.starts_with(';') && line.contains(" CAA ")), "{text}");
    let issuer = |identity: Option<&str>, account: Option<&str>| Issuer {
        identity: identity.map(str::to_owned),
        title: "x".into(),
        account: account.map(str::to_owned),
        methods: vec!["http-01", "dns-01"],
    };
    set.issuers =
        vec![issuer(Some("ca.example"), Some("https://ca.example/acct/7")), issuer(Some("second.example"), None)];
    let text = render(ExportForm::Dns, &set).unwrap();
    let value = "ca.example; accounturi=https://ca.example/acct/7; validationmethods=http-01,dns-01";
    has(&text, &format!("a.example. IN CAA 0 issue \"{value}\""));
    has(&text, "a.example. IN CAA 0 issue \"second.example; validationmethods=http-01,dns-01\"");
    // Wildcards are proved by DNS only.
    let wild = "ca.example; accounturi=https://ca.example/acct/7; validationmethods=dns-01";
    has(&text, &format!("b.example. IN CAA 0 issuewild \"{wild}\""));
    set.issuers = vec![issuer(None, None)];
    let text = render(ExportForm::Dns, &set).unwrap();
    assert!(text.contains("; No CAA records: the name of x there is unknown"), "{text}");
    set.issuers[0].methods.push("dns-persist-01");
    set.issuers[0].identity = Some("ca.example".into());
    set.issuers[0].account = Some("https://ca.example/acct/7".into());
    let text = render(ExportForm::Dns, &set).unwrap();
    has(&text, "_validation-persist.a.example. IN TXT \"ca.example; accounturi=https://ca.example/acct/7\"");
    let wild = "ca.example; accounturi=https://ca.example/acct/7; policy=wildcard";
    has(&text, &format!("_validation-persist.b.example. IN TXT \"{wild}\""));
}

#[test]
fn monitors_know_the_next_key() {
    let set = set(&["a.example", "*.b.example", "192.0.2.1"], false);
    let lines = render(ExportForm::SslMate, &set).unwrap();
    let bodies: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(bodies.len(), 3);
    assert_eq!(bodies[1]["pubkey_sha256"], set.keys[1].pin.to_hex());
    assert_eq!(bodies[1]["dns_names"], serde_json::json!(["a.example", "*.b.example"]));
    assert!(render(ExportForm::CertSpotter, &set).unwrap().contains(&format!("\n{}\n", set.keys[1].pin.to_hex())));
}

#[test]
fn wildcards() {
    let wild = set(&["*.example.com"], false);
    let has = |form, part: &str| {
        let text = render(form, &wild).unwrap();
        assert!(text.contains(part), "{form:?}: {text}");
    };
    has(ExportForm::OkHttp, ".add(\"*.example.com\", ");
    has(ExportForm::Android, "<domain includeSubdomains=\"true\">example.com</domain>");
    has(ExportForm::Ios, "<key>example.com</key>");
    has(ExportForm::Tlsa, "\n*.example.com. IN TLSA 3 1 1 ");
    has(ExportForm::Envoy, "suffix: \".example.com\"");
    // Named twice, it is there once, and the wildcard's reach stays.
    let both = set(&["example.com", "*.example.com"], false);
    let android = render(ExportForm::Android, &both).unwrap();
    assert_eq!(android.matches("<domain ").count(), 1, "{android}");
    assert!(android.contains("<domain includeSubdomains=\"true\">example.com</domain>"), "{android}");
    assert!(render(ExportForm::OkHttp, &set(&["a.example"], true)).unwrap().contains("\"**.a.example\""));
}

proptest! {
    /// A file's name is the operator's own, but no line of any export may begin with a part of it.
    #[test]
    fn file_names_break_no_line(name in "\\PC{0,6}[\n\r\t\u{0}\u{85}\u{2028}-]{0,3}\\PC{0,6}") {
        let plain = set(&["xn--bcher-kva.example"], false);
        let mut odd = plain.clone();
        odd.keys[0].file = name;
        for form in ExportForm::value_variants().iter().filter(|f| **f != ExportForm::Json) {
            let lines = |set: &PinSet| render(*form, set).unwrap().lines().count();
            prop_assert_eq!(lines(&plain), lines(&odd));
        }
        let json: serde_json::Value = serde_json::from_str(&render(ExportForm::Json, &odd).unwrap()).unwrap();
        prop_assert_eq!(json["pins"][0]["file"].as_str().unwrap(), &odd.keys[0].file);
    }
}
