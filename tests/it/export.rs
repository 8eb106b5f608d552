//! `pintle export`: each form is read by a program that enforces it, or by a parser of its format, and says the pins that
//! openssl computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{
    Authority, BLOG, KeyKind, Origin, Pintle, blog, blog_at, eventually, free_port, nginx, outcome, output, pintle,
    program, varnish,
};
use crate::headers::openssl_pin;
use crate::rotation::{Bed, refusal};

const REPORTS: &str = "https://reports.example.net/p?a=b&c='$d'";

/// A site with a live key and two backups, and what openssl says of them.
struct Site {
    authority: Authority,
    config: PathBuf,
    pins: [String; 3],
}

impl Site {
    fn new(hosts: &[&str], hpkp: &str) -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf("blog", hosts);
        let (next, spare) = (authority.public_key("next"), authority.public_key("spare"));
        let pins = [
            openssl_pin(&["x509", "-pubkey", "-noout"], &leaf.chain),
            openssl_pin(&["pkey", "-pubin", "-pubout"], &next),
            openssl_pin(&["pkey", "-pubin", "-pubout"], &spare),
        ];
        let text = format!(
            "[[site]]\nhosts = {hosts:?}\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
             [site.hpkp]\nbackups = [{next:?}, {spare:?}]\n{hpkp}\n",
            leaf.chain, leaf.key
        );
        let config = authority.write("pintle.toml", text);
        Self { authority, config, pins }
    }

    fn blog() -> Self {
        Self::new(&[BLOG, "www.example.com"], &format!("max_age = \"30d\"\nreport_uri = \"{REPORTS}\""))
    }

    fn command(&self, form: &str, more: &[&str]) -> Command {
        let mut command = pintle();
        command.args(["export", "--as", form, "-c"]).arg(&self.config);
        if !more.contains(&"--site") {
            command.args(["--site", BLOG]);
        }
        command.args(more);
        command
    }

    /// The text on standard output.
    #[track_caller]
    fn export(&self, form: &str) -> String {
        output(&mut self.command(form, &[]))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        self.authority.write(name, text)
    }
}

/// A date so many days from now, by the clock of another program.
fn date(days: u32) -> String {
    output(Command::new("date").args(["--utc", "--date", &format!("{days} days"), "+%Y-%m-%d"])).trim().to_owned()
}

/// Parses a file with Python; gives it as JSON.
#[track_caller]
fn python(code: &str, file: &Path) -> Value {
    let code = format!("import sys, json\nwith open(sys.argv[1], 'rb') as file:\n    {code}\n");
    let text = output(Command::new(program("python3")).args(["-c", &code]).arg(file));
    serde_json::from_str(&text).unwrap()
}

fn plist(file: &Path) -> Value {
    // Well-formed is more than Python asks for: hyphens in comments.
    output(Command::new(program("xmllint")).args(["--noout", "--nonet"]).arg(file));
    python("import plistlib; print(json.dumps(plistlib.load(file, fmt=plistlib.FMT_XML)))", file)
}

