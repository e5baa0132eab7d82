//! The bits by which the programs know most of what is none of their business without a look-up.

use std::net::IpAddr;

use crate::layout::{address_words, mac_word};
use herald_model::MacAddress;

/// Bits for the VIPs.
pub(crate) const VIP_BITS: usize = 1 << 17;
/// Bits for the nodes' addresses, as many for their MAC addresses, and as many for pods.
pub(crate) const NODE_BITS: usize = 1 << 15;

/// `struct filters`. What is in a map has its bit set; what has its bit set may be in the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filters {
    vips: Bits,
    addresses: Bits,
    macs: Bits,
    pods: Bits,
}

impl Filters {
    pub(crate) const BYTES: usize = VIP_BITS / 8 + 3 * (NODE_BITS / 8);

    pub(crate) fn new() -> Self {
        Self {
            vips: Bits::new(VIP_BITS),
            addresses: Bits::new(NODE_BITS),
            macs: Bits::new(NODE_BITS),
            pods: Bits::new(NODE_BITS),
        }
    }

    pub(crate) fn add_vip(&mut self, address: IpAddr) {
        self.vips.set(mix_address(address));
    }

    pub(crate) fn add_address(&mut self, address: IpAddr) {
        self.addresses.set(mix_address(address));
    }

    pub(crate) fn add_mac(&mut self, mac: MacAddress) {
        self.macs.set(mix(mac_word(mac)));
    }

    pub(crate) fn add_pod(&mut self, address: IpAddr) {
        self.pods.set(mix_address(address));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.vips, &self.addresses, &self.macs, &self.pods]
            .map(|bits| bits.0.as_slice())
            .concat()
    }

    #[cfg(test)]
    pub(crate) fn may_be_vip(encoded: &[u8], address: IpAddr) -> bool {
        let vips = Bits(encoded[..VIP_BITS / 8].to_vec());
        let (byte, bit) = vips.place(mix_address(address));
        vips.0[byte] & bit != 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits(Vec<u8>);

impl Bits {
    fn new(bits: usize) -> Self {
        Self(vec![0; bits / 8])
    }

    /// The upper bits of a product are its best.
    fn place(&self, mixed: u32) -> (usize, u8) {
        let bit = (u64::from(mixed) * (self.0.len() as u64 * 8)) >> 32;
        ((bit / 8) as usize, 1 << (bit % 8))
    }

    fn set(&mut self, mixed: u32) {
        let (byte, bit) = self.place(mixed);
        if let Some(byte) = self.0.get_mut(byte) {
            *byte |= bit;
        }
    }
}

/// Two to the 32nd by the golden ratio, as `hash_32` of the kernel has it (`include/linux/hash.h`).
pub(crate) const fn mix(word: u32) -> u32 {
    word.wrapping_mul(0x61c8_8647)
}

/// Addresses of one network differ in their last word, and all of IPv4 do.
fn mix_address(address: IpAddr) -> u32 {
    let [first, second, third, last] = address_words(address);
    mix(last
        ^ first
            .wrapping_add(second.wrapping_mul(31))
            .wrapping_add(third.wrapping_mul(961)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_do_not_share_a_bit() {
        let mut filters = Filters::new();
        for last in 0..=255_u8 {
            for third in 0..4 {
                filters.add_vip([203, 0, third, last].into());
            }
            filters.add_mac(MacAddress([2, 0, 0, 1, 2, last]));
        }
        let set = |bits: &Bits| bits.0.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!((set(&filters.vips), set(&filters.macs)), (1024, 256));
    }

    #[test]
    fn the_bit_of_an_address_is_the_one_the_program_looks_at() {
        let mut filters = Filters::new();
        filters.add_vip("192.0.2.100".parse().unwrap());
        let encoded = filters.encode();
        assert_eq!(encoded.len(), Filters::BYTES);
        let found: Vec<usize> = (0..encoded.len()).filter(|&at| encoded[at] != 0).collect();
        // By hand: word 0x640200c0, with ::ffff:0:0 0xffff0000 * 961 beside it.
        let beside = 0xffff_0000_u32.wrapping_mul(961);
        let bit = (0x6402_00c0_u32 ^ beside).wrapping_mul(0x61c8_8647) >> 15;
        assert_eq!(found, [bit as usize / 8]);
        assert_eq!(encoded[found[0]], 1 << (bit % 8));
    }
}
