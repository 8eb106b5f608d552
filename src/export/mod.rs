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

pub use form::{Form, WithoutBackup};
pub use set::{HTTPS, Issuer, Key, PinSet, Role};

/// Renders an export. `None` if the form can express none of the hosts.
#[must_use]
pub fn render(form: Form, set: &PinSet) -> Option<String> {
    set.named(form).next()?;
    Some(match form {
        Form::Header => servers::header(set),
        Form::Nginx => servers::nginx(set),
        Form::Vcl => servers::vcl(set),
        Form::Envoy => servers::envoy(set),
        Form::OkHttp => apps::okhttp(set),
        Form::Android => apps::android(set),
        Form::Ios => apps::ios(set),
        Form::TrustKit => apps::trustkit(set),
        Form::Curl => tools::curl(set),
        Form::Tlsa => tools::tlsa(set),
        Form::Dns => dns::zone(set),
        Form::CertSpotter => tools::certspotter(set),
        Form::SslMate => tools::sslmate(set),
        Form::Json => tools::json(set),
    })
}

#[cfg(test)]
mod tests;
