//! Network devices: drivers known to lose packets, and counters of loss that rise.

use super::finding::{CheckResults, Finding};
use super::host::Host;
use super::neighbours::is_silent;
use super::nic_drivers::{DRIVERS, NicDriver, When};

/// Counters of lost frames, for devices of any driver.
const LOSSES: [&str; 5] = ["rx_errors", "rx_missed_errors", "rx_fifo_errors", "rx_crc_errors", "tx_errors"];
/// The part of lost frames that is too many, as one in this many.
const ONE_IN: u64 = 1000;
/// Changes of the carrier during one watch that are a pattern.
const FLAPS: u64 = 2;

/// Checks the network devices that have hardware, or a driver of a hypervisor.
#[must_use]
pub fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    for device in host.files.names("/sys/class/net") {
        if let Some(driver) = host.files.link_name(&format!("/sys/class/net/{device}/device/driver")) {
            results.findings.extend(of_device(host, &device, &driver));
        }
    }
    results
}

fn of_device(host: &Host, device: &str, driver: &str) -> Vec<Finding> {
    let version = host.files.word(&format!("/sys/module/{driver}/version"));
    let known = DRIVERS.iter().filter(|known| known.names.contains(&driver));
    let applying = known.filter_map(|known| Some((known, applies(host, device, known, version.as_deref())?)));
    let mut found: Vec<Finding> = applying
        .map(|(known, fact)| {
            let what = format!("{device}: the driver {driver} loses packets like this: {}", known.symptom);
            let run = known.run.iter().map(|line| line.replace("DEV", device));
            let version = version.clone().unwrap_or_else(|| kernel(host));
            let id = if matches!(known.when, When::OlderOnEc2(_)) { "nic.driver-version" } else { "nic.driver" };
            let finding = Finding::warning(id, device, what)
                .evidence(format!("/sys/class/net/{device}/device/driver: {driver}, version {version}"))
                .evidence(fact)
                .evidence(format!("source: {}", known.source));
            finding.remedy(known.remedy.replace("DEV", device), run)
        })
        .collect();
    if found.is_empty() {
        found.extend(timed_out(host, device).map(|fact| {
            Finding::warning("nic.queue-timeout", device, format!("{device}: a transmit queue has timed out"))
                .evidence(fact)
                .evidence(format!("driver {driver}"))
                .advice("update the kernel and the card's firmware; `dmesg -T` shows the time of each timeout")
        }));
        found.extend(losing(host, device, driver));
    }
    found.extend(flapping(host, device));
    found.extend(deaf(host, device, driver));
    found
}

/// The release of the kernel: most drivers of the kernel itself have no version.
fn kernel(host: &Host) -> String {
    let release = host.files.word("/proc/sys/kernel/osrelease");
    release.map_or_else(|| "unknown".to_owned(), |release| format!("of kernel {release}"))
}

/// Returns the fact that makes an entry apply.
fn applies(host: &Host, device: &str, known: &NicDriver, version: Option<&str>) -> Option<String> {
    match known.when {
        When::OlderOnEc2(least) => {
            let is = numbers(version?)?;
            let least_shown = least.map(|part| part.to_string()).join(".");
            (is < least && is_ec2(host)).then(|| format!("this is EC2, whose minimum is {least_shown}"))
        }
        When::QueueTimeout => timed_out(host, device),
        When::Rises(counters) => counters.iter().find_map(|counter| rises(host, device, counter)),
    }
}

/// The first three numbers of a version.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().ok());
    Some([parts.next()??, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)])
}

fn is_ec2(host: &Host) -> bool {
    let read = |path: &str| host.files.text(path).unwrap_or_default().to_ascii_lowercase();
    let vendors = ["sys_vendor", "board_vendor", "bios_vendor", "bios_version"];
    vendors.iter().any(|name| read(&format!("/sys/class/dmi/id/{name}")).contains("amazon"))
        || read("/sys/hypervisor/uuid").starts_with("ec2")
}

fn timed_out(host: &Host, device: &str) -> Option<String> {
    let folder = format!("/sys/class/net/{device}/queues");
    host.files.names(&folder).iter().filter(|queue| queue.starts_with("tx-")).find_map(|queue| {
        let count = host.files.number(&format!("{folder}/{queue}/tx_timeout")).filter(|count| *count > 0)?;
        Some(format!("{folder}/{queue}/tx_timeout: {count}"))
    })
}

