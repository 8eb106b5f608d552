//! Tools: curl, DANE, certificate monitors, and programs that read JSON.

use serde_json::json;

use super::form::ExportForm;
use super::set::{HTTPS, PinSet, describe};

/// Writes `sha256//...;sha256//...` and nothing else: the output is an argument.
pub(super) fn curl(set: &PinSet) -> String {
    let pins: Vec<String> = set.keys.iter().map(|key| format!("sha256//{}", key.pin)).collect();
    pins.join(";") + "\n"
}

/// Writes `3 1 1` records: end entity, SubjectPublicKeyInfo, SHA-256 (RFC 6698 section 2.1, RFC
/// 7671 section 5.1), one for each key. The next key's record must be published for longer than its
/// TTL before that key is served (RFC 7671 section 8.1).
pub(super) fn tlsa(set: &PinSet) -> String {
    format!("; {}\n", set.title(ExportForm::Tlsa)) + &tlsa_records(set)
}

/// Writes the records alone.
pub(super) fn tlsa_records(set: &PinSet) -> String {
    let mut text = String::new();
    for host in set.named(ExportForm::Tlsa) {
        // An asterisk is a wildcard as the leftmost label only (RFC 4592 section 2.1.1):
        // `_443._tcp.*` would be a literal name.
        let owners: Vec<String> = if host.is_wildcard() {
            text.push_str(&format!(
                "; This record is for every port, and only for names without a record of their own. Any other name\n\
                 ; needs lines of its own: _{}._tcp.NAME.{}. IN TLSA ...\n",
                set.ports.first().unwrap_or(&HTTPS),
                host.base()
            ));
            vec![format!("{host}.")]
        } else {
            set.ports.iter().map(|port| format!("_{port}._tcp.{host}.")).collect()
        };
        for (owner, key) in owners.iter().flat_map(|owner| set.keys.iter().map(move |key| (owner, key))) {
            text.push_str(&format!("; {}\n{owner} IN TLSA 3 1 1 {}\n", describe(key), key.pin.to_hex()));
        }
    }
    text
}

/// Writes the hexadecimal SHA-256 of each key, one per line. certspotter up to 0.24.2 reads no list
/// of known keys (issue 88 asks for one). Its scripts get PUBKEY_SHA256 to compare, as
/// certspotter-script(8) recommends.
pub(super) fn certspotter(set: &PinSet) -> String {
    let hosts: Vec<String> = set.hosts.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "# {}\n\
         # Known keys of {}. certspotter does not read such a list; a script in its hooks.d does:\n\
         #     grep -qx \"$PUBKEY_SHA256\" /etc/certspotter/known-keys && exit 0\n",
        set.title(ExportForm::CertSpotter),
        hosts.join(", ")
    );
    for key in &set.keys {
        text.push_str(&format!("# {}\n{}\n", describe(key), key.pin.to_hex()));
    }
    text
}

/// Writes a body for each key, for `POST https://sslmate.com/api/v3/monitoring/known_keys`: Cert
/// Spotter then reports no certificate with that key and these names. JSON has no comments.
pub(super) fn sslmate(set: &PinSet) -> String {
    let names: Vec<String> =
        set.named(ExportForm::SslMate).filter(|h| h.address().is_none()).map(ToString::to_string).collect();
    let body = |key: &super::set::SiteKey| json!({ "pubkey_sha256": key.pin.to_hex(), "dns_names": names });
    set.keys.iter().map(|key| format!("{}\n", body(key))).collect()
}

/// Writes all facts.
pub(super) fn json(set: &PinSet) -> String {
    let pins: Vec<serde_json::Value> = set
        .keys
        .iter()
        .map(|key| {
            json!({
                "pin": key.pin.to_string(), "hex": key.pin.to_hex(), "role": key.role.name(),
                "algorithm": key.algorithm.to_string(), "file": key.file,
                "not_after": key.not_after.map(|t| t.to_string()),
            })
        })
        .collect();
    let all = json!({
        "id": set.number(ExportForm::Json),
        "site": set.site,
        "hosts": set.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "pins": pins,
        "include_subdomains": set.header.include_subdomains,
        "max_age": set.header.max_age,
        "report_uri": set.header.report_uri,
        "header": { "name": set.header.name(), "value": set.header.value() },
        "valid_until": set.valid_until.to_string(),
    });
    format!("{all:#}\n")
}
