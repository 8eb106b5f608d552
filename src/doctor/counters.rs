//! Counters of the host. Most count since the boot, so that only their rise tells something about now.

use std::collections::BTreeMap;

use super::files::HostFiles;

/// The counters of a network device that point at lost frames.
pub const OF_DEVICE: [&str; 10] = [
    "rx_packets",
    "tx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_missed_errors",
    "rx_fifo_errors",
    "rx_crc_errors",
    "tx_dropped",
    "tx_errors",
    "carrier_changes",
];

/// Counters by their names: `TcpExt.ListenDrops`, `conntrack.drop`, `eth0.rx_dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelCounters(pub BTreeMap<String, u64>);

impl KernelCounters {
    /// Reads all counters.
    #[must_use]
    pub fn read(files: &HostFiles) -> Self {
        let mut all = BTreeMap::new();
        for path in ["/proc/net/netstat", "/proc/net/snmp"] {
            pairs(&files.text(path).unwrap_or_default(), &mut all);
        }
        conntrack(&files.text("/proc/net/stat/nf_conntrack").unwrap_or_default(), &mut all);
        for device in files.names("/sys/class/net") {
            for counter in OF_DEVICE {
                let folder = if counter == "carrier_changes" { "" } else { "statistics/" };
                if let Some(value) = files.number(&format!("/sys/class/net/{device}/{folder}{counter}")) {
                    all.insert(format!("{device}.{counter}"), value);
                }
            }
        }
        Self(all)
    }

    /// Returns a counter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Returns the rise of a counter since an earlier reading.
    #[must_use]
    pub fn rise(&self, since: &Self, name: &str) -> u64 {
        match (self.get(name), since.get(name)) {
            (Some(now), Some(before)) => now.saturating_sub(before),
            _ => 0,
        }
    }
}

/// Returns `true` if a count is at least this part of its bound, in percent.
#[must_use]
pub fn is_full(count: u64, max: u64, percent: u64) -> bool {
    count.saturating_mul(100) >= max.saturating_mul(percent)
}

/// Reads lines in pairs: names, then numbers.
fn pairs(text: &str, all: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (mut names, mut values) = (names.split_whitespace(), values.split_whitespace());
        let (Some(group), Some(same)) = (names.next(), values.next()) else { continue };
        if group == same {
            let group = group.trim_end_matches(':');
            let numbers =
                names.zip(values).filter_map(|(name, value)| Some((format!("{group}.{name}"), value.parse().ok()?)));
            all.extend(numbers);
        }
    }
}

/// Reads hexadecimal numbers, a line for each processor.
fn conntrack(text: &str, all: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            if let Ok(value) = u64::from_str_radix(value, 16) {
                let sum = all.entry(format!("conntrack.{name}")).or_default();
                *sum = sum.saturating_add(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn parts_of_a_bound() {
        for (count, max, percent, want) in [
            (74, 100, 75, false),
            (75, 100, 75, true),
            (3, 4, 75, true),
            (0, 0, 75, true),
            (u64::MAX, u64::MAX, 75, true),
        ] {
            assert_eq!(is_full(count, max, percent), want, "{count} {max}");
        }
    }

    #[test]
    fn counters_are_read_from_all_their_files() {
        let (_folder, files) = tree(&[
            (
                "/proc/net/netstat",
                "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 3 7\nIpExt: InOctets\nIpExt: 9\nodd",
            ),
            (
                "/proc/net/stat/nf_conntrack",
                "entries drop early_drop\n0000000a 00000001 0000000f\n0000000a 00000002 00000000\n",
            ),
            ("/sys/class/net/eth0/statistics/rx_dropped", "5\n"),
            ("/sys/class/net/eth0/carrier_changes", "2\n"),
        ]);
        let now = KernelCounters::read(&files);
        for (name, value) in [
            ("TcpExt.ListenOverflows", 7),
            ("IpExt.InOctets", 9),
            ("conntrack.drop", 3),
            ("conntrack.early_drop", 15),
            ("eth0.rx_dropped", 5),
            ("eth0.carrier_changes", 2),
        ] {
            assert_eq!(now.get(name), Some(value), "{name}");
        }
        let before = KernelCounters([("conntrack.drop".to_owned(), 1), ("eth0.rx_dropped".to_owned(), 9)].into());
        assert_eq!(now.rise(&before, "conntrack.drop"), 2);
        assert_eq!(now.rise(&before, "eth0.rx_dropped"), 0, "a device that was replaced");
        assert_eq!(now.rise(&before, "TcpExt.ListenOverflows"), 0, "unknown before");
    }
}
