//! The fingerprint tool: the pin of any certificate, CSR or public key, and whose key it is.

use askama::Template;
use http::{Method, StatusCode};
use serde_json::Value;

use super::error::failed;
use super::moment::{Moment, seconds};
use super::timeline::shape;
use super::value::{WayOut, list, some, text, texts, ways_out};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};

/// The longest name of a file that is shown, in characters.
const NAME_MAX: usize = 120;

#[derive(Template)]
#[template(path = "fingerprint.html")]
struct FingerprintPage {
    frame: PageFrame,
    refused: Option<RefusedFile>,
    found: Option<FoundPin>,
}

/// The reason why there is no pin.
struct RefusedFile {
    what: String,
    why: String,
    hints: Vec<WayOut>,
}

/// The pin of a file.
struct FoundPin {
    file: String,
    title: String,
    pin: String,
    facts: String,
    roles: Vec<KnownRole>,
    forms: Vec<ShownForm>,
}

/// The role of the key at a site.
struct KnownRole {
    shape: &'static str,
    words: String,
    site: String,
    href: String,
}

/// The pin in the form of another program.
struct ShownForm {
    name: &'static str,
    text: String,
}

/// The page: empty, with the answer about a file, or with the roles of a pin.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let frame = PageFrame::new(asked, "Fingerprint", "/fingerprint");
    let empty = FingerprintPage { frame, refused: None, found: None };
    let (file, answer) = if asked.method == Method::POST {
        match contents(asked) {
            // The copy is wiped with the call.
            Some((file, contents)) => (file, api.call(Call::post("/v1/fingerprint").body(contents.to_vec())).await),
            None => {
                let what = "There is nothing to look at".to_owned();
                let why = "Choose a file, or paste a certificate, a CSR or a public key.".to_owned();
                let refused = Some(RefusedFile { what, why, hints: Vec::new() });
                return Page::of(&FingerprintPage { refused, ..empty }).with_status(StatusCode::BAD_REQUEST);
            }
        }
    } else {
        let Some(pin) = asked.query.get("pin").map(str::trim).filter(|pin| !pin.is_empty()) else {
            return Page::of(&empty);
        };
        ("A pin".to_owned(), api.call(Call::get("/v1/fingerprint").with("pin", pin)).await)
    };
    match answer.status {
        StatusCode::OK => Page::of(&FingerprintPage { found: Some(found(file, &answer.body)), ..empty }),
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
            let status = answer.status;
            Page::of(&FingerprintPage { refused: Some(refused(&file, &answer)), ..empty }).with_status(status)
        }
        _ => failed(asked, &answer),
    }
}

/// The file of the form, or the pasted text, with its name.
fn contents(asked: &PageRequest) -> Option<(String, &[u8])> {
    let shown = |name: &str| name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
    let file = asked.form.file("file").filter(|(_, bytes)| !bytes.is_empty());
    let text = asked.form.get("text").filter(|text| !text.trim().is_empty());
    let file = file.map(|(name, bytes)| (shown(name), bytes));
    file.or_else(|| text.map(|text| ("Pasted".to_owned(), text.as_bytes())))
}

fn refused(file: &str, answer: &Answer) -> RefusedFile {
    let body = &answer.body;
    let hints = ways_out(body);
    match (body["kind"].as_str(), answer.status) {
        (Some("private-key"), _) => RefusedFile {
            what: format!("{file} is a private key. It was wiped, not read"),
            why: "A pin needs the public half only. Nothing was kept. On the machine that has the key, make the public half:"
                .to_owned(),
            hints: vec![WayOut::command("openssl pkey -in FILE -pubout -out FILE.pub".to_owned())],
        },
        (_, StatusCode::PAYLOAD_TOO_LARGE) => RefusedFile {
            what: format!("{file} is too long"),
            why: "A certificate, a CSR or a public key fits into 64 KiB.".to_owned(),
            hints,
        },
        _ => RefusedFile { what: format!("{file} has no pin"), why: format!("{file}: {}.", text(body, "error")), hints },
    }
}

fn found(file: String, body: &Value) -> FoundPin {
    let (pin, hex) = (text(body, "pin"), text(body, "hex"));
    let role = |known: &Value| {
        let site = text(known, "site");
        let role = some(known, "role").unwrap_or_default();
        let words = match role.as_str() {
            "issuer" => "a key of the issuer of".to_owned(),
            "promised" => "a promised key of".to_owned(),
            role => format!("the {role} key of"),
        };
        KnownRole { shape: shape(Some(&role)), words, href: format!("/site/{}#keys", encoded(&site)), site }
    };
    let first = list(body, "known").first().cloned().unwrap_or_default();
    let now = seconds(&body["now"]).unwrap_or_default();
    let date = |value: &Value| Moment::of(value, now).map(|date| date.day);
    let certificate = list(body, "certificates").first().cloned().unwrap_or_default();
    let names = texts(body, "names");
    let kind = match text(body, "kind").as_str() {
        "csr" if !names.is_empty() => format!("CSR for {}", names.join(", ")),
        "csr" => "CSR".to_owned(),
        "certificate" | "chain" => {
            format!("certificate of {}, from {}", text(&certificate, "subject"), text(&certificate, "issuer"))
        }
        "pin" => String::new(),
        _ => "public key".to_owned(),
    };
    let facts = [
        Some(kind),
        some(body, "algorithm"),
        date(&certificate["not_after"]).map(|end| format!("until {end}")),
        date(&first["promised_since"]).map(|since| format!("promised since {since}")),
        date(&first["promised_until"]).map(|until| format!("clients hold it until {until}")),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().filter(|fact| !fact.is_empty()).collect();
    let form = |name, text| ShownForm { name, text };
    FoundPin {
        title: "This key is in no site, and no set has it".to_owned(),
        roles: list(body, "known").iter().map(role).collect(),
        facts: facts.join(" · "),
        forms: vec![
            form("curl", format!("sha256//{pin}")),
            form("OkHttp", format!("sha256/{pin}")),
            form("TLSA", format!("3 1 1 {hex}")),
            form("header", format!("pin-sha256=\"{pin}\"")),
            form("hex", hex),
        ],
        file,
        pin,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_of_a_key() {
        let body = json!({
            "pin": "u/ER=", "hex": "bbf1", "kind": "csr", "algorithm": "ecdsa-p256", "names": ["a.example"],
            "now": "2026-11-26T00:00:00Z",
            "known": [{ "site": "a.example", "role": "next", "promised_since": "2026-11-20T00:00:00Z" }],
        });
        let key = found("next.csr".into(), &body);
        assert_eq!(key.facts, "CSR for a.example · ecdsa-p256 · promised since 20 Nov 2026");
        assert_eq!((key.roles[0].words.as_str(), key.roles[0].shape), ("the next key of", "next"));
        assert_eq!(key.forms[3].text, "pin-sha256=\"u/ER=\"");
    }

    #[test]
    fn refusals() {
        let answer = |kind: &str, error: &str| {
            Answer::json(StatusCode::UNPROCESSABLE_ENTITY, json!({ "kind": kind, "error": error, "hints": [] }))
        };
        assert_eq!(
            refused("a.key", &answer("private-key", "x")).what,
            "a.key is a private key. It was wiped, not read"
        );
        assert_eq!(refused("a.p12", &answer("unknown", "is PKCS#12")).why, "a.p12: is PKCS#12.");
        assert_eq!(refused("a", &answer("unknown", "damaged csr")).why, "a: damaged csr.");
    }
}