#[test]
fn json() {
    let site = Site::blog();
    let all: Value = serde_json::from_str(&site.export("json")).unwrap();
    assert_eq!((&all["site"], &all["hosts"]), (&json!(BLOG), &json!([BLOG, "www.example.com"])));
    assert_eq!((&all["max_age"], &all["include_subdomains"]), (&json!(2_592_000), &json!(false)));
    assert_eq!(&all["valid_until"].as_str().unwrap()[..10], date(30));
    assert!(all["id"].as_str().is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    let pins = all["pins"].as_array().unwrap();
    assert_eq!(pins.len(), 3);
    for (found, (pin, role, file)) in pins.iter().zip([
        (&site.pins[0], "live", "blog.pem"),
        (&site.pins[1], "next", "next.pub"),
        (&site.pins[2], "spare", "spare.pub"),
    ]) {
        assert_eq!((&found["pin"], &found["role"]), (&json!(pin), &json!(role)));
        assert_eq!(found["algorithm"], "ecdsa-p256");
        assert_eq!(found["file"], site.authority.folder().join(file).to_str().unwrap());
        assert_eq!(found["hex"], hex(pin));
    }
    // Asked again, it is the same export; for another life, another one.
    let id = |more: &[&str]| {
        let text = output(&mut site.command("json", more));
        serde_json::from_str::<Value>(&text).unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(id(&[]), all["id"]);
    assert_ne!(id(&["--life", "10d"]), all["id"]);
}

/// The bytes of base64, by openssl.
fn hex(base64: &str) -> String {
    let command = format!("echo '{base64}' | openssl base64 -d | od -An -v -tx1 | tr -d ' \\n'");
    output(Command::new("sh").args(["-c", &command]))
}

#[test]
fn android() {
    let site = Site::new(&[BLOG, "*.example.org", "example.org", "xn--bcher-kva.example"], "max_age = \"30d\"");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/network-security-config.xsd");
    let lint = |text: &str| {
        let file = site.file("nsc.xml", text);
        outcome(Command::new(program("xmllint")).args(["--noout", "--nonet", "--schema"]).arg(&schema).arg(file))
    };
    let text = output(&mut site.command("android", &["--life", "45d"]));
    assert_eq!(lint(&text).0, 0, "{}\n{text}", lint(&text).2);
    // The schema does refuse what Android would.
    for (good, bad) in [
        ("SHA-256", "SHA-1"),
        (&site.pins[0], "AAAA"),
        (&date(45), "soon"),
        ("\"true\">example.org", "\"yes\">example.org"),
        (">example.org<", ">*.example.org<"),
        (">example.org<", ">blog.example.com<"),
    ] {
        assert!(text.contains(good), "{good} is not in\n{text}");
        assert_ne!(lint(&text.replace(good, bad)).0, 0, "{bad} passes");
    }
    let file = site.file("nsc.xml", &text);
    let found = python(
        "import xml.etree.ElementTree as tree; root = tree.parse(file).getroot(); config = root.find('domain-config'); \
         print(json.dumps([[[d.text, d.get('includeSubdomains')] for d in config.findall('domain')], \
         config.find('pin-set').get('expiration'), [p.text for p in config.find('pin-set')]]))",
        &file,
    );
    let domains = json!([[BLOG, "false"], ["example.org", "true"], ["xn--bcher-kva.example", "false"]]);
    assert_eq!(found, json!([domains, date(45), site.pins]));
}

#[test]
fn ios() {
    // The first name is in comments, too, where hyphens are a matter of their own.
    let site = Site::new(&["xn--bcher-kva.example", BLOG, "*.example.org"], "");
    let keys: Vec<Value> = site.pins.iter().map(|pin| json!({ "SPKI-SHA256-BASE64": pin })).collect();
    let domain = |subdomains: bool| json!({ "NSIncludesSubdomains": subdomains, "NSPinnedLeafIdentities": keys });
    let domains = json!({ BLOG: domain(false), "xn--bcher-kva.example": domain(false), "example.org": domain(true) });
    let file = site.file("Info.plist", &site.export("ios"));
    assert_eq!(plist(&file), json!({ "NSAppTransportSecurity": { "NSPinnedDomains": domains } }));
    let (_, _, err) = outcome(&mut site.command("ios", &[]));
    assert!(err.contains("for *.example.org, example.org itself is pinned, too"), "{err}");
}

#[test]
fn trustkit() {
    let site = Site::new(&[BLOG], &format!("include_subdomains = true\nreport_uri = \"{REPORTS}\""));
    let file = site.file("Info.plist", &output(&mut site.command("trustkit", &["--life", "1y"])));
    let policy = json!({
        "TSKIncludeSubdomains": true, "TSKEnforcePinning": true, "TSKExpirationDate": date(365),
        "TSKDisableDefaultReportUri": true, "TSKReportUris": [REPORTS], "TSKPublicKeyHashes": site.pins,
    });
    let configuration = json!({ "TSKSwizzleNetworkDelegates": false, "TSKPinnedDomains": { BLOG: policy } });
    assert_eq!(plist(&file), json!({ "TSKConfiguration": configuration }));
}

/// Kotlin, as far as we write it: words, strings without escapes, signs; comments are left out.
fn kotlin(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            if rest.starts_with("//") {
                break;
            }
            let length = match first {
                '"' => rest[1..].find(['"', '\\', '$']).filter(|at| rest[1 + at..].starts_with('"')).unwrap() + 2,
                c if c.is_alphanumeric() => rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len()),
                _ => first.len_utf8(),
            };
            tokens.push(rest[..length].to_owned());
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

#[test]
fn okhttp() {
    let site = Site::new(&[BLOG, "*.example.org"], "");
    let mut want: Vec<String> =
        ["import", "okhttp3", ".", "CertificatePinner", "val", "certificatePinner", ":", "CertificatePinner", "="]
            .into_iter()
            .chain(["CertificatePinner", ".", "Builder", "(", ")"])
            .map(str::to_owned)
            .collect();
    for host in [BLOG, "*.example.org"] {
        for pin in &site.pins {
            let add =
                [".", "add", "(", &format!("\"{host}\""), ",", &format!("\"sha256/{pin}\""), ")"].map(str::to_owned);
            want.extend(add);
        }
    }
    want.extend([".", "build", "(", ")"].map(str::to_owned));
    assert_eq!(kotlin(&site.export("okhttp")), want);
}

#[test]
fn envoy() {
    let site = Site::new(&[BLOG, "*.example.org", "192.0.2.1"], "");
    let file = site.file("envoy.yaml", &site.export("envoy"));
    let socket = &python("import yaml; print(json.dumps(yaml.safe_load(file)))", &file)["transport_socket"];
    assert_eq!(socket["name"], "envoy.transport_sockets.tls");
    let typed = &socket["typed_config"];
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    assert_eq!((&typed["@type"], &typed["sni"]), (&json!(kind), &json!(BLOG)));
    let context = &typed["common_tls_context"]["validation_context"];
    assert_eq!(context["verify_certificate_spki"], json!(site.pins));
    assert_eq!(context["trusted_ca"], json!({ "filename": "/etc/ssl/certs/ca-certificates.crt" }));
    let names = json!([
        { "san_type": "DNS", "matcher": { "exact": BLOG } },
        { "san_type": "DNS", "matcher": { "suffix": ".example.org" } },
        { "san_type": "IP_ADDRESS", "matcher": { "exact": "192.0.2.1" } },
    ]);
    assert_eq!(context["match_typed_subject_alt_names"], names);
}

/// A running pintle, and the same configuration as a file to export from.
fn served() -> (Site, Pintle) {
    let site = Site::blog();
    let origin = Origin::hello();
    let text = fs::read_to_string(&site.config).unwrap().replace("http://127.0.0.1:1", &origin.url());
    let pintle = Pintle::start(&site.authority, &text);
    (site, pintle)
}

#[test]
fn curl_connects_and_refuses() {
    let (site, pintle) = served();
    let get = |pins: &str| {
        outcome(
            pintle.curl().args(["--pinnedpubkey", pins, "--write-out", "%{http_code}"]).arg(format!("https://{BLOG}/")),
        )
    };
    let text = site.export("curl");
    let pins = text.trim_end();
    assert_eq!(pins, site.pins.iter().map(|p| format!("sha256//{p}")).collect::<Vec<_>>().join(";"));
    let (code, out, err) = get(pins);
    assert!(code == 0 && out.ends_with("200"), "{out}{err}");
    // Any one of them may be the right one; without it, curl has error 90.
    let backups = pins.split_once(';').unwrap().1;
    assert_eq!(get(backups).0, 90);
}

#[test]
fn dane_accepts_and_refuses() {
    let (site, pintle) = served();
    let text = site.export("tlsa");
    let records: Vec<&str> = text.lines().filter(|line| !line.starts_with(';')).collect();
    let want: Vec<String> = [BLOG, "www.example.com"]
        .iter()
        .flat_map(|host| site.pins.iter().map(move |pin| format!("_443._tcp.{host}. IN TLSA 3 1 1 {}", hex(pin))))
        .collect();
    assert_eq!(records, want);
    // No CA: the record alone must do.
    let client = |records: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_client",
            "-brief",
            "-verify_return_error",
            "-no-CAfile",
            "-no-CApath",
            "-dane_tlsa_domain",
            BLOG,
        ]);
        for record in records {
            openssl.args(["-dane_tlsa_rrdata", record.split_once(" TLSA ").unwrap().1]);
        }
        outcome(openssl.arg("-connect").arg(pintle.https().to_string()).stdin(Stdio::null()))
    };
    let (code, out, err) = client(&records[..3]);
    let said = format!("{out}{err}");
    assert!(code == 0 && said.contains("Verification: OK") && said.contains("DANE TLSA 3 1 1"), "{said}");
    let (code, out, err) = client(&records[1..3]);
    assert!(code != 0 && !format!("{out}{err}").contains("Verification: OK"), "{out}{err}");
}

