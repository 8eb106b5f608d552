//! Apps: OkHttp, Android's Network Security Config, NSPinnedDomains of iOS, TrustKit.

use super::form::ExportForm;
use super::set::{PinSet, describe};

/// Writes a complete `CertificatePinner`. OkHttp's patterns are like ours: `*.` matches one label,
/// `**.` matches the name itself and any number of labels before it. All patterns that match a host
/// apply.
pub(super) fn okhttp(set: &PinSet) -> String {
    let mut text = format!(
        "// {}\n\
         // OkHttp compares every certificate of the verified chain. It has no end date for pins: ship a release with\n\
         // the next export before this one ends.\n\
         import okhttp3.CertificatePinner\n\n\
         val certificatePinner: CertificatePinner = CertificatePinner.Builder()\n",
        set.title(ExportForm::OkHttp)
    );
    for host in &set.hosts {
        let pattern = match set.header.include_subdomains {
            true => format!("**.{}", host.base()),
            false => host.to_string(),
        };
        for key in &set.keys {
            let (pattern, pin) = (kotlin(&pattern), kotlin(&format!("sha256/{}", key.pin)));
            text.push_str(&format!("    .add({pattern}, {pin}) // {}\n", describe(key)));
        }
    }
    text + "    .build()\n\n// OkHttpClient.Builder().certificatePinner(certificatePinner).build()\n"
}

/// A string literal; an unescaped `$` would begin a template.
fn kotlin(text: &str) -> String {
    let mut literal = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => literal.extend(['\\', c]),
            c if c.is_control() => literal.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => literal.push(c),
        }
    }
    literal + "\""
}

/// A name as apps pin it. Apps have no wildcards.
struct Domain<'a> {
    name: &'a str,
    /// `true` if the names below it are pinned, too.
    subdomains: bool,
    /// `true` if it replaces a wildcard, and so pins more names than the site has.
    widened: bool,
}

/// Returns the site's names, each once. Android rejects a repeated name; in a plist the last one
/// wins.
fn domains(set: &PinSet, form: ExportForm) -> Vec<Domain<'_>> {
    let mut domains: Vec<Domain<'_>> = Vec::new();
    for host in set.named(form) {
        // An IPv6 address is written without its brackets.
        let name = host.base().trim_start_matches('[').trim_end_matches(']');
        let subdomains = set.header.include_subdomains || host.is_wildcard();
        match domains.iter_mut().find(|d| d.name == name) {
            Some(known) => {
                known.subdomains |= subdomains;
                // The site has the name itself, too: only its wildcard is widened.
                known.widened &= host.is_wildcard();
            }
            None => domains.push(Domain { name, subdomains, widened: host.is_wildcard() }),
        }
    }
    domains
}

const WIDER: &str = "Replaces the wildcard below this name; the name itself is pinned, too.";

/// Writes `network_security_config.xml`, see
/// developer.android.com/privacy-and-security/security-config.
pub(super) fn android(set: &PinSet) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- {} -->\n<network-security-config>\n    <domain-config>\n",
        xml_comment(&set.title(ExportForm::Android))
    );
    for domain in domains(set, ExportForm::Android) {
        if domain.widened {
            text.push_str(&format!("        <!-- {WIDER} -->\n"));
        }
        text.push_str(&format!(
            "        <domain includeSubdomains=\"{}\">{}</domain>\n",
            domain.subdomains,
            xml(domain.name)
        ));
    }
    text.push_str(&format!("        <pin-set expiration=\"{}\">\n", set.last_day()));
    for key in &set.keys {
        text.push_str(&format!(
            "            <!-- {} -->\n            <pin digest=\"SHA-256\">{}</pin>\n",
            xml_comment(&describe(key)),
            key.pin
        ));
    }
    text + "        </pin-set>\n    </domain-config>\n</network-security-config>\n"
}

const PLIST: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
     <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n";

