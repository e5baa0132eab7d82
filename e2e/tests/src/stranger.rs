//! A machine on the LAN that has, or claims, addresses it should not.

use std::net::IpAddr;

use anyhow::Result;
use herald_lab::Lab;

use crate::cluster::OTHER_CLIENT;

/// A machine on the LAN with addresses of a pool; it loses them when this is dropped.
pub struct Stranger<'a> {
    lab: &'a Lab,
    /// Its MAC address.
    pub mac: String,
    addresses: Vec<IpAddr>,
}

impl<'a> Stranger<'a> {
    /// Gives these addresses to the machine.
    ///
    /// # Errors
    ///
    /// If `ip` fails there.
    pub fn with(lab: &'a Lab, addresses: &[IpAddr]) -> Result<Self> {
        let mut stranger = Self {
            lab,
            mac: lab.address(OTHER_CLIENT)?.mac,
            addresses: Vec::new(),
        };
        for &address in addresses {
            stranger.addresses.push(address);
            stranger.ip("add", address)?;
        }
        Ok(stranger)
    }

    /// Tells the LAN that it has an IPv4 address, whether it has it or not.
    ///
    /// # Errors
    ///
    /// If `arping` can't be run there.
    pub fn claim(&self, address: IpAddr) -> Result<()> {
        let text = address.to_string();
        let command = [
            "arping", "-c", "1", "-w", "1", "-i", "eth0", "-U", "-S", &text, &text,
        ];
        // Nobody answers that.
        self.lab.exec(OTHER_CLIENT, command)?;
        Ok(())
    }

    fn ip(&self, what: &str, address: IpAddr) -> Result<()> {
        let (address, more) = match address {
            IpAddr::V4(address) => (format!("{address}/32"), &[][..]),
            // Deprecated, so that what other tests send from there has the address it always had.
            IpAddr::V6(address) => (
                format!("{address}/128"),
                &["nodad", "preferred_lft", "0"][..],
            ),
        };
        let command = ["ip", "address", what, &address, "dev", "eth0"];
        let more = if what == "add" { more } else { &[] };
        self.lab
            .exec(OTHER_CLIENT, command.iter().chain(more))?
            .ok()?;
        Ok(())
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        for &address in &self.addresses {
            self.ip("del", address).ok();
        }
    }
}
