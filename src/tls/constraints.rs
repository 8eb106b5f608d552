//! Name constraints (RFC 5280 section 4.2.1.10): the names that an issuer may certify.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

use super::extensions::address;

/// Returns the first name of a leaf that its issuer may not certify.
pub(super) fn violation(issuer: &X509Certificate<'_>, leaf: &X509Certificate<'_>) -> Option<String> {
    let constraints = issuer.name_constraints().ok().flatten()?.value;
    let bases = |trees: &Option<Vec<_>>| -> Vec<GeneralName<'_>> {
        trees.iter().flatten().map(|tree: &x509_parser::extensions::GeneralSubtree<'_>| tree.base.clone()).collect()
    };
    let (permitted, excluded) = (bases(&constraints.permitted_subtrees), bases(&constraints.excluded_subtrees));
    let names = leaf.subject_alternative_name().ok().flatten();
    let subject = GeneralName::DirectoryName(leaf.subject().clone());
    let has_subject = leaf.subject().iter().next().is_some();
    let all = names.iter().flat_map(|names| &names.value.general_names).chain(has_subject.then_some(&subject));
    for name in all {
        // Only constraints of the same type apply.
        let mut judged = permitted.iter().filter_map(|base| matches(name, base)).peekable();
        let is_permitted = judged.peek().is_none() || judged.any(|fits| fits);
        if !is_permitted || excluded.iter().any(|base| matches(name, base) == Some(true)) {
            return Some(shown(name));
        }
    }
    None
}

fn shown(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => address(bytes).map_or_else(String::new, |a| a.to_string()),
        GeneralName::DirectoryName(name) => name.to_string(),
        other => format!("{other:?}"),
    }
}

/// Returns `None` if the two have different types, or a type that no server name has.
fn matches(name: &GeneralName<'_>, base: &GeneralName<'_>) -> Option<bool> {
    match (name, base) {
        (GeneralName::DNSName(name), GeneralName::DNSName(base)) => Some(is_below(name, base)),
        (GeneralName::IPAddress(name), GeneralName::IPAddress(base)) => Some(is_in_network(address(name)?, base)),
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => Some(begins_with(name, base)),
        _ => None,
    }
}

/// `example.com` covers the name itself and all names below it; `.example.com`, as some write it,
/// only those below.
fn is_below(name: &str, base: &str) -> bool {
    let (name, base) = (name.trim_end_matches('.').to_ascii_lowercase(), base.to_ascii_lowercase());
    let tail = base.strip_prefix('.').unwrap_or(&base);
    let rest = name.strip_suffix(tail);
    tail.is_empty() || rest.is_some_and(|rest| rest.ends_with('.') || (rest.is_empty() && !base.starts_with('.')))
}

/// `base` is an address and a mask of the same length.
fn is_in_network(name: IpAddr, base: &[u8]) -> bool {
    let (network, mask) = base.split_at(base.len() / 2);
    let bytes = match name {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.len() == network.len()
        && bytes.iter().zip(network).zip(mask).all(|((byte, network), mask)| byte & mask == network & mask)
}

/// An attribute of a name: its type and its value, if that can be read.
type Part = Option<(String, String)>;

fn parts(name: &X509Name<'_>) -> Vec<Part> {
    let part = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        Some((a.attr_type().to_id_string(), a.as_str().ok()?.trim().to_lowercase()))
    };
    name.iter_attributes().map(part).collect()
}

/// Compares part by part; an unreadable part counts as equal.
fn begins_with(name: &X509Name<'_>, base: &X509Name<'_>) -> bool {
    let (name, base) = (parts(name), parts(base));
    let fits = |(a, b): (&Part, &Part)| a.is_none() || b.is_none() || a == b;
    name.len() >= base.len() && name.iter().zip(&base).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, base: &str, want: bool| assert_eq!(is_below(name, base), want, "{name} {base}");
        check("example.com", "example.com", true);
        check("A.Example.com", "example.COM", true);
        check("*.example.com", "example.com", true);
        check("badexample.com", "example.com", false);
        check("example.com", ".example.com", false);
        check("a.example.com", ".example.com", true);
        check("example.org", "", true);
    }

    #[test]
    fn addresses() {
        let check = |name: &str, base: &[u8], want: bool| assert_eq!(is_in_network(name.parse().unwrap(), base), want);
        check("192.0.2.1", &[192, 0, 2, 0, 255, 255, 255, 0], true);
        check("192.0.3.1", &[192, 0, 2, 0, 255, 255, 255, 0], false);
        check("::1", &[192, 0, 2, 0, 255, 255, 255, 0], false);
        check("::1", &[0; 32], true);
        check("192.0.2.1", &[], false);
    }
}
