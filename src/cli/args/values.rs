//! The values of arguments.

use std::time::Duration;

use http::Method;

use crate::policy::Scheme;
use crate::verify::target::Url;

/// Reads a time as the configuration file writes it.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::config::value::duration(text).ok_or_else(|| format!("not {}", crate::config::value::DURATION_FORM))
}

/// Reads seconds, or a time as the configuration file writes it.
pub(super) fn parse_pause(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".to_owned()),
        Err(_) => parse_duration(text),
    }
}

/// Reads a method.
pub(super) fn parse_method(text: &str) -> Result<String, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) => Ok(method.to_string()),
        Err(_) => Err("a method has letters, digits and hyphens only, such as GET".into()),
    }
}

/// Reads an https URL.
pub(super) fn parse_https_url(text: &str) -> Result<Url, String> {
    let url = parse_url(text)?;
    if url.scheme == Scheme::Https { Ok(url) } else { Err("write the https URL: plain HTTP is checked, too".into()) }
}

/// Reads a URL; the scheme is https unless the text names it.
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    if text.contains("://") { text.parse() } else { format!("https://{text}").parse() }
}

/// The text of a URL; the scheme is https unless the text names it.
pub(super) fn parse_url_text(text: &str) -> Result<String, String> {
    parse_url(text).map(|url| url.to_string())
}

/// Reads a field as curl does: `Name: value`.
pub(super) fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("not a field: write 'Name: value'")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Reads a date, and keeps its text.
pub(super) fn parse_date(text: &str) -> Result<String, String> {
    let date = text.parse::<jiff::civil::Date>().ok().map(|date| date.to_string());
    date.filter(|date| date == text).ok_or_else(|| "not a date like 2027-01-31".to_owned())
}
