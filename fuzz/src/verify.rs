//! The parsers of `pintle verify` for strangers' bytes.

use pintle::verify::field::PolicyField;
use pintle::verify::grammar::read;
use pintle::verify::hello::{ANSWER_MAX, read_answer};
use pintle::verify::page::scan;

/// A value of Strict-Transport-Security or Public-Key-Pins: a semicolon at the end changes nothing in the one, and voids
/// the other.
pub fn policy_field(data: &[u8]) {
    for field in [PolicyField::Sts, PolicyField::Pkp, PolicyField::PkpReportOnly] {
        let reading = read(field, data);
        for fault in &reading.faults {
            let _ = fault.finding(field);
        }
        assert!(reading.pins.len() <= reading.meant_pins.len() && reading.meant_pins.len() <= reading.pin_directives);
        if reading.is_valid() {
            assert!(reading.max_age.is_some() || field == PolicyField::PkpReportOnly);
            let longer = read(field, &[data, b";"].concat());
            assert_eq!(longer.is_valid(), field == PolicyField::Sts);
            assert_eq!((longer.max_age, longer.pins), (reading.max_age, reading.pins));
        }
    }
}

/// The answer to a ClientHello: what is an answer stays the same, whatever follows.
pub fn server_hello(data: &[u8]) {
    let data = data.get(..ANSWER_MAX - 1).unwrap_or(data);
    let whole = read_answer(data);
    for cut in 0..data.len().min(128) {
        if let Some(answer) = read_answer(&data[..cut]) {
            assert_eq!(Some(answer), whole, "after {cut} bytes");
        }
    }
}

/// A page.
pub fn page(data: &[u8]) {
    let page = scan(data);
    assert!(page.insecure.len() <= page.count);
    let lines = data.iter().filter(|b| **b == b'\n').count() + 1;
    for insecure in &page.insecure {
        assert!((1..=lines).contains(&insecure.line), "{insecure:?}");
        assert!(!insecure.url.contains(char::is_control) && !insecure.element.contains(char::is_control));
    }
}