#[test]
fn certspotter() {
    let site = Site::blog();
    let file = site.file("known-keys", &site.export("certspotter"));
    // What a script of certspotter's does.
    let known = |hash: &str| {
        let grep = "grep -qx \"$PUBKEY_SHA256\" \"$1\"";
        outcome(Command::new("sh").args(["-c", grep, "sh"]).arg(&file).env("PUBKEY_SHA256", hash)).0 == 0
    };
    for pin in &site.pins {
        assert!(known(&hex(pin)), "{pin}");
    }
    assert!(!known(&"0".repeat(64)));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().filter(|l| !l.starts_with('#')).count(), 3);
}

#[test]
fn header_nginx_and_varnish_say_the_same() {
    let site = Site::blog();
    let line = site.export("header");
    let value = line.strip_prefix("Public-Key-Pins: ").unwrap().trim_end();
    let pins: String = site.pins.iter().map(|pin| format!("pin-sha256=\"{pin}\"; ")).collect();
    assert_eq!(value, format!("{pins}max-age=2592000; report-uri=\"{REPORTS}\""));
    let header = |port: u16, more: &[&str]| {
        let address = format!("http://127.0.0.1:{port}/");
        let head = output(Command::new("curl").args(["-s", "--noproxy", "*", "--head", &address]).args(more));
        head.lines().find_map(|l| l.strip_prefix("Public-Key-Pins: ")).map(|v| v.trim_end().to_owned())
    };
    let port = free_port();
    let server = format!("server {{ listen 127.0.0.1:{port}; return 404;\n{} }}", site.export("nginx"));
    let running = nginx(site.authority.folder(), port, &server);
    // A `$` begins a variable for nginx, and cannot be escaped.
    assert_eq!(header(port, &[]).as_deref(), Some(value.replace('$', "%24").as_str()));
    let front = free_port();
    let _varnish = varnish(
        site.authority.folder(),
        front,
        port,
        &format!("sub vcl_backend_response {{ unset beresp.http.Public-Key-Pins; }}\n{}", site.export("vcl")),
    );
    assert_eq!(header(front, &["-H", "X-Forwarded-Proto: https"]).as_deref(), Some(value));
    assert_eq!(header(front, &[]), None);
    drop(running);
    let (_, _, err) = outcome(&mut site.command("nginx", &[]));
    assert!(err.contains("browsers stopped enforcing"), "{err}");
}

