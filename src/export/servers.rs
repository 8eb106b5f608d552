//! Servers: the header itself, nginx and Varnish that send it, and Envoy, which enforces the pins of its upstream.

use super::{Form, PinSet, describe};

/// The field line.
pub(super) fn header(set: &PinSet) -> String {
    format!("{}: {}\n", set.header.name(), set.header.value())
}

/// `add_header`. `always`, because nginx leaves it out of error pages otherwise.
pub(super) fn nginx(set: &PinSet) -> String {
    format!(
        "# {}\n\
         # For a server block that listens with ssl, and for no other (RFC 7469 section 2.2.2). A block below it that has\n\
         # an add_header of its own inherits none of those above it.\n\
         add_header {} {} always;\n",
        set.title(Form::Nginx),
        set.header.name(),
        nginx_string(&set.header.value())
    )
}

/// A quoted parameter of a directive that expands variables. nginx has no escape for `$`; it only stands in report
/// URIs, where `%24` means the same to whoever collects the reports.
fn nginx_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('$', "%24"))
}

/// A part of `vcl_deliver`. VCL runs all subroutines of that name, one after the other.
pub(super) fn vcl(set: &PinSet) -> String {
    format!(
        "# {}\n\
         sub vcl_deliver {{\n    \
             # Over TLS only (RFC 7469 section 2.2.2). TLS ends in front of Varnish: ask for what yours says there, for\n    \
             # instance proxy.is_ssl() behind a PROXY header. A client must not be able to say it itself.\n    \
             if (req.http.X-Forwarded-Proto == \"https\") {{\n        \
                 set resp.http.{} = {};\n    \
             }}\n\
         }}\n",
        set.title(Form::Vcl),
        set.header.name(),
        vcl_string(&set.header.value())
    )
}

/// A long string. It knows no escapes, and ends at the first `"}`.
fn vcl_string(text: &str) -> String {
    let parts: Vec<String> = text.split("\"}").map(|part| format!("{{\"{part}\"}}")).collect();
    parts.join(" {\"\"\"} \"}\" ")
}

/// The transport socket of a cluster whose endpoints are the site.
pub(super) fn envoy(set: &PinSet) -> String {
    let mut text = format!(
        "# {}\n\
         # Belongs into a cluster. Envoy compares the leaf certificate alone, in addition to what else is demanded here.\n\
         transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n",
        set.title(Form::Envoy)
    );
    match set.hosts.iter().filter(|h| h.address().is_none()).find_map(|h| h.exact()) {
        Some(name) => text.push_str(&format!("    sni: {}\n", yaml(name))),
        None => text.push_str("    # sni: the name that you connect to, which this site does not tell\n"),
    }
    text.push_str(
        "    common_tls_context:\n      validation_context:\n        trusted_ca:\n          \
         filename: /etc/ssl/certs/ca-certificates.crt\n        match_typed_subject_alt_names:\n",
    );
    for host in &set.hosts {
        let (kind, matcher, name) = match host.address() {
            Some(address) => ("IP_ADDRESS", "exact", address.to_string()),
            // Compared with the text of the certificate's name, which is the wildcard itself, or a name below it.
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

/// A double-quoted scalar, whose escapes take in JSON's (YAML 1.2 section 7.3.1).
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