/// Returns the rise of a counter, if it is not small beside the packets.
fn rises(host: &Host, device: &str, counter: &str) -> Option<String> {
    let rise = |name: &str| host.rise(&format!("{device}.{name}"));
    let lost = rise(counter);
    let is_much = lost > 0 && lost.saturating_mul(ONE_IN) >= rise("rx_packets");
    is_much.then(|| format!("{counter} rose by {lost} while pintle watched"))
}

fn losing(host: &Host, device: &str, driver: &str) -> Option<Finding> {
    let facts: Vec<String> = LOSSES.iter().filter_map(|counter| rises(host, device, counter)).collect();
    if facts.is_empty() {
        return None;
    }
    Some(
        Finding::warning("nic.loss", device, format!("{device} is losing frames"))
            .evidences(facts)
            .evidence(format!("driver {driver}"))
            .remedy(
                "see the counters of the card and the size of its rings",
                [
                    format!("ethtool -S {device} | grep -iE 'drop|err|miss|full' | grep -v ': 0$'"),
                    format!("ethtool -g {device}"),
                ],
            )
            .advice("missed and fifo errors: a larger receive ring helps; crc errors: cable, optics or port"),
    )
}

fn flapping(host: &Host, device: &str) -> Option<Finding> {
    let flaps = host.rise(&format!("{device}.carrier_changes"));
    (flaps >= FLAPS).then(|| {
        Finding::warning("nic.link-flaps", device, format!("{device}: the link goes down and up"))
            .evidence(format!("carrier_changes rose by {flaps} while pintle watched"))
            .advice("check cable, optics and the switch's port")
    })
}