#[test]
fn the_header_of_each_mode() {
    let check = |hpkp: &str, more: &[&str], start: &str, end: &str| {
        let site = Site::new(&[BLOG], hpkp);
        let line = output(&mut site.command("header", more));
        assert!(line.starts_with(start) && line.ends_with(end), "{line}");
    };
    let report = &format!("mode = \"report-only\"\nreport_uri = \"{REPORTS}\"");
    check(report, &[], "Public-Key-Pins-Report-Only: pin-sha256=", &format!("; report-uri=\"{REPORTS}\"\n"));
    check("mode = \"withdraw\"", &[], "Public-Key-Pins: pin-sha256=", "; max-age=0\n");
    check("include_subdomains = true", &["--life", "1h"], "Public-Key-Pins: ", "; max-age=3600; includeSubDomains\n");
}

#[test]
fn any_host_of_the_site_will_do_and_no_other() {
    let site = Site::new(&[BLOG, "*.example.org"], "");
    let want = site.export("curl");
    for host in ["BLOG.example.com", "x.example.org", "*.example.org"] {
        assert_eq!(output(&mut site.command("curl", &["--site", host])), want, "{host}");
    }
    for host in ["example.org", "a.b.example.org", "other.example", "", "no host"] {
        let (code, out, err) = outcome(&mut site.command("curl", &["--site", host]));
        assert_eq!((code, out.as_str()), (1, ""), "{host}");
        assert!(err.contains(&format!("no site has the host {host:?}")), "{err}");
        assert!(err.contains("  expected one of: blog.example.com, *.example.org\n"), "{err}");
    }
    assert_eq!(outcome(&mut site.command("carrier-pigeon", &[])).0, 2);
}

