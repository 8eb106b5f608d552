//! A site's pins in the formats of the programs that enforce them: apps, curl, DANE, Envoy,
//! monitors, other servers.
//!
//! No I/O and no clock: a [`PinSet`] goes in, a text comes out. Every format with comments names
//! the export and its end, so that someone who finds it in an app's sources years later knows its
//! origin.

mod apps;
mod dns;
mod form;
mod servers;
mod set;
mod tools;

pub use form::{ExportForm, WithoutBackup};
pub use set::{HTTPS, Issuer, PinSet, Role, SiteKey};

/// Renders an export. `None` if the form can express none of the hosts.
#[must_use]
pub fn render(form: ExportForm, set: &PinSet) -> Option<String> {
    set.named(form).next()?;
    Some(match form {
        ExportForm::Header => servers::header(set),
        ExportForm::Nginx => servers::nginx(set),
        ExportForm::Vcl => servers::vcl(set),
        ExportForm::Envoy => servers::envoy(set),
        ExportForm::OkHttp => apps::okhttp(set),
        ExportForm::Android => apps::android(set),
        ExportForm::Ios => apps::ios(set),
        ExportForm::TrustKit => apps::trustkit(set),
        ExportForm::Curl => tools::curl(set),
        ExportForm::Tlsa => tools::tlsa(set),
        ExportForm::Dns => dns::zone(set),
        ExportForm::CertSpotter => tools::certspotter(set),
        ExportForm::SslMate => tools::sslmate(set),
        ExportForm::Json => tools::json(set),
    })
}

#[cfg(test)]
mod tests;
