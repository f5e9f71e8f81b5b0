//! Whom an address stands for, where something is counted by address.

use std::net::IpAddr;

/// Whom an address stands for: IPv4 the address, IPv6 its /64, which is what a household or a rented computer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet(IpAddr);

impl Subnet {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                Subnet(IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into()))
            }
            other => Subnet(other),
        }
    }

    /// Whoever is on this machine needs no help to hinder it; and its own tests come by the thousand.
    pub fn is_this_machine(self) -> bool {
        self.0.is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_a_household() {
        let subnet = |text: &str| Subnet::of(text.parse().unwrap());
        assert_eq!(subnet("2001:db8:1:2::3"), subnet("2001:db8:1:2:ffff::9"));
        assert_ne!(subnet("2001:db8:1:2::3"), subnet("2001:db8:1:3::3"));
        assert_eq!(subnet("::ffff:192.0.2.1"), subnet("192.0.2.1"));
        assert_ne!(subnet("192.0.2.1"), subnet("192.0.2.2"));
    }
}