#[test]
fn without_a_backup() {
    let authority = Authority::new();
    let config = authority.write("pintle.toml", blog_at(&authority, "http://127.0.0.1:1"));
    let next = authority.public_key("next");
    let export = |form: &str, more: &[&str]| {
        outcome(pintle().args(["export", "--site", BLOG, "--as", form, "-c"]).arg(&config).args(more))
    };
    let backup = ["--backup", next.to_str().unwrap()];
    for form in ["okhttp", "android", "ios", "envoy", "trustkit", "header", "nginx", "vcl"] {
        let (code, out, err) = export(form, &[]);
        assert_eq!((code, out.as_str()), (1, ""), "{form}: {err}");
        assert!(
            err.contains("the site has no backup key") && err.contains("hint: pintle key new --role next"),
            "{err}"
        );
        let waived = export(form, &["--without-backup"]);
        assert_eq!(waived.0 == 0, ["okhttp", "android", "ios", "envoy"].contains(&form), "{form}: {}", waived.2);
        let (code, out, err) = export(form, &backup);
        assert!(code == 0 && out.contains(&openssl_pin(&["pkey", "-pubin", "-pubout"], &next)), "{form}: {err}");
    }
    for form in ["curl", "tlsa", "certspotter", "json"] {
        let (code, out, err) = export(form, &[]);
        assert!(code == 0 && !out.is_empty() && err.contains("warning: the site has no backup key"), "{form}: {err}");
    }
    let json: Value = serde_json::from_str(&export("json", &backup).1).unwrap();
    assert_eq!((&json["pins"][1]["role"], &json["valid_until"].as_str().unwrap()[..10]), (&json!("next"), &*date(90)));
    // A key that is served backs up nothing.
    for file in ["blog.pem", "ca.pem"] {
        let (code, _, err) = export("android", &["--backup", authority.folder().join(file).to_str().unwrap()]);
        assert!(code == 1 && err.contains("is a key of the served chain, and no backup"), "{err}");
    }
    let (code, _, err) = export("android", &["--backup", "/no/such/file"]);
    assert!(code == 1 && err.contains("--backup: /no/such/file: no such file"), "{err}");
}

