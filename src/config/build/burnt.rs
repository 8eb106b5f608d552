//! Keys that the ledger marks as burnt: they were compromised, never serve again, and are no backups.

use super::entry::{SiteEntry, timestamp};
use super::loaded::LoadedCertificate;
use crate::config::CheckContext;
use crate::config::file::SiteTable;
use crate::ledger::Burnt;
use crate::reason::{Kind, Problem, Reason, shell_word};

/// Returns the problems of pairs with a burnt key, each with the index of the pair. `is_served` says
/// whether the same key serves already: a refusal would then help nobody.
pub(super) fn live(
    table: &SiteTable,
    entry: &SiteEntry,
    context: &CheckContext<'_>,
    is_served: impl Fn(&LoadedCertificate) -> bool,
) -> Vec<(usize, Problem)> {
    let problem = |loaded: &LoadedCertificate| {
        let burnt = context.book.burnt(loaded.chain.pin())?;
        let certificate = table.certificates.get(loaded.at).and_then(|c| c.chain.as_ref());
        let span = certificate.map_or(&table.span, |c| &c.span);
        let reason = Reason::new(format!("{}: {}", context.shown(&loaded.path), compromised(burnt)));
        let site = entry.site.label();
        let problem = if is_served(loaded) || context.book.serves_burnt(&site, loaded.chain.pin()) {
            let note = "the certificate in use has this key, too, so pintle still serves it";
            Problem::warning(span, reason.note(note).hint(change_over(entry)))
        } else {
            Problem::error(span, reason.hint(change_over(entry))).of_kind(Kind::BurntKey)
        };
        Some((loaded.at, problem.about(&loaded.path)))
    };
    entry.plan.loaded.iter().filter_map(problem).collect()
}

/// Returns the problem of a burnt backup, if there is one.
pub(super) fn backup(table: &SiteTable, entry: &SiteEntry, context: &CheckContext<'_>) -> Option<Problem> {
    // Without pins that are sent, no backup is promised.
    entry.pledge.as_ref()?;
    let backups = entry.plan.pins.iter().flat_map(|pins| &pins.backups);
    let (file, burnt) = backups.filter_map(|b| Some((&b.file, context.book.burnt(b.key.pin)?))).next()?;
    let span = table.hpkp.as_ref().map_or(&table.span, |hpkp| &hpkp.span);
    let reason = Reason::new(format!("site.hpkp.backups: {file}: {}", compromised(burnt)));
    let hint = format!("make another backup: pintle key new --site {} --role next", shell_word(&entry.site.label()));
    Some(Problem::error(span, reason.hint(hint)).of_kind(Kind::BurntKey))
}

fn compromised(burnt: &Burnt) -> String {
    format!("the key {} is burnt: it was revoked as compromised on {}", burnt.pin, timestamp(burnt.at))
}

fn change_over(entry: &SiteEntry) -> String {
    let site = shell_word(&entry.site.label());
    format!("change over to another key: `pintle key list --site {site}` shows which keys clients know")
}
