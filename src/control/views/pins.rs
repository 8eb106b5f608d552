//! The pins of a site for the clients that enforce them: the exports of `pintle export`, to look at. They are no promises.

use clap::ValueEnum as _;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::json;

use crate::control::Control;
use crate::control::admin::{Answered, PageRefusal, PinsQuestion};
use crate::control::own_keys::{next_keys, with_own_keys};
use crate::control::pin_set::{self, WantedExport, backup, find};
use crate::export::ExportForm;
use crate::keys::key_file::FILE_MAX;
use crate::os::{plain_file, read_error};

impl Control {
    /// The text of the export, with its warnings.
    pub(super) fn exported_pins(&self, asked: &PinsQuestion) -> Answered {
        let (site, report) = find(&self.config, &asked.host).ok_or_else(|| PageRefusal::no_site(&asked.host))?;
        let mut warnings = Vec::new();
        let made = with_own_keys(report.clone(), &self.config, site, &mut warnings).and_then(|live| {
            let read = |file: &std::path::PathBuf| {
                let contents = plain_file::read(file, FILE_MAX).map_err(|error| read_error::reason(file, &error))?;
                backup(file, &contents)
            };
            let backups = next_keys(&self.config, site, report)?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            let wanted =
                WantedExport { host: asked.host.clone(), form: asked.form, life: None, backups, without_backup: false };
            let now = Timestamp::now();
            pin_set::collect(&wanted, self.draft.path(), (site, &live), &self.config, now, &mut warnings)
        });
        let refused = |reason| PageRefusal::new(StatusCode::CONFLICT, "refused", reason);
        let set = made.map_err(refused)?;
        let text = pin_set::text(asked.form, &set).map_err(refused)?;
        let warnings = warnings.iter().map(|reason| json!({ "what": reason.line(), "hints": reason.hints }));
        let forms = ExportForm::value_variants().iter().map(|form| form.name());
        Ok(json!({
            "site": set.site, "form": asked.form.name(), "text": text, "number": set.number(asked.form),
            "valid_until": set.valid_until.to_string(), "warnings": warnings.collect::<Vec<_>>(),
            "forms": forms.collect::<Vec<_>>(),
        }))
    }
}
