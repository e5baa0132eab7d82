//! A crowd of clients that asks who has an address.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Child;

use anyhow::Result;
use herald_lab::Lab;

/// How many clients there are.
pub const CLIENTS: u32 = 200;
/// The address of the first; those of the others follow.
pub const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 0);

/// Clients that ask in turn, one each 5 ms, until it is dropped.
pub struct Asking(Child);

impl Asking {
    /// Begins to ask at the lab's client.
    ///
    /// # Errors
    ///
    /// If the program can't be started there.
    pub fn start(lab: &Lab, address: IpAddr) -> Result<Self> {
        let (count, from) = (CLIENTS.to_string(), FIRST_CLIENT.to_string());
        let address = address.to_string();
        let argv = [
            "lab-echo",
            "arp",
            "--clients",
            &count,
            "--from",
            &from,
            "--every",
            "5ms",
            &address,
        ];
        Ok(Self(lab.spawn("client", argv)?))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
