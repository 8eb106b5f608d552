//! Drivers of network devices that have broken edges, with their sources.
//!
//! An entry alone is no finding: it needs its version, or its counter. A healthy host has many of these drivers.

/// The condition under which an entry applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The module is older than this version, on EC2.
    OlderOnEc2([u32; 3]),
    /// A transmit queue has timed out.
    QueueTimeout,
    /// Frames are being lost: one of these counters rises.
    Rises(&'static [&'static str]),
}

/// A driver.
#[derive(Debug)]
pub(super) struct NicDriver {
    /// The names of the driver, as sysfs has them.
    pub(super) names: &'static [&'static str],
    /// The condition under which it applies.
    pub(super) when: When,
    /// The symptom, as people reported it.
    pub(super) symptom: &'static str,
    /// The remedy; `DEV` is the device.
    pub(super) remedy: &'static str,
    /// Its commands; `DEV` is the device.
    pub(super) run: &'static [&'static str],
    /// The reports.
    pub(super) source: &'static str,
}

/// The counters of lost frames on the way out.
const LOST_OUT: &[&str] = &["tx_dropped", "tx_errors"];
/// The counters of lost frames on the way in.
const LOST_IN: &[&str] = &["rx_missed_errors", "rx_fifo_errors", "rx_errors"];
const OFFLOADS_OFF: &[&str] = &["ethtool -K DEV tso off gso off"];

/// The known drivers.
pub(super) const DRIVERS: &[NicDriver] = &[
    NicDriver {
        names: &["ixgbevf"],
        when: When::OlderOnEc2([2, 14, 2]),
        symptom: "the flow logs of EC2 show packets that the guest never counts; RHEL 6.8 and 7.2 had 2.12",
        remedy: "install Intel's ixgbevf 2.14.2 or later, or a newer kernel, and reboot",
        run: &[],
        source: "AWS minimum, by berkeley-stat/bce#75; Red Hat solution 2740491",
    },
    NicDriver {
        names: &["ena"],
        when: When::QueueTimeout,
        symptom: "\"Found a Tx that wasn't completed on time\", then a reset of the device and seconds of silence",
        remedy: "update the ena driver or the kernel, and reboot; look for starved processors",
        run: &[],
        source: "amzn-drivers#27, #134, #163, #220, #259",
    },
    NicDriver {
        names: &["xen_netfront", "vif", "xennet"],
        when: When::Rises(LOST_OUT),
        symptom: "\"skb rides the rocket\": large responses stall",
        remedy: "switch the offloads off",
        run: OFFLOADS_OFF,
        source: "craftycode.co.za 2014-06-27",
    },
    NicDriver {
        names: &["e1000e"],
        when: When::QueueTimeout,
        symptom: "\"Detected Hardware Unit Hang\" (I219, 82579)",
        remedy: "switch the offloads off",
        run: OFFLOADS_OFF,
        source: "incus-os#849, harvester#8887",
    },
    NicDriver {
        names: &["r8169"],
        when: When::QueueTimeout,
        symptom: "\"transmit queue 0 timed out\" (RTL8168h; ASPM)",
        remedy: "switch the transmit offloads off; if it stays, boot with pcie_aspm=off",
        run: &["ethtool -K DEV tx off"],
        source: "home-assistant/operating-system#5019, openwrt#13248",
    },
    NicDriver {
        names: &["igc"],
        when: When::QueueTimeout,
        symptom: "timeouts, resets and link flaps (I225-V)",
        remedy: "update the kernel, and reboot",
        run: &[],
        source: "RROrg/rr#33782, xcp-ng#535",
    },
    NicDriver {
        names: &["bnxt_en"],
        when: When::QueueTimeout,
        symptom: "IOMMU faults, a firmware reset, a lost port (BCM57414)",
        remedy: "update the card's firmware, and reboot",
        run: &[],
        source: "tailscale#20806",
    },
    NicDriver {
        names: &["hv_netvsc"],
        when: When::Rises(LOST_OUT),
        symptom: "random loss, tx_send_full and rx_comp_busy rise (RHEL 7.5, 4.14.44)",
        remedy: "update the kernel, and reboot",
        run: &[],
        source: "azure-linux-kernel#36, #42; coreos/bugs#2454",
    },
    NicDriver {
        names: &["mlx4_core", "mlx4_en", "mlx5_core"],
        when: When::Rises(LOST_IN),
        symptom: "a virtual function leaves and returns at host servicing; \"hw csum failure\" with some firmware",
        remedy: "update the card's firmware; switch the receive checksums off until then",
        run: &["ethtool -K DEV rx off"],
        source: "lis-next#556, azure-docs#100444, immortalwrt#2175, libreswan#993",
    },
    NicDriver {
        names: &["vmxnet3"],
        when: When::Rises(LOST_IN),
        symptom: "the receive ring runs out, or drops above the MTU with LRO",
        remedy: "make the ring larger, and switch LRO off if this host forwards",
        run: &["ethtool -G DEV rx 4096", "ethtool -K DEV lro off"],
        source: "Broadcom KB 312565; Cisco 217375",
    },
    NicDriver {
        names: &["virtio_net"],
        when: When::Rises(LOST_OUT),
        symptom: "the next hop drops packets with bad checksums (host kernel 6.17; old offloads)",
        remedy: "switch the offloads off",
        run: &["ethtool -K DEV tx off tso off gso off"],
        source: "cloud-hypervisor#7447, opnsense/core#544",
    },
];