#[test]
fn lives() {
    let site = Site::new(&[BLOG], "max_age = \"1h\"");
    for form in ["android", "trustkit"] {
        let (code, out, err) = outcome(&mut site.command(form, &[]));
        assert!(
            code == 1 && out.is_empty() && err.contains("1h from now may be before the next\n  hint: --life"),
            "{err}"
        );
        assert!(output(&mut site.command(form, &["--life", "1d"])).contains(&date(1)));
    }
    for life in ["0", "99999y", "18446744073709551615"] {
        let (code, out, err) = outcome(&mut site.command("curl", &["--life", life]));
        assert!(code == 1 && out.is_empty() && err.contains("error: --life: "), "{err}");
    }
    assert_eq!(outcome(&mut site.command("curl", &["--life", "soon"])).0, 2);
    let (_, _, err) = outcome(&mut site.command("header", &["--life", "61d"]));
    assert!(err.contains("60 days at most"), "{err}");
}

#[test]
fn addresses() {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &["192.0.2.1"]);
    let next = authority.public_key("next");
    let text = format!(
        "[[site]]\nhosts = [\"192.0.2.1\"]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
         [site.hpkp]\nbackups = [{next:?}]\n",
        leaf.chain, leaf.key
    );
    let config = authority.write("pintle.toml", text);
    let export =
        |form: &str| outcome(pintle().args(["export", "--site", "192.0.2.1", "--as", form, "-c"]).arg(&config));
    for form in ["tlsa", "trustkit"] {
        let (code, out, err) = export(form);
        assert!(code == 1 && out.is_empty() && err.contains("the site's hosts are addresses"), "{err}");
    }
    assert!(export("okhttp").1.contains(".add(\"192.0.2.1\", "));
}

#[test]
fn a_pair_of_certificates_has_two_live_pins() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let (ecdsa, rsa) = (authority.leaf("ecdsa", &[BLOG]), authority.leaf_of("rsa", &[BLOG], KeyKind::Rsa, -1, 90));
    let pair = [&ecdsa, &rsa].map(|l| format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", l.chain, l.key));
    let text = format!("[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n{}{}", origin.url(), pair[0], pair[1]);
    let config = authority.write("pintle.toml", text);
    let out = output(pintle().args(["export", "--site", BLOG, "--as", "curl", "-c"]).arg(config));
    assert_eq!(out, format!("sha256//{};sha256//{}\n", ecdsa.pin, rsa.pin));
}

#[test]
fn files() {
    let site = Site::blog();
    let file = site.authority.folder().join("pins.json");
    fs::write(&file, "old").unwrap();
    assert_eq!(output(&mut site.command("curl", &["--out", file.to_str().unwrap()])), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), site.export("curl"));
    let (code, _, err) = outcome(&mut site.command("curl", &["--out", "/no/such/folder/pins"]));
    assert!(code == 1 && err.contains("/no/such/folder/pins: no such file"), "{err}");
    // Nobody should take half an export for a whole one.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = site.command("json", &[]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn nothing_is_exported_from_a_configuration_with_errors() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let config =
        authority.write("pintle.toml", blog(&authority, &origin) + "[site.hpkp]\nbackups = [\"absent.csr\"]\n");
    let (code, out, err) = outcome(pintle().args(["export", "--site", BLOG, "--as", "curl", "-c"]).arg(config));
    assert!(code == 1 && out.is_empty() && err.contains("absent.csr: no such file"), "{err}");
}

/// The port that clients use: the configured one, or those of the listeners.
#[test]
fn tlsa_records_are_for_the_public_port() {
    let site = Site::blog();
    let text = fs::read_to_string(&site.config).unwrap();
    for (listen, ports) in [
        ("https = [\"[::]:443\"]", &["443"][..]),
        ("https = [\"[::]:8443\"]", &["8443"]),
        ("https = [\"[::]:8443\"]\npublic_https_port = 443", &["443"]),
        ("https = [\"127.0.0.1:443\", \"127.0.0.1:9443\", \"127.0.0.2:443\"]", &["443", "9443"]),
        ("https = []", &["443"]),
    ] {
        fs::write(&site.config, format!("[listen]\n{listen}\ntrusted_proxies = [\"127.0.0.1\"]\n{text}")).unwrap();
        let exported = site.export("tlsa");
        let owners = exported.lines().filter_map(|line| line.strip_suffix(&hex(&site.pins[0])));
        let want: Vec<String> = [BLOG, "www.example.com"]
            .iter()
            .flat_map(|host| ports.iter().map(move |port| format!("_{port}._tcp.{host}. IN TLSA 3 1 1 ")))
            .collect();
        assert_eq!(owners.collect::<Vec<_>>(), want, "{listen}");
    }
}

