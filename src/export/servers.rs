//! Servers: the header itself; nginx and Varnish, which send it; Envoy, which enforces the pins of
//! its upstream.

use super::form::ExportForm;
use super::set::{PinSet, describe};

/// Writes the field line.
pub(super) fn header(set: &PinSet) -> String {
    format!("{}: {}\n", set.header.name(), set.header.value())
}

/// Writes an `add_header` with `always`: without it nginx leaves the field out of error pages.
pub(super) fn nginx(set: &PinSet) -> String {
    format!(
        "# {}\n\
         # For server blocks that listen with ssl only (RFC 7469 section 2.2.2). A block with an add_header of its own\n\
         # inherits none from the blocks around it.\n\
         add_header {} {} always;\n",
        set.title(ExportForm::Nginx),
        set.header.name(),
        nginx_string(&set.header.value())
    )
}

/// Quotes a parameter of a directive that expands variables. nginx has no escape for `$`, which
/// occurs in report URIs only; there `%24` means the same.
fn nginx_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('$', "%24"))
}

/// Writes a part of `vcl_deliver`. VCL runs all subroutines of that name, one after the other.
pub(super) fn vcl(set: &PinSet) -> String {
    format!(
        "# {}\n\
         sub vcl_deliver {{\n    \
             # Over TLS only (RFC 7469 section 2.2.2). TLS ends in front of Varnish: test what your TLS server sets,\n    \
             # for example proxy.is_ssl() behind a PROXY header. Clients must not be able to set it.\n    \
             if (req.http.X-Forwarded-Proto == \"https\") {{\n        \
                 set resp.http.{} = {};\n    \
             }}\n\
         }}\n",
        set.title(ExportForm::Vcl),
        set.header.name(),
        vcl_string(&set.header.value())
    )
}

/// Writes a long string. It has no escapes, and ends at the first `"}`.
fn vcl_string(text: &str) -> String {
    let parts: Vec<String> = text.split("\"}").map(|part| format!("{{\"{part}\"}}")).collect();
    parts.join(" {\"\"\"} \"}\" ")
}

/// Writes the transport socket of a cluster whose endpoints are the site.
pub(super) fn envoy(set: &PinSet) -> String {
    let mut text = format!(
        "# {}\n\
         # Part of a cluster. Envoy compares the leaf certificate alone, in addition to the checks below.\n\
         transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n",
        set.title(ExportForm::Envoy)
    );
    match set.hosts.iter().filter(|h| h.address().is_none()).find_map(|h| h.exact()) {
        Some(name) => text.push_str(&format!("    sni: {}\n", yaml(name))),
        None => text.push_str("    # sni: the name that you connect to; this site has wildcards or addresses only\n"),
    }
    text.push_str(
        "    common_tls_context:\n      validation_context:\n        trusted_ca:\n          \
         filename: /etc/ssl/certs/ca-certificates.crt\n        match_typed_subject_alt_names:\n",
    );
    for host in &set.hosts {
        let (kind, matcher, name) = match host.address() {
            Some(address) => ("IP_ADDRESS", "exact", address.to_string()),
            // Envoy compares it with the text of the certificate's name: the wildcard itself, or a
            // name below it.
            None if host.is_wildcard() => ("DNS", "suffix", format!(".{}", host.base())),
            None => ("DNS", "exact", host.base().to_owned()),
        };
        text.push_str(&format!(
            "        - san_type: {kind}\n          matcher:\n            {matcher}: {}\n",
            yaml(&name)
        ));
    }
    text.push_str("        verify_certificate_spki:\n");
    for key in &set.keys {
        text.push_str(&format!("        # {}\n        - {}\n", describe(key), yaml(&key.pin.to_string())));
    }
    text
}

/// Writes a double-quoted scalar. YAML's escapes include those of JSON (YAML 1.2 section 7.3.1).
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(nginx_string("a=\"b\"; c='$d'\\"), "'a=\"b\"; c=\\'%24d\\'\\\\'");
        assert_eq!(vcl_string("p=\"x\"; q=\"y\""), "{\"p=\"x\"; q=\"y\"\"}");
        assert_eq!(vcl_string("a\"}b"), "{\"a\"} {\"\"\"} \"}\" {\"b\"}");
        assert_eq!(yaml("a\"\n"), "\"a\\\"\\n\"");
    }
}
