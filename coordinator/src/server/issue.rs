//! Issuing an invite: where devices reach the coordinator, what the invite makes of them, and what the ledger keeps of it.

use crate::{
    certificate::CertificateKey,
    identity::{self, Identity, IdentityError},
    store::desk::InviteRecord,
};
use nightjar_shared::{
    time::Wall,
    wire::{Invite, Role},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Longest time that an invite lasts, in days, where it ends at all.
pub const DAYS_MAX: u64 = 36_500;
/// Addresses of an invite at most.
pub const ADDRESSES_MAX: usize = 8;

/// What somebody wants an invite to be.
pub struct Terms {
    /// What it makes of a device.
    pub role: Role,
    /// Where devices reach the coordinator.
    pub addresses: Vec<Reachable>,
    /// Days until it ends; `None`: never.
    pub days: Option<u64>,
    /// Devices that may hold a place by it; `None`: any number.
    pub devices: Option<u64>,
    /// Whether browsers may join with it: then it says how they recognise the coordinator.
    pub for_pages: bool,
}

/// Certificates that an invite names: pages find their way by it for three weeks at least, and after that by the place
/// that they come from.
const CERTIFICATES_NAMED: u64 = 3;

/// Signs an invite. Returns its token, and what the ledger keeps of it.
pub fn issue(
    identity: &Identity,
    run_name: &str,
    terms: &Terms,
    by: &str,
    now: Wall,
) -> Result<(Vec<u8>, InviteRecord), IdentityError> {
    let record = InviteRecord {
        nonce: identity::nonce()?,
        role: terms.role,
        devices_max: terms.devices.unwrap_or(0),
        expires_at: terms.days.map(|days| Wall { unix_ms: now.unix_ms.saturating_add(days.min(DAYS_MAX) * DAY_MS) }),
        issued_at: now,
        issued_by: by.to_owned(),
    };
    let named = if terms.for_pages { CERTIFICATES_NAMED } else { 0 };
    let certificates = CertificateKey::of(identity).hashes(now, named);
    let token = identity.sign_invite(Invite {
        addresses: terms.addresses.iter().map(ToString::to_string).collect(),
        public_keys: vec![],
        role: record.role as i32,
        run_name: run_name.to_owned(),
        expires_unix_ms: record.expires_at.map_or(0, |at| at.unix_ms),
        devices_max: record.devices_max,
        nonce: record.nonce.clone(),
        certificates: certificates.iter().map(|hash| hash.to_vec()).collect(),
    });
    Ok((token, record))
}

/// An address that a device may be told, as HOST:PORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    host: String,
    port: u16,
    /// Whether only programs on this very computer get there.
    pub is_loopback: bool,
}

impl Reachable {
    /// Reads one; what is wrong with it is told.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as HOST:PORT, as in my.host.org:4433 or [2001:db8::7]:4433";
        let (host, port) = text.trim().rsplit_once(':').ok_or(FORM)?;
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|port| is_number && *port > 0).ok_or(FORM)?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let address = match in_brackets {
            Some(host) => Some(IpAddr::V6(host.parse::<Ipv6Addr>().map_err(|_| FORM)?)),
            // Where an address of IPv6 ends and its port begins cannot be told without brackets.
            None if host.contains(':') => return Err(FORM.into()),
            None => host.parse::<IpAddr>().ok(),
        };
        let is_loopback = match address.map(|address| address.to_canonical()) {
            Some(address) if is_everywhere(address) => {
                return Err("that address means \"anywhere on this computer\", and leads no device here; \
                            name this computer, or its address in the network that the devices are in"
                    .into());
            }
            Some(address) if address.is_multicast() || is_broadcast(address) => {
                return Err("that address is a group of computers; name this one, or its own address".into());
            }
            Some(address) => address.is_loopback(),
            None if !is_name(host) => return Err(FORM.into()),
            None => is_here(host),
        };
        Ok(Reachable { host: host.into(), port, is_loopback })
    }

    /// Whether it means something in one network only, and another computer in the next.
    pub fn is_of_the_link(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_unicast_link_local(),
            Err(_) => false,
        }
    }
}

impl Serialize for Reachable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reachable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Reachable::parse(&text).map_err(|why| D::Error::custom(format!("{text} is no address: {why}")))
    }
}

impl fmt::Display for Reachable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a server listens on, and nobody can connect to.
fn is_everywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 0,
        IpAddr::V6(address) => address.is_unspecified(),
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// A name as DNS has it. One whose last part is a number would be taken for an address in an old spelling, such as
/// 127.1.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    let last = labels.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && labels.split('.').all(is_label) && !last.starts_with(|c: char| c.is_ascii_digit())
}

/// A name that every computer has for itself.
fn is_here(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    matches!(name.as_str(), "localhost" | "localhost.localdomain" | "ip6-localhost" | "ip6-loopback")
        || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        Reachable::parse(text).map_or_else(|words| words, |address| panic!("{text} is taken: {address}"))
    }

    #[test]
    fn an_address_that_leads_no_device_here_is_refused_with_the_reason() {
        for everywhere in ["0.0.0.0:4433", "[::]:4433", "[::ffff:0.0.0.0]:4433", "0.0.0.1:4433"] {
            assert!(told(everywhere).contains("anywhere on this computer"), "{everywhere}: {}", told(everywhere));
        }
        for group in ["224.0.0.1:4433", "255.255.255.255:4433", "[ff02::1]:4433"] {
            assert!(told(group).contains("group of computers"), "{group}: {}", told(group));
        }
        let no_form = [
            "::1",
            "::",
            ":::4433",
            "::1:4433",
            "2001:db8::7:4433",
            "my.host.org",
            "my.host.org:0",
            "my.host.org:65536",
            "my.host.org:+44",
            ":4433",
            "[my.host.org]:4433",
            "[127.0.0.1]:4433",
            "https://my.host.org:4433",
            "ann@host:4433",
            "my host:4433",
            "0:4433",
            "127.1:4433",
            "1.2.3.256:4433",
            "a..b:4433",
            "-a:4433",
            "*:4433",
            "host/path:1",
        ];
        for bad in no_form {
            assert!(told(bad).contains("write it as HOST:PORT"), "{bad}: {}", told(bad));
        }
    }

    #[test]
    fn an_address_that_leads_here_is_taken_as_it_is_and_loopback_is_known() {
        for (good, is_loopback) in [
            ("my.host.org:4433", false),
            ("my.host.org.:4433", false),
            ("bücher.example:1", false),
            ("kitchen_pc:4433", false),
            ("192.0.2.7:4433", false),
            ("10.0.0.2:65535", false),
            ("[2001:db8::7]:4433", false),
            ("127.0.0.1:4433", true),
            ("127.8.8.8:4433", true),
            ("[::1]:4433", true),
            ("[::ffff:127.0.0.1]:4433", true),
            ("localhost:4433", true),
            ("LocalHost.:4433", true),
            ("run.localhost:4433", true),
        ] {
            let address = Reachable::parse(good).unwrap();
            assert_eq!((address.to_string(), address.is_loopback), (good.to_owned(), is_loopback));
        }
        assert_eq!(Reachable::parse(" my.host.org:4433 ").unwrap().to_string(), "my.host.org:4433");
        for (address, is_of_the_link) in
            [("169.254.7.7:1", true), ("[fe80::1]:1", true), ("10.0.0.2:1", false), ("h:1", false)]
        {
            assert_eq!(Reachable::parse(address).unwrap().is_of_the_link(), is_of_the_link, "{address}");
        }
    }
}
