//! Latencies of the running process for people: percentiles of the histograms in its state.

use serde_json::Value;

/// The latencies in the state, by their names there, with words for people.
const LATENCIES: [(&str, &str); 3] = [("first byte", "first_byte"), ("total", "total"), ("upstream", "upstream")];
/// The percentiles.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// Returns a row for each latency, since the state `before` or since the start.
pub(super) fn rows(status: &Value, before: Option<&Value>) -> Vec<String> {
    let all = &status["latencies"];
    let edges = numbers(&all["edges_ms"]);
    if edges.is_empty() {
        return Vec::new();
    }
    let row = |(label, name): (&str, &str)| {
        let mut counts = numbers(&all[name]);
        let earlier = before.map(|before| numbers(&before["latencies"][name])).unwrap_or_default();
        counts.iter_mut().zip(earlier).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        let parts: String =
            PERCENTILES.iter().map(|(word, part)| format!("  {word} {:>8}", shown(&counts, &edges, *part))).collect();
        format!("{label:<13}{parts}  of {}", counts.iter().sum::<u64>())
    };
    LATENCIES.into_iter().map(row).collect()
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// A percentile, spread evenly over its bucket as Prometheus does. In the first and the last bucket, its edge alone is known.
fn shown(counts: &[u64], edges: &[u64], part: f64) -> String {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return "-".to_owned();
    }
    let rank = part * total as f64;
    let mut below = 0;
    for (at, count) in counts.iter().enumerate() {
        let reached = below + count;
        if (reached as f64) < rank || *count == 0 {
            below = reached;
            continue;
        }
        let edge = edges.get(at).copied();
        return match (at.checked_sub(1).and_then(|at| edges.get(at)), edge) {
            (None, Some(edge)) => format!("<{}", time(edge as f64)),
            (Some(low), None) => format!(">{}", time(*low as f64)),
            (Some(low), Some(edge)) => {
                let within = (rank - below as f64) / *count as f64;
                time(*low as f64 + (edge - low) as f64 * within)
            }
            (None, None) => "-".to_owned(),
        };
    }
    "-".to_owned()
}

fn time(millis: f64) -> String {
    if millis >= 1000.0 { format!("{:.1}s", millis / 1000.0) } else { format!("{millis:.0}ms") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EDGES: [u64; 4] = [5, 10, 100, 2000];

    #[test]
    fn percentiles() {
        for (counts, part, want) in [
            ([0, 0, 0, 0, 0], 0.5, "-"),
            ([9, 0, 0, 0, 0], 0.99, "<5ms"),
            ([0, 10, 0, 0, 0], 0.5, "8ms"),
            ([5, 0, 5, 0, 0], 0.5, "<5ms"),
            ([5, 0, 5, 0, 0], 0.9, "82ms"),
            ([0, 0, 0, 1, 0], 0.99, "2.0s"),
            ([0, 0, 0, 0, 3], 0.5, ">2.0s"),
        ] {
            assert_eq!(shown(&counts, &EDGES, part), want, "{counts:?} {part}");
        }
    }

    #[test]
    fn rows_are_since_the_state_before() {
        let status = |slow: u64| {
            json!({ "latencies": {
            "edges_ms": EDGES, "first_byte": [7, 0, 0, 0, slow], "total": [0, 0, 0, 0, 0], "upstream": [1, 0, 0, 0, 0],
        } })
        };
        let shown = rows(&status(3), Some(&status(0)));
        assert_eq!(shown[0], "first byte     p50    >2.0s  p90    >2.0s  p99    >2.0s  of 3");
        assert!(shown[1].contains("p50        -") && shown[2].ends_with("of 0"), "{shown:?}");
        assert!(rows(&status(0), None)[2].contains("<5ms"));
        assert!(rows(&json!({}), None).is_empty());
    }
}
