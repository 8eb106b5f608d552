//! Links, neighbours and next hops, as values.

use std::fmt;
use std::net::IpAddr;

/// A hardware address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub Vec<u8>);

impl Mac {
    /// Reads `02:00:00:00:00:01`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<u8>>>().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&bytes.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The state of a neighbour's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryState {
    /// The kernel asks for the hardware address.
    Incomplete,
    /// Confirmed a short time ago.
    Reachable,
    /// Not confirmed lately.
    Stale,
    /// Used while stale; a probe follows.
    Delay,
    /// Asked directly.
    Probe,
    /// Nobody answered.
    Failed,
    /// Needs no answer, such as a multicast address.
    NoArp,
    /// Set by hand.
    Permanent,
    /// Anything else.
    Other,
}

impl EntryState {
    /// Returns the word that `ip neigh` prints.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Incomplete => "INCOMPLETE",
            Self::Reachable => "REACHABLE",
            Self::Stale => "STALE",
            Self::Delay => "DELAY",
            Self::Probe => "PROBE",
            Self::Failed => "FAILED",
            Self::NoArp => "NOARP",
            Self::Permanent => "PERMANENT",
            Self::Other => "NONE",
        }
    }
}

/// A neighbour's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// The name of the link.
    pub link: String,
    /// Its hardware address, if known.
    pub mac: Option<Mac>,
    /// Its state.
    pub state: EntryState,
    /// Seconds since the last confirmation, if the kernel says so.
    pub confirmed: Option<u64>,
    /// Probes without an answer.
    pub probes: u32,
}

impl Neighbour {
    /// Returns the line that `ip neigh` prints, nearly.
    #[must_use]
    pub fn line(&self) -> String {
        let mac = self.mac.as_ref().map(|mac| format!(" lladdr {mac}")).unwrap_or_default();
        let confirmed = self.confirmed.map(|ago| format!(", confirmed {ago} s ago")).unwrap_or_default();
        let probes = if self.probes > 0 { format!(", probes {}", self.probes) } else { String::new() };
        format!("{} dev {}{mac} {}{confirmed}{probes}", self.address, self.link, self.state.word())
    }
}

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The address.
    pub to: IpAddr,
    /// The gateway; `None` if the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The name of the link.
    pub link: String,
}

impl Route {
    /// Returns the address that the frames go to.
    #[must_use]
    pub fn next_hop(&self) -> IpAddr {
        self.gateway.unwrap_or(self.to)
    }
}

/// The network of the host, as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The entries of neighbours.
    pub neighbours: Vec<Neighbour>,
    /// The ways to the upstreams' addresses.
    pub routes: Vec<Route>,
}

impl Network {
    /// Returns the entry of an address on a link.
    #[must_use]
    pub fn neighbour(&self, address: IpAddr, link: &str) -> Option<&Neighbour> {
        self.neighbours.iter().find(|n| n.address == address && n.link == link)
    }
}
