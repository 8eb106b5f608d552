//! The text of a configuration in which a site withdraws its pins: `mode = "withdraw"` in its `[site.hpkp]`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::host::HostPattern;
use crate::reason::Reason;

/// The line that withdraws pins.
pub const LINE: &str = "mode = \"withdraw\"";
const MODE: &str = "mode";
const WORD: &str = "withdraw";

/// A text in which a site withdraws its pins.
#[derive(Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// The text.
    pub text: String,
    /// The number of the changed line, from 1.
    pub line: usize,
    /// `true` if the line is new; `false` if it had another mode.
    pub is_new: bool,
}

/// The text in which the site of a host withdraws its pins.
///
/// # Errors
///
/// If the text has no such site, or the site sends no pins, or withdraws them already.
pub fn withdrawn(text: &str, host: &HostPattern) -> Result<Withdrawal, Reason> {
    let (root, _) = DeTable::parse_recoverable(text);
    let site = site_of(root.get_ref(), host)
        .ok_or_else(|| Reason::new(format!("the file has no site with the host {host}")).hint("reload it first"))?;
    let Some(DeValue::Table(pins)) = site.get("hpkp").map(Spanned::get_ref) else {
        return Err(Reason::new(format!("the site of {host} has no [site.hpkp]: it sends no pins")));
    };
    if let Some(mode) = pins.get(MODE) {
        if matches!(mode.get_ref(), DeValue::String(word) if word.as_ref() == WORD) {
            return Err(Reason::new(format!("the site of {host} withdraws its pins already")));
        }
        let span = mode.span();
        let (before, after) = (text.get(..span.start), text.get(span.end..));
        let (before, after) = before.zip(after).ok_or_else(|| by_hand(host))?;
        let changed = format!("{before}\"{WORD}\"{after}");
        return Ok(Withdrawal { line: line_of(text, span.start), text: changed, is_new: false });
    }
    let first = pins.keys().map(|key| key.span().start).min().ok_or_else(|| by_hand(host))?;
    let before = text.get(..first).ok_or_else(|| by_hand(host))?;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let (head, prefix) = before.split_at(start);
    if prefix.trim_start().starts_with('[') {
        return Err(by_hand(host));
    }
    let is_inline = prefix.trim_end().ends_with(['{', ',']);
    let added =
        if is_inline { format!("{before}{LINE}, ") } else { format!("{head}{prefix}{LINE}{}{prefix}", end(text)) };
    let changed = added + text.get(first..).unwrap_or_default();
    Ok(Withdrawal { line: line_of(text, first), text: changed, is_new: !is_inline })
}

/// The end of a line in a text.
fn end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn by_hand(host: &HostPattern) -> Reason {
    Reason::new(format!("pintle does not find the place in the text; write it into [site.hpkp] of {host}")).hint(LINE)
}

fn site_of<'t>(root: &'t DeTable<'_>, host: &HostPattern) -> Option<&'t DeTable<'t>> {
    let DeValue::Array(sites) = root.get("site")?.get_ref() else { return None };
    sites.iter().find_map(|site| {
        let DeValue::Table(table) = site.get_ref() else { return None };
        let DeValue::Array(hosts) = table.get("hosts")?.get_ref() else { return None };
        let has = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(name) => HostPattern::parse(name).is_ok_and(|name| name == *host),
            _ => false,
        };
        hosts.iter().any(has).then_some(table)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Withdrawal, Reason> {
        withdrawn(text, &HostPattern::parse("b.example").unwrap())
    }

    #[test]
    fn texts_with_and_without_a_mode() {
        let sites = |pins: &str| {
            format!(
                "[[site]]\nhosts = [\"a.example\"]\n[site.hpkp]\nmax_age = 1\n[[site]]\nhosts = [\"x\", \"B.example.\"]\n{pins}"
            )
        };
        for (before, after, line, is_new) in [
            ("[site.hpkp]\nmax_age = 1\n", "[site.hpkp]\nmode = \"withdraw\"\nmax_age = 1\n", 8, true),
            ("  [site.hpkp]\n  max_age = 1", "  [site.hpkp]\n  mode = \"withdraw\"\n  max_age = 1", 8, true),
            ("hpkp.max_age = 1\n", "hpkp.mode = \"withdraw\"\nhpkp.max_age = 1\n", 7, true),
            ("hpkp = { max_age = 1 }", "hpkp = { mode = \"withdraw\", max_age = 1 }", 7, false),
            (
                "[site.hpkp]\nmax_age = 1\nmode = 'enforce' # x",
                "[site.hpkp]\nmax_age = 1\nmode = \"withdraw\" # x",
                9,
                false,
            ),
            ("[site.hpkp]\r\nmax_age = 1\r\n", "[site.hpkp]\r\nmode = \"withdraw\"\r\nmax_age = 1\r\n", 8, true),
        ] {
            assert_eq!(of(&sites(before)), Ok(Withdrawal { text: sites(after), line, is_new }), "{before}");
        }
        for before in ["", "[site.hpkp]\nmode = \"withdraw\"", "hpkp = {}"] {
            assert!(of(&sites(before)).is_err(), "{before}");
        }
        assert!(of("").is_err() && of("site = 1").is_err() && of("[[site]]\nhosts = 1").is_err());
    }
}
