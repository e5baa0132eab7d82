//! The kernel's interfaces, addresses and neighbours, by netlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use herald_model::{IfIndex, InterfaceName, MacAddress};
use herald_speaker_core::{Cache, Input, Link};
use ipnet::IpNet;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{
    Handle, MulticastGroup, NeighbourAddRequest, RouteMessageBuilder, new_connection,
    new_multicast_connection,
};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use super::layer2;

/// Between two attempts to follow the kernel.
const RETRY: Duration = Duration::from_secs(1);

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] std::io::Error),
    /// A request was refused.
    #[error("the kernel refused a netlink request")]
    Request(#[from] rtnetlink::Error),
    /// Events were lost, or the socket was closed.
    #[error("netlink events were lost")]
    Lost,
}

/// Follows interfaces and addresses for ever. Lost events lead to a new look at everything.
pub(crate) async fn follow(inputs: UnboundedSender<Input>, layer2: Arc<layer2::Handle>) {
    let mut known = Known::default();
    loop {
        let error = match follow_once(&mut known, &inputs, &layer2).await {
            Ok(()) => return,
            Err(error) => error,
        };
        warn!(
            error = &error as &dyn std::error::Error,
            "looking at all interfaces anew"
        );
        tokio::time::sleep(RETRY).await;
    }
}

/// What the core was told of.
#[derive(Debug, Default)]
struct Known {
    links: BTreeSet<IfIndex>,
    addresses: BTreeSet<(IfIndex, IpNet)>,
    synced: bool,
}

/// Returns when nobody listens any more.
async fn follow_once(
    known: &mut Known,
    inputs: &UnboundedSender<Input>,
    layer2: &layer2::Handle,
) -> Result<(), NetlinkError> {
    // The subscription comes first: what changes while the lists are read is seen twice.
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut events) =
        new_multicast_connection(&groups).map_err(NetlinkError::Open)?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    list(known, &handle, inputs).await?;
    tell_gateways(&handle, inputs, layer2).await?;
    while let Some((message, _)) = events.next().await {
        let message = match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => return Err(NetlinkError::Lost),
            _other => continue,
        };
        if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) =
            &message
        {
            // Nodes have routes by the thousand that come and go, and few default ones.
            if route.header.destination_prefix_length == 0 {
                tell_gateways(&handle, inputs, layer2).await?;
            }
            continue;
        }
        let Some(input) = input(message) else {
            continue;
        };
        known.note(&input);
        if inputs.send(input).is_err() {
            return Ok(());
        }
    }
    Err(NetlinkError::Lost)
}

/// Tells everything there is, and what is gone since the last time.
async fn list(
    known: &mut Known,
    handle: &Handle,
    inputs: &UnboundedSender<Input>,
) -> Result<(), NetlinkError> {
    let mut now = Known::default();
    let mut found = Vec::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        found.extend(input(RouteNetlinkMessage::NewLink(link)));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(address) = addresses.try_next().await? {
        found.extend(input(RouteNetlinkMessage::NewAddress(address)));
    }
    if !known.synced {
        let mut neighbours = handle.neighbours().get().execute();
        while let Some(neighbour) = neighbours.try_next().await? {
            found.extend(neighbour_found(&neighbour));
        }
    }
    for input in &found {
        now.note(input);
    }
    for index in known.links.difference(&now.links) {
        found.push(Input::LinkRemoved(*index));
    }
    for (interface, address) in known.addresses.difference(&now.addresses) {
        found.push(Input::AddressRemoved {
            interface: *interface,
            address: *address,
        });
    }
    if !known.synced {
        found.push(Input::Synced(Cache::Links));
    }
    now.synced = true;
    *known = now;
    for input in found {
        if inputs.send(input).is_err() {
            debug!("nobody listens to netlink any more");
        }
    }
    Ok(())
}

