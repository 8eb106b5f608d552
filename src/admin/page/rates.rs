//! Rates and latencies of the last minutes, as numbers with sparklines, and as server-sent events.

use serde_json::{Value, json};

use super::spark::Spark;
use super::value::{count, figure, grouped, list};
use crate::admin::api::{Api, Call};
use crate::admin::asked::PageRequest;
use crate::admin::reply::Page;

/// The edge of the fastest bucket of latencies, in milliseconds: below it, nothing is known.
const FASTEST: f64 = 5.0;
/// The content type of server-sent events.
const EVENTS: &str = "text/event-stream";
/// The pause after which a browser asks again, in milliseconds.
const RETRY: u32 = 10_000;

/// A number of the traffic.
#[derive(Debug)]
pub(super) struct RateFigure {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) figure: String,
    pub(super) note: String,
    pub(super) spark: Option<Spark>,
}

/// The four numbers.
pub(super) fn figures(rates: &Value) -> Vec<RateFigure> {
    let points = list(rates, "points");
    let values =
        |key: &str| -> Vec<f64> { points.iter().map(|point| point[key].as_f64().unwrap_or_default()).collect() };
    let last = points.last();
    let note = || if points.is_empty() { "after ten seconds".to_owned() } else { "the drawing begins soon".to_owned() };
    let one = |name, label, key: &str, shown: &dyn Fn(f64) -> String| {
        let value = last.and_then(|point| point[key].as_f64());
        let figure = value.map_or_else(|| "–".to_owned(), shown);
        RateFigure { name, label, figure, note: note(), spark: Spark::of(&values(key)) }
    };
    let mut figures = vec![
        one("requests", "Requests", "requests", &|rate| format!("{} /s", figure(rate))),
        one("failed", "Failed (5xx)", "failed", &|share| format!("{} %", figure(share))),
        one("slowest", "First byte, p99", "first_byte_p99_ms", &latency),
        one("connections", "Open connections", "connections", &|count| figure(count)),
    ];
    if let (true, Some(figure)) = (rates["connections"].is_u64(), figures.last_mut()) {
        figure.figure = grouped(count(rates, "connections"));
    }
    figures
}

/// A latency; below the fastest bucket only its edge is known.
fn latency(ms: f64) -> String {
    if ms <= FASTEST { format!("< {FASTEST:.0} ms") } else { format!("{} ms", figure(ms)) }
}

/// The numbers as one server-sent event. The browser asks again after the pause: no connection stays open meanwhile.
pub async fn live(api: &impl Api, _: &PageRequest) -> Page {
    let answer = api.call(Call::get("/v1/rates")).await;
    let shown = figures(&answer.body);
    let shown = shown.iter().map(|one| {
        let spark = one.spark.as_ref().map(|spark| json!([spark.area, spark.line]));
        json!({ "name": one.name, "figure": one.figure, "spark": spark })
    });
    let data = Value::Array(shown.collect());
    let event = match answer.is_ok() {
        true => format!("retry: {RETRY}\nevent: rates\ndata: {data}\n\n"),
        false => format!("retry: {RETRY}\n\n"),
    };
    Page { kind: EVENTS, content: event.into(), ..Page::empty(answer.status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_their_units() {
        let point = |requests: f64, slowest: Option<f64>| json!({ "requests": requests, "failed": 0.02, "first_byte_p99_ms": slowest, "connections": 3 });
        let rates = json!({ "connections": 18_402, "points": [point(1.0, None), point(1283.9, Some(41.2))] });
        let shown: Vec<String> = figures(&rates).into_iter().map(|one| one.figure).collect();
        assert_eq!(shown, ["1,284 /s", "0.02 %", "41 ms", "18,402"]);
        let fast = json!({ "points": [point(1.0, Some(2.1))] });
        assert_eq!(figures(&fast)[2].figure, "< 5 ms");
        let none: Vec<String> = figures(&json!({})).into_iter().map(|one| one.figure).collect();
        assert_eq!(none, ["–", "–", "–", "–"]);
    }
}
