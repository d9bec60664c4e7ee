//! Slots in which clients are counted, and the maximum share of one client.

use std::net::IpAddr;
use std::sync::OnceLock;

pub(crate) const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 10;

/// Maximum share of one client in eighths.
const EIGHTHS: usize = 7;
/// Total below which one client may hold all. A share of one would halve an upstream that has two workers, if all
/// clients come through one address.
pub(super) const SHARED_FROM: usize = 3;

/// Returns the maximum that one client may hold of `total`.
pub(crate) fn client_share(total: usize) -> usize {
    if total < SHARED_FROM { total } else { total / 8 * EIGHTHS + total % 8 * EIGHTHS / 8 }
}

/// A client's slot in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientSlot(pub(super) u16);

impl ClientSlot {
    /// Returns the slot of an address. IPv6 addresses count by their network of `ipv6_prefix` bits, because one
    /// subscriber has a whole network.
    pub(crate) fn new(address: IpAddr, ipv6_prefix: u8) -> ClientSlot {
        let bits = match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => {
                let host = 128 - u32::from(ipv6_prefix.min(128));
                let network = u128::from(address).checked_shr(host).unwrap_or_default();
                (network ^ (network >> 64)) as u64 ^ (1 << 63)
            }
        };
        // The hash is keyed, so that nobody can choose an address that shares another client's slot.
        let mixed = (bits ^ seed()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ClientSlot((mixed >> (u64::BITS - SLOT_BITS)) as u16)
    }

    /// Returns the index in a table of [`SLOTS`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_4_a_client_is_an_address_or_a_network() {
        let slot = |address: &str| ClientSlot::new(address.parse().unwrap(), 64);
        assert_eq!(slot("192.0.2.7"), slot("::ffff:192.0.2.7"), "however it is written");
        assert_eq!(slot("2001:db8:1:2::1"), slot("2001:db8:1:2:ffff::9"), "one subscriber's network");
        let addresses = (0..SLOTS as u32).map(|at| IpAddr::from((at | 0x0a00_0000).to_be_bytes()));
        let mut taken = std::collections::HashSet::new();
        taken.extend(addresses.map(|address| ClientSlot::new(address, 64).index()));
        // 1024 random addresses hit about 647 slots.
        assert!(taken.len() > 500, "{} slots", taken.len());
        assert!(taken.iter().all(|slot| *slot < SLOTS));
        ClientSlot::new("::1".parse().unwrap(), 0);
    }
}