/// Writes `NSPinnedDomains` for an Info.plist: iOS 14, macOS 11 and later. It has no end date for
/// pins, and includes subdomains of one more label only.
pub(super) fn ios(set: &PinSet) -> String {
    let mut text = format!(
        "{PLIST}<!-- {}\n     \
         iOS has no end date for pins: ship a release with the next export before this one ends. -->\n\
         <plist version=\"1.0\">\n<dict>\n    <key>NSAppTransportSecurity</key>\n    <dict>\n        \
         <key>NSPinnedDomains</key>\n        <dict>\n",
        xml_comment(&set.title(ExportForm::Ios))
    );
    for domain in domains(set, ExportForm::Ios) {
        text.push_str(&domain_key(&domain));
        text.push_str(&format!(
            "                <key>NSIncludesSubdomains</key>\n                <{}/>\n                \
             <key>NSPinnedLeafIdentities</key>\n                <array>\n",
            domain.subdomains
        ));
        for key in &set.keys {
            text.push_str(&format!(
                "                    <!-- {} -->\n                    <dict>\n                        \
                 <key>SPKI-SHA256-BASE64</key>\n                        <string>{}</string>\n                    \
                 </dict>\n",
                xml_comment(&describe(key)),
                key.pin
            ));
        }
        text.push_str("                </array>\n            </dict>\n");
    }
    text + "        </dict>\n    </dict>\n</dict>\n</plist>\n"
}

fn domain_key(domain: &Domain<'_>) -> String {
    let comment = if domain.widened { format!("            <!-- {WIDER} -->\n") } else { String::new() };
    format!("{comment}            <key>{}</key>\n            <dict>\n", xml(domain.name))
}

/// Writes `TSKConfiguration` for an Info.plist. TrustKit reports to its makers unless that is
/// disabled.
pub(super) fn trustkit(set: &PinSet) -> String {
    let mut text = format!(
        "{PLIST}<!-- {} -->\n<plist version=\"1.0\">\n<dict>\n    <key>TSKConfiguration</key>\n    <dict>\n        \
         <key>TSKSwizzleNetworkDelegates</key>\n        <false/>\n        <key>TSKPinnedDomains</key>\n        <dict>\n",
        xml_comment(&set.title(ExportForm::TrustKit))
    );
    for domain in domains(set, ExportForm::TrustKit) {
        text.push_str(&domain_key(&domain));
        text.push_str(&format!(
            "                <key>TSKIncludeSubdomains</key>\n                <{}/>\n                \
             <key>TSKEnforcePinning</key>\n                <true/>\n                \
             <key>TSKExpirationDate</key>\n                <string>{}</string>\n                \
             <key>TSKDisableDefaultReportUri</key>\n                <true/>\n",
            domain.subdomains,
            set.last_day()
        ));
        if let Some(uri) = &set.header.report_uri {
            text.push_str(&format!(
                "                <key>TSKReportUris</key>\n                <array>\n                    \
                 <string>{}</string>\n                </array>\n",
                xml(uri)
            ));
        }
        text.push_str("                <key>TSKPublicKeyHashes</key>\n                <array>\n");
        for key in &set.keys {
            text.push_str(&format!(
                "                    <!-- {} -->\n                    <string>{}</string>\n",
                xml_comment(&describe(key)),
                key.pin
            ));
        }
        text.push_str("                </array>\n            </dict>\n");
    }
    text + "        </dict>\n    </dict>\n</dict>\n</plist>\n"
}

/// Escapes character data.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes the text of a comment. A comment must not contain `--` or end with `-` (XML 1.0 section
/// 2.5), but names in their `xn--` form do.
fn xml_comment(text: &str) -> String {
    let mut comment = text.replace("--", "-\u{2010}");
    if comment.ends_with('-') {
        comment.push('.');
    }
    // These are not characters of XML (section 2.2).
    comment.replace(['\u{fffe}', '\u{ffff}'], "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(kotlin("a\"b\\c$d\n"), "\"a\\\"b\\\\c\\$d\\u000a\"");
        assert_eq!(xml("a<b>&c"), "a&lt;b&gt;&amp;c");
        assert_eq!(xml_comment("xn--a---"), "xn-\u{2010}a-\u{2010}-.");
    }
}