/// Tells whom it concerns of the routers there are: the rings have one of an interface for a witness.
async fn tell_gateways(
    handle: &Handle,
    inputs: &UnboundedSender<Input>,
    layer2: &layer2::Handle,
) -> Result<(), NetlinkError> {
    let gateways = gateways(handle).await?;
    let first = gateways
        .iter()
        .filter_map(|(interface, all)| Some((*interface, *all.first()?)));
    layer2.set_gateways(first.collect());
    if inputs.send(Input::GatewaysKnown(gateways)).is_err() {
        debug!("nobody listens to netlink any more");
    }
    Ok(())
}

/// The next hops of the default routes of each interface, IPv4 before IPv6.
async fn gateways(handle: &Handle) -> Result<BTreeMap<IfIndex, Vec<IpAddr>>, NetlinkError> {
    let mut found = BTreeMap::new();
    for request in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let mut routes = handle.route().get(request).execute();
        while let Some(route) = routes.try_next().await? {
            if route.header.destination_prefix_length == 0 {
                next_hops(&route, &mut found);
            }
        }
    }
    Ok(found)
}

/// Adds the next hops of a route, each to its interface's.
fn next_hops(route: &RouteMessage, found: &mut BTreeMap<IfIndex, Vec<IpAddr>>) {
    let gateway = |attributes: &[RouteAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _other => None,
        })
    };
    let mut add = |interface, gateway: Option<IpAddr>| {
        if let Some(gateway) = gateway {
            let known: &mut Vec<IpAddr> = found.entry(IfIndex(interface)).or_default();
            if !known.contains(&gateway) {
                known.push(gateway);
            }
        }
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => add(*interface, gateway(&route.attributes)),
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    add(hop.interface_index, gateway(&hop.attributes));
                }
            }
            _other => {}
        }
    }
}

impl Known {
    fn note(&mut self, input: &Input) {
        match input {
            Input::LinkApplied(link) => {
                self.links.insert(link.index);
            }
            Input::LinkRemoved(index) => {
                self.links.remove(index);
                self.addresses.retain(|(interface, _)| interface != index);
            }
            Input::AddressAdded { interface, address } => {
                self.addresses.insert((*interface, *address));
            }
            Input::AddressRemoved { interface, address } => {
                self.addresses.remove(&(*interface, *address));
            }
            _not_from_here => {}
        }
    }
}

fn input(message: RouteNetlinkMessage) -> Option<Input> {
    match message {
        RouteNetlinkMessage::NewLink(link) => link_applied(&link).map(Input::LinkApplied),
        RouteNetlinkMessage::DelLink(link) if !is_about_a_port(&link) => {
            Some(Input::LinkRemoved(IfIndex(link.header.index)))
        }
        RouteNetlinkMessage::NewAddress(message) => {
            address(&message).map(|(interface, address)| Input::AddressAdded { interface, address })
        }
        RouteNetlinkMessage::DelAddress(message) => address(&message)
            .map(|(interface, address)| Input::AddressRemoved { interface, address }),
        _other => None,
    }
}

/// Messages of the bridge family speak of ports: one that is no longer a bridge's is still an interface.
fn is_about_a_port(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Bridge
}

fn link_applied(message: &LinkMessage) -> Option<Link> {
    if is_about_a_port(message) {
        return None;
    }
    let name = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(InterfaceName::from(name.as_str())),
            _other => None,
        })?;
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => mac(bytes),
            _other => None,
        });
    let flags = message.header.flags;
    let up = flags.contains(LinkFlags::Up);
    Some(Link {
        index: IfIndex(message.header.index),
        name,
        mac: mac.filter(|_| message.header.link_layer_type == LinkLayerType::Ether),
        carrier: up && flags.contains(LinkFlags::LowerUp),
        up,
    })
}

/// The address and its prefix length. `Local` is the own one where the interface has a peer.
fn address(message: &AddressMessage) -> Option<(IfIndex, IpNet)> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => {
                found = Some(*address);
                break;
            }
            AddressAttribute::Address(address) => found = Some(*address),
            _other => {}
        }
    }
    let prefix = IpNet::new(found?, message.header.prefix_len).ok()?;
    Some((IfIndex(message.header.index), prefix))
}

