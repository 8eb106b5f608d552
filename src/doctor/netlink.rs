//! Neighbours and routes, asked of the kernel by rtnetlink. No request needs root.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::netdevice::index_to_name;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily as Family, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};
use tokio::time::Instant;

use super::network::{EntryState, Mac, Neighbour, Network, Route};

/// Time limit for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest message: the kernel sends at most 32 KiB at once.
const MESSAGE_MAX: usize = 64 * 1024;
/// The most entries of a table.
const ENTRIES_MAX: usize = 100_000;
/// The group of changes of neighbours, RTNLGRP_NEIGH, as a bit.
const GROUP_NEIGHBOURS: u32 = 1 << 2;
/// The kernel counts ages in hundredths of a second.
const TICKS: u32 = 100;

/// Asks for all neighbours, and for the way to each address.
///
/// # Errors
///
/// If the kernel does not answer.
pub fn network(addresses: &[IpAddr]) -> io::Result<Network> {
    let socket = socket(0)?;
    let neighbours = neighbours(&socket)?;
    let mut routes = Vec::new();
    for address in addresses {
        // A kernel without a route answers with an error: the visit reports that better.
        routes.extend(route(&socket, *address)?);
    }
    Ok(Network { neighbours, routes })
}

/// A subscription to changes of neighbours.
#[derive(Debug)]
pub struct NeighbourChanges {
    socket: OwnedFd,
}

impl NeighbourChanges {
    /// Subscribes.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn subscribe() -> io::Result<Self> {
        Ok(Self { socket: socket(GROUP_NEIGHBOURS)? })
    }

    /// Waits for changes until `end`, and passes them on. At most one packet is in memory at a time.
    pub fn until(&self, end: Instant, mut each: impl FnMut(Neighbour)) {
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if set_socket_timeout(&self.socket, Timeout::Recv, Some(left)).is_err() {
                return;
            }
            // Too many changes at once are lost, which is an error that passes (ENOBUFS).
            let Ok(messages) = receive(&self.socket) else { continue };
            for message in messages {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) = message.payload
                    && let Some(neighbour) = neighbour(&self.socket, &entry)
                {
                    each(neighbour);
                }
            }
        }
    }
}

fn socket(groups: u32) -> io::Result<OwnedFd> {
    let protocol = None;
    let socket = socket_with(Family::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    sendto(socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

/// Receives the messages of one packet. Messages that cannot be understood are left out.
fn receive(socket: &OwnedFd) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let (_, length) = recv(socket, bytes.as_mut_slice(), RecvFlags::empty())?;
    let mut rest = bytes.get(..length).unwrap_or_default();
    let mut messages = Vec::new();
    while let Some(own) = length_of(rest).filter(|own| (16..=rest.len()).contains(own)) {
        messages.extend(NetlinkMessage::deserialize(&rest[..own]));
        // Messages begin at multiples of four.
        rest = rest.get(own.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

fn length_of(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    usize::try_from(u32::from_ne_bytes(length)).ok()
}

fn neighbours(socket: &OwnedFd) -> io::Result<Vec<Neighbour>> {
    send(socket, RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), NLM_F_DUMP)?;
    let mut found = Vec::new();
    while found.len() < ENTRIES_MAX {
        for message in receive(socket)? {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => {
                    found.extend(neighbour(socket, &entry));
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
    Ok(found)
}

fn neighbour(socket: &OwnedFd, entry: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let (mut mac, mut confirmed, mut probes) = (None, None, 0);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(Mac(bytes.clone())),
            NeighbourAttribute::CacheInfo(info) => confirmed = Some(u64::from(info.confirmed / TICKS)),
            NeighbourAttribute::Probes(count) => probes = *count,
            _ => {}
        }
    }
    let state = match entry.header.state {
        NeighbourState::Incomplete => EntryState::Incomplete,
        NeighbourState::Reachable => EntryState::Reachable,
        NeighbourState::Stale => EntryState::Stale,
        NeighbourState::Delay => EntryState::Delay,
        NeighbourState::Probe => EntryState::Probe,
        NeighbourState::Failed => EntryState::Failed,
        NeighbourState::Noarp => EntryState::NoArp,
        NeighbourState::Permanent => EntryState::Permanent,
        _ => EntryState::Other,
    };
    let link = index_to_name(socket, entry.header.ifindex).ok()?;
    Some(Neighbour { address: address?, link, mac, state, confirmed, probes })
}

/// Asks for the way to an address, as `ip route get` does. `None` if there is none, or it is this host.
fn route(socket: &OwnedFd, to: IpAddr) -> io::Result<Option<Route>> {
    let mut request = RouteMessage::default();
    let (family, length, address) = match to {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    request.attributes.push(RouteAttribute::Destination(address));
    send(socket, RouteNetlinkMessage::GetRoute(request), 0)?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        for message in receive(socket)? {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(found)) => {
                    return Ok(read_route(socket, to, &found));
                }
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(None),
                _ => {}
            }
        }
    }
    Ok(None)
}

fn read_route(socket: &OwnedFd, to: IpAddr, found: &RouteMessage) -> Option<Route> {
    let (mut gateway, mut link) = (None, None);
    for attribute in &found.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => link = index_to_name(socket, *index).ok(),
            _ => {}
        }
    }
    let link = link.filter(|link| link != "lo")?;
    Some(Route { to, gateway, link })
}
