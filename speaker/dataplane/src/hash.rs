//! The flow hash, as the programs compute it.

use std::net::IpAddr;

/// The hash of a client's address and port: Bob Jenkins' lookup3 over the address, the port and two
/// zero bytes, which is what `jhash ip saddr . th sport` is in nftables (`include/linux/jhash.h`,
/// Linux 6.18). Words are read little-endian.
pub fn flow_hash(client: IpAddr, port: u16, seed: u32) -> u32 {
    let port = u32::from(u16::from_le_bytes(port.to_be_bytes()));
    let word = |bytes: [u8; 4]| u32::from_le_bytes(bytes);
    match client {
        IpAddr::V4(address) => {
            let start = initial(8, seed);
            finish(
                start.wrapping_add(word(address.octets())),
                start.wrapping_add(port),
                start,
            )
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            let (words, _) = octets.as_chunks::<4>();
            let [first, second, third, fourth] = words else {
                return 0;
            };
            let start = initial(20, seed);
            let (a, b, c) = mix(
                start.wrapping_add(word(*first)),
                start.wrapping_add(word(*second)),
                start.wrapping_add(word(*third)),
            );
            finish(a.wrapping_add(word(*fourth)), b.wrapping_add(port), c)
        }
    }
}

/// What chooses among a node's own pods, of a flow's hash: the upper bits of that have chosen the node.
pub fn pod_hash(hash: u32) -> u32 {
    crate::filter::mix(hash)
}

/// The slot of a hash in a table of so many slots.
pub fn slot(hash: u32, slots: u32) -> u32 {
    ((u64::from(hash) * u64::from(slots)) >> 32) as u32
}

const fn initial(length: u32, seed: u32) -> u32 {
    0xdead_beef_u32.wrapping_add(length).wrapping_add(seed)
}

const fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

const fn finish(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_nftables() {
        // Read back from a set that `meta mark set jhash ip saddr . udp sport mod 4294967295 seed
        // 0x12345678` filled, on Linux 6.18: `slot` of the hash in that many slots.
        let cases = [
            ("192.0.2.77", 1_024, 0x0d31_fc73),
            ("2001:db8::77", 1_024, 0xbbcd_e845),
            ("192.0.2.77", 40_000, 0x6d10_5dab),
            ("2001:db8::77", 40_000, 0x178b_53ca),
            ("192.0.2.77", 65_535, 0x1f28_0f84),
            ("2001:db8::77", 65_535, 0x7b15_cccb),
        ];
        for (client, port, expected) in cases {
            let hash = flow_hash(client.parse().unwrap(), port, 0x1234_5678);
            assert_eq!(slot(hash, u32::MAX), expected, "{client} {port}");
        }
    }

    #[test]
    fn pods_get_their_share_of_the_flows_of_one_slot() {
        let mut shares = [0_u32; 4];
        for low in 0..4_096_u32 {
            let hash = 0x5a00_0000 | low << 9;
            shares[slot(pod_hash(hash), 4) as usize] += 1;
        }
        assert!(
            shares.iter().all(|share| (1_000..1_050).contains(share)),
            "{shares:?}"
        );
    }

    #[test]
    fn slots_of_a_table_are_the_hashs_upper_bits() {
        assert_eq!(slot(0, 256), 0);
        assert_eq!(slot(0x0100_0000, 256), 1);
        assert_eq!(slot(u32::MAX, 16_384), 16_383);
    }
}