fn neighbour_found(message: &NeighbourMessage) -> Option<Input> {
    let (mut destination, mut link_layer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                destination = Some(IpAddr::V6(*address));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = mac(bytes),
            _other => {}
        }
    }
    Some(Input::NeighbourFound {
        interface: IfIndex(message.header.ifindex),
        address: destination?,
        mac: link_layer?,
    })
}

fn mac(bytes: &[u8]) -> Option<MacAddress> {
    bytes.try_into().ok().map(MacAddress)
}

/// Writes neighbour entries.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours(Handle);

impl Neighbours {
    /// Opens a netlink socket of its own.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _events) = new_connection().map_err(NetlinkError::Open)?;
        drop(tokio::spawn(connection));
        Ok(Self(handle))
    }

    /// Has an entry that the kernel takes to be confirmed just now and does not throw away.
    ///
    /// It is not a permanent one, which nothing but its owner can change: when this speaker is killed,
    /// the kernel learns from the next holder's announcements where replies of our own pods go from
    /// then on. The price is that it has to be confirmed again and again: the kernel trusts an entry
    /// for 15 s at least (half of `base_reachable_time_ms`).
    pub(crate) async fn set(
        &self,
        interface: IfIndex,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        self.replace(interface, address, |request| {
            request
                .state(NeighbourState::Reachable)
                .flags(NeighbourFlags::ExtLearned)
                .link_layer_address(&mac.0)
        })
        .await
    }

    /// Has an entry that the kernel keeps as long as it is used, and asks for before long.
    pub(crate) async fn leave(
        &self,
        interface: IfIndex,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        self.replace(interface, address, |request| {
            request
                .state(NeighbourState::Stale)
                .link_layer_address(&mac.0)
        })
        .await
    }

    async fn replace(
        &self,
        interface: IfIndex,
        address: IpAddr,
        with: impl FnOnce(NeighbourAddRequest) -> NeighbourAddRequest,
    ) -> Result<(), NetlinkError> {
        let request = self.0.neighbours().add(interface.0, address);
        Ok(with(request).replace().execute().await?)
    }

    /// Has no entry. One that is not there is no error.
    pub(crate) async fn remove(
        &self,
        interface: IfIndex,
        address: IpAddr,
    ) -> Result<(), NetlinkError> {
        let neighbours = self.0.neighbours();
        let message = {
            let mut request = neighbours.add(interface.0, address);
            request.message_mut().clone()
        };
        match neighbours.del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(error))
                if matches!(
                    error.raw_code().saturating_abs(),
                    libc::ENOENT | libc::ENODEV | libc::ENXIO
                ) =>
            {
                Ok(())
            }
            result => Ok(result?),
        }
    }
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteNextHop;

    use super::*;

    fn via(last: u8) -> RouteAttribute {
        RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn an_interface_that_leaves_a_bridge_is_not_gone() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        let gone = |message: &LinkMessage| input(RouteNetlinkMessage::DelLink(message.clone()));
        assert_eq!(gone(&message), Some(Input::LinkRemoved(IfIndex(7))));
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(gone(&message), None);
    }

    #[test]
    fn next_hops_are_in_the_order_in_which_they_are_named() {
        let mut single = RouteMessage::default();
        single.attributes = vec![via(1), RouteAttribute::Oif(2)];
        let mut several = RouteMessage::default();
        let hops = [(2, 7), (3, 8), (3, 9)].map(|(interface, last)| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface;
            hop.attributes = vec![via(last)];
            hop
        });
        several.attributes = vec![RouteAttribute::MultiPath(hops.to_vec())];
        let mut direct = RouteMessage::default();
        direct.attributes = vec![RouteAttribute::Oif(4)];
        let mut found = BTreeMap::new();
        for route in [single.clone(), several, direct, single] {
            next_hops(&route, &mut found);
        }
        let addresses = |last: [u8; 2]| last.map(|last| IpAddr::from([192, 0, 2, last])).to_vec();
        let expected = [
            (IfIndex(2), addresses([1, 7])),
            (IfIndex(3), addresses([8, 9])),
        ];
        assert_eq!(found, BTreeMap::from(expected));
    }
}
