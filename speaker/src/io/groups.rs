//! Memberships in solicited-node groups.
//!
//! They are joined on ordinary sockets, so that the kernel sends MLD reports and switches forward
//! the frames. One socket takes a limited number of memberships (2,340 on Linux 6.18, fewer on
//! older kernels), so there are as many sockets as it takes.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;

use herald_model::IfIndex;
use socket2::{Domain, Protocol, Socket, Type};

/// All memberships of this process.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    sockets: Vec<Socket>,
    joined: BTreeMap<(IfIndex, Ipv6Addr), usize>,
}

impl Groups {
    /// Joins a group on an interface; a second time does nothing.
    pub(crate) fn join(&mut self, interface: IfIndex, group: Ipv6Addr) -> io::Result<()> {
        if self.joined.contains_key(&(interface, group)) {
            return Ok(());
        }
        if let Some(last) = self.sockets.last() {
            match last.join_multicast_v6(&group, interface.0) {
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.joined
                        .insert((interface, group), self.sockets.len() - 1);
                    return Ok(());
                }
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.join_multicast_v6(&group, interface.0)?;
        self.joined.insert((interface, group), self.sockets.len());
        self.sockets.push(socket);
        Ok(())
    }

    /// Leaves a group; one that was not joined, or whose interface is gone, is left already.
    pub(crate) fn leave(&mut self, interface: IfIndex, group: Ipv6Addr) -> io::Result<()> {
        let socket = self
            .joined
            .remove(&(interface, group))
            .and_then(|place| self.sockets.get(place));
        match socket.map(|socket| socket.leave_multicast_v6(&group, interface.0)) {
            Some(Err(error))
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::ENODEV | libc::EADDRNOTAVAIL)
                ) =>
            {
                Err(error)
            }
            _left => Ok(()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