/// The process serves one key, and its configuration has another by now: who relies on the export meets the first.
#[test]
fn what_is_served_is_exported() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let backup = bed.next.key.with_extension("csr");
    pintle.rewrite(|text| {
        text.replace(bed.chain().to_str().unwrap(), bed.stranger.chain.to_str().unwrap())
            .replace(bed.key().to_str().unwrap(), bed.stranger.key.to_str().unwrap())
    });
    let export = |more: &[&Path]| {
        let export = ["--site", BLOG, "--as", "curl", "--life", "30d", "--backup"];
        outcome(pintle.command("export").args(export).arg(&backup).args(more))
    };
    let (code, out, err) = export(&[]);
    assert_eq!((code, out), (0, format!("sha256//{};sha256//{}\n", bed.live.pin, bed.next.pin)), "{err}");
    let served = format!("{BLOG} is served with {}; `pintle reload` would serve {}", bed.live.pin, bed.stranger.pin);
    assert!(err.contains(&served) && err.contains("that the reload would lock its users out"), "{err}");
    // As it is said, so it is.
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    // With both keys, nothing stands against it but the export before.
    let (code, out, err) = export(&["--backup".as_ref(), bed.stranger.chain.as_path()]);
    assert!(code == 0 && out.contains(&bed.stranger.pin) && err.contains("this export has both keys"), "{out}{err}");
    // A promise of other keys is not taken, whoever brings it; why is for programs, too.
    let (book, _) = pintle::ledger::look(&bed.state()).unwrap();
    let mut promise = book.promises().iter().find(|p| p.hosts.len() == 2).unwrap().clone();
    promise.pins.retain(|pin| pin.to_string() != bed.live.pin);
    let line = pintle::ledger::Record::Promise(promise).line();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--unix-socket"]).arg(bed.state().join("admin.sock"));
    let answer = output(curl.args(["--data-binary", &line, "http://localhost/ledger/promise"]));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["locked_out"][0]["site"], BLOG, "{answer}");
    assert_eq!(answer["locked_out"][0]["pin"], bed.live.pin.as_str(), "{answer}");
    assert_eq!(pintle::ledger::look(&bed.state()).unwrap().0.promises().len(), book.promises().len());
}

/// A renewal in place that is refused: what lies there is not what is served, and no reason not to export that.
#[test]
fn refused_files_are_not_exported() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    eventually("the pair is copied", || {
        bed.state().join("last-good").read_dir().is_ok_and(|mut d| d.next().is_some()).then_some(())
    });
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || (!refusal(&pintle).is_null()).then_some(()));
    let (code, out, err) = outcome(pintle.command("export").args(["--site", BLOG, "--as", "curl", "--life", "30d"]));
    assert!(code == 0 && out.contains(&bed.live.pin) && !out.contains(&bed.stranger.pin), "{out}{err}");
}

/// A site that the running process does not have yet is exported by its files, and it says so.
#[test]
fn a_site_that_is_not_served_yet() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let leaf = bed.authority.leaf("other", &["other.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"other.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        leaf.chain,
        leaf.key
    );
    pintle.rewrite(|text| format!("{text}\n{site}"));
    let (code, out, err) = outcome(pintle.command("export").args(["--site", "other.example.com", "--as", "curl"]));
    assert_eq!((code, out), (0, format!("sha256//{}\n", leaf.pin)), "{err}");
    assert!(err.contains("does not serve other.example.com yet") && err.contains("hint: pintle reload"), "{err}");
}