/// Reports a device that sends to upstreams and receives no packet at all, while connections through it time out.
fn deaf(host: &Host, device: &str, driver: &str) -> Option<Finding> {
    let [sent, received] = ["tx_packets", "rx_packets"].map(|counter| format!("{device}.{counter}"));
    let all = host.after.get(&received)?;
    let routes = host.network.iter().flat_map(|network| &network.routes).filter(|route| route.link == device);
    let visits = routes.flat_map(|route| host.visits_at(route.to)).map(|(_, visit)| visit);
    if host.rise(&sent) == 0 || host.rise(&received) > 0 || !is_silent(visits) {
        return None;
    }
    Some(
        Finding::warning("nic.receives-nothing", device, format!("{device} sends packets and receives none"))
            .evidence(format!("rx_packets stood still at {all} while pintle watched"))
            .evidences(host.rose(&sent))
            .evidence("connections to the upstreams behind it time out")
            .evidence(format!("driver {driver}"))
            .remedy("see the counters of the card", [format!("ethtool -S {device} | grep -v ': 0$'")])
            .advice(
                "if the peer, the switch or the flow log of the cloud shows packets to this host, its driver loses \
                 them: update it, and reboot; otherwise, look at the next hop",
            ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::counters::KernelCounters;
    use super::super::files::tests::tree;
    use super::super::host::{Failed, UpstreamVisit, VisitStep, Visited};
    use super::super::network::{Network, Route};
    use super::*;

    fn ids(contents: &[(&str, &str)], rise: &[(&str, u64)]) -> Vec<&'static str> {
        let (_folder, files) = tree(contents);
        let counters = |factor: u64| {
            KernelCounters(rise.iter().map(|(name, by)| ((*name).to_owned(), 100 + by * factor)).collect())
        };
        let host = Host { before: counters(0), after: counters(1), ..Host::of_files(files) };
        check(&host).findings.iter().map(|finding| finding.id).collect()
    }

    fn driver(name: &str) -> (&'static str, String) {
        ("/sys/class/net/eth0/device/driver", format!("-> ../../bus/pci/drivers/{name}"))
    }

    #[test]
    fn ixgbevf_before_2_14_2_on_ec2() {
        let (path, ixgbevf) = driver("ixgbevf");
        let device = (path, ixgbevf.as_str());
        let ec2 = ("/sys/class/dmi/id/bios_version", "4.2.amazon\n");
        let nitro = ("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
        let xen = ("/sys/hypervisor/uuid", "ec2e1916-9099\n");
        let version = |version: &'static str| ("/sys/module/ixgbevf/version", version);
        for (contents, want) in [
            (vec![device, ec2, version("2.12.1-k\n")], true),
            (vec![device, nitro, version("2.14.1")], true),
            (vec![device, xen, version("2.7")], true),
            (vec![device, ec2, version("2.14.2")], false),
            (vec![device, ec2, version("4.1.0-k")], false),
            (vec![device, version("2.12.1-k")], false),
            (vec![device, ec2], false),
            (vec![device, ec2, version("odd")], false),
        ] {
            assert_eq!(ids(&contents, &[]), if want { vec!["nic.driver-version"] } else { vec![] }, "{contents:?}");
        }
    }

    #[test]
    fn each_driver_applies_by_its_symptom_only() {
        for known in DRIVERS {
            let (path, link) = driver(known.names[0]);
            assert_eq!(ids(&[(path, &link)], &[("eth0.rx_packets", 500)]), [""; 0], "{known:?}");
            let found = match known.when {
                When::OlderOnEc2(_) => continue,
                When::QueueTimeout => ids(&[(path, &link), ("/sys/class/net/eth0/queues/tx-1/tx_timeout", "2\n")], &[]),
                When::Rises(counters) => ids(&[(path, &link)], &[(&format!("eth0.{}", counters[0]), 9)]),
            };
            assert_eq!(found, ["nic.driver"], "{known:?}");
        }
    }

    #[test]
    fn a_device_that_receives_nothing() {
        let to: std::net::IpAddr = "192.0.2.80".parse().unwrap();
        let failed = |timed_out| Failed { step: VisitStep::Tcp, why: "why".into(), timed_out, no_route: false };
        for (sent, received, failed, link, want) in [
            (6, 0, Some(failed(true)), "eth0", true),
            (6, 1, Some(failed(true)), "eth0", false),
            (0, 0, Some(failed(true)), "eth0", false),
            (6, 0, Some(failed(false)), "eth0", false),
            (6, 0, None, "eth0", false),
            (6, 0, Some(failed(true)), "eth1", false),
        ] {
            let (path, other) = driver("other");
            let (_folder, files) = tree(&[(path, &other)]);
            let counters = |sent: u64, received: u64| {
                KernelCounters([("eth0.tx_packets".into(), 9 + sent), ("eth0.rx_packets".into(), 9 + received)].into())
            };
            let visit = UpstreamVisit { address: Some((to, 443).into()), failed, ..UpstreamVisit::default() };
            let host = Host {
                before: counters(0, 0),
                after: counters(sent, received),
                network: Ok(Network {
                    neighbours: Vec::new(),
                    routes: vec![Route { to, gateway: None, link: link.into() }],
                }),
                visited: vec![Visited { visits: vec![visit], ..Visited::default() }],
                ..Host::of_files(files)
            };
            let found: Vec<&str> = check(&host).findings.iter().map(|finding| finding.id).collect();
            assert_eq!(found, if want { vec!["nic.receives-nothing"] } else { vec![] }, "{sent} {received} {link}");
        }
    }

    #[test]
    fn unknown_drivers_that_lose_frames() {
        let (path, link) = driver("other");
        let queue = ("/sys/class/net/eth0/queues/tx-0/tx_timeout", "1");
        assert_eq!(ids(&[(path, &link), queue], &[]), ["nic.queue-timeout"]);
        assert_eq!(ids(&[(path, &link)], &[("eth0.rx_crc_errors", 3), ("eth0.rx_packets", 100)]), ["nic.loss"]);
        assert_eq!(ids(&[(path, &link)], &[("eth0.rx_crc_errors", 3), ("eth0.rx_packets", 100_000)]), [""; 0]);
        assert_eq!(ids(&[(path, &link)], &[("eth0.carrier_changes", 2)]), ["nic.link-flaps"]);
        // A device without hardware, such as a bridge.
        assert_eq!(ids(&[("/sys/class/net/br0/ifindex", "1")], &[("br0.rx_errors", 3)]), [""; 0]);
    }
}
