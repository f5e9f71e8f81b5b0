//! Whether the network is paid for by the byte: NetworkManager; where it does not answer, the kind of the interface
//! that the default route goes through.

use super::bus::{self, Watched};
use crate::{
    policy::Reading,
    sensor::{
        places::{names, number, small_file},
        readings::Reporter,
    },
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

/// Asks NetworkManager until it fails; returns why.
pub async fn network_manager(address: String, reporter: Reporter<bool>) -> String {
    watch(&address, &reporter).await.err().unwrap_or_else(bus::gone)
}

async fn watch(address: &str, reporter: &Reporter<bool>) -> Result<(), String> {
    const NAME: &str = "org.freedesktop.NetworkManager";
    let bus = bus::connect(address).await?;
    let mut manager = Watched::new(&bus, NAME, "/org/freedesktop/NetworkManager", NAME).await?;
    loop {
        match manager.get::<u32>("Metered").await? {
            // Said by the owner or the network; guessed.
            1 | 3 => reporter.says(Reading::Known(true)),
            2 | 4 => reporter.says(Reading::Known(false)),
            _ => reporter.passes("NetworkManager does not know"),
        }
        manager.changed().await?;
    }
}

const EVERY: Duration = Duration::from_secs(5);
/// Interfaces that are made of interfaces, at most so deep.
const NESTED_MAX: usize = 4;

/// Looks at the routes below `root`.
pub async fn routes(root: PathBuf, reporter: Reporter<bool>) -> String {
    loop {
        reporter.says_for(by_routes(&root), EVERY * 6);
        tokio::time::sleep(EVERY).await;
    }
}

/// What the interfaces of the default routes let one say, of both families. Without a route nothing is sent that could
/// cost.
fn by_routes(root: &Path) -> Reading<bool> {
    let net = root.join("sys/class/net");
    let interfaces = default_interfaces(&root.join("proc/net"));
    worst(interfaces.iter().map(|interface| of_interface(&net, interface, NESTED_MAX))).unwrap_or(Reading::Known(false))
}

/// One that is metered, else one of which nothing is known, else one that is free.
fn worst(readings: impl Iterator<Item = Reading<bool>>) -> Option<Reading<bool>> {
    readings.max_by_key(|reading| match reading {
        Reading::Known(false) => 0,
        Reading::Unknown(_) => 1,
        Reading::Known(true) => 2,
    })
}

/// The interfaces that packets to anywhere leave through: IPv4's and IPv6's.
fn default_interfaces(folder: &Path) -> Vec<String> {
    // The first lines suffice: tables with thousands of routes exist.
    let lines = |name| {
        fs::File::open(folder.join(name)).map(|file| BufReader::new(file.take(1 << 16)).lines().map_while(Result::ok))
    };
    let old = lines("route").into_iter().flatten().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")).then(|| words[0].to_owned())
    });
    let new = lines("ipv6_route").into_iter().flatten().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let everywhere = words.first()?.bytes().all(|b| b == b'0') && words.get(1) == Some(&"00");
        (everywhere && words.last() != Some(&"lo")).then(|| words.last().map(|name| (*name).to_owned()))?
    });
    let mut interfaces: Vec<String> = old.into_iter().chain(new).collect();
    interfaces.dedup();
    interfaces
}

/// What an interface lets one say: its own kind, or where it is made of others, or leads through others, theirs.
fn of_interface(net: &Path, name: &str, nested: usize) -> Reading<bool> {
    let folder = net.join(name);
    // A bridge, a bond or a VLAN names what it is made of; a tunnel does not, and may go through anything that is up.
    let lower =
        interfaces(&folder).iter().filter_map(|n| Some(n.strip_prefix("lower_")?.to_owned())).collect::<Vec<_>>();
    let made_of = match (lower.is_empty(), is_tunnel(&folder)) {
        (false, _) => lower,
        (true, true) => physical(net),
        (true, false) => return kind(&folder, name),
    };
    let Some(nested) = nested.checked_sub(1) else {
        return Reading::Unknown(format!("nothing is known of what {name} is made of"));
    };
    let through = worst(made_of.iter().map(|lower| of_interface(net, lower, nested)));
    through.unwrap_or_else(|| Reading::Unknown(format!("nothing tells what {name} leads through")))
}

/// Whether its packets leave in those of another: a VPN's.
fn is_tunnel(folder: &Path) -> bool {
    // From the kernel's if_arp.h: none (tun, WireGuard), IP in IP, in IPv6, IPv6 in IPv4, GRE.
    const TUNNELS: [i64; 5] = [65534, 768, 769, 776, 778];
    let is_wireguard = small_file(&folder.join("uevent")).is_ok_and(|uevent| uevent.contains("DEVTYPE=wireguard"));
    is_wireguard
        || folder.join("tun_flags").exists()
        || number(&folder.join("type")).is_some_and(|kind| TUNNELS.contains(&kind))
}

/// Interfaces that are up and lead out of the computer by themselves.
fn physical(net: &Path) -> Vec<String> {
    let leads_out = |name: &String| {
        let state = small_file(&net.join(name).join("operstate")).unwrap_or_default();
        let is_up = !["down", "notpresent", "lowerlayerdown"].contains(&state.as_str());
        is_up && (net.join(name).join("device").exists() || dials(name))
    };
    interfaces(net).into_iter().filter(leads_out).collect()
}

fn interfaces(folder: &Path) -> Vec<String> {
    names(folder).unwrap_or_default()
}

/// Whether what it leads through is paid for by the byte, or by the minute, as its name says.
fn dials(name: &str) -> bool {
    name.starts_with("wwan") || name.starts_with("ppp")
}

/// What an interface's kind lets one say. Only a cable is taken for free; a phone may be behind USB or Bluetooth as
/// well as behind Wi-Fi.
fn kind(interface: &Path, name: &str) -> Reading<bool> {
    let uevent = small_file(&interface.join("uevent")).unwrap_or_default();
    let device = fs::canonicalize(interface.join("device")).unwrap_or_default();
    let over_usb = device.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    let over_air = ["DEVTYPE=wlan", "DEVTYPE=bluetooth", "DEVTYPE=wimax"].iter().any(|kind| uevent.contains(kind));
    if uevent.contains("DEVTYPE=wwan") || dials(name) {
        Reading::Known(true)
    } else if over_air || interface.join("wireless").exists() || over_usb {
        Reading::Unknown(format!("NetworkManager does not answer, and {name} may lead to a phone"))
    } else if interface.exists() {
        Reading::Known(false)
    } else {
        Reading::Unknown(format!("nothing is known of the interface {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A computer with these interfaces, each with its `uevent` and whether there is a device behind it, and IPv4's
    /// default route through the first.
    fn computer(interfaces: &[(&str, &str, bool)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("sys/class/net");
        for (name, uevent, has_device) in interfaces {
            let folder = net.join(name);
            fs::create_dir_all(if *has_device { folder.join("device") } else { folder.clone() }).unwrap();
            fs::write(folder.join("uevent"), uevent).unwrap();
            fs::write(folder.join("operstate"), "up\n").unwrap();
            fs::write(folder.join("type"), if name.starts_with("tun") { "65534\n" } else { "1\n" }).unwrap();
        }
        if let Some((first, ..)) = interfaces.first() {
            route(root.path(), first);
        }
        root
    }

    fn route(root: &Path, name: &str) {
        let proc = root.join("proc/net");
        fs::create_dir_all(&proc).unwrap();
        let table = format!(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             {name}\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
        );
        fs::write(proc.join("route"), table).unwrap();
    }

    fn is_unknown(reading: &Reading<bool>) -> bool {
        matches!(reading, Reading::Unknown(_))
    }

    const WLAN: (&str, &str, bool) = ("wlan0", "DEVTYPE=wlan\nINTERFACE=wlan0", true);
    const CABLE: (&str, &str, bool) = ("eth0", "INTERFACE=eth0", true);
    const MOBILE: (&str, &str, bool) = ("wwan0", "DEVTYPE=wwan", true);
    const TUNNEL: (&str, &str, bool) = ("tun0", "INTERFACE=tun0", false);

    #[test]
    fn the_default_routes_interface_tells() {
        assert_eq!(by_routes(tempfile::tempdir().unwrap().path()), Reading::Known(false), "there is no route");
        let of = |interfaces: &[_]| by_routes(computer(interfaces).path());
        assert!(is_unknown(&of(&[WLAN, CABLE])));
        assert_eq!(of(&[CABLE, MOBILE]), Reading::Known(false));
        assert_eq!(of(&[MOBILE, CABLE]), Reading::Known(true));
        assert_eq!(of(&[("ppp0", "", false), CABLE]), Reading::Known(true));
        assert!(is_unknown(&of(&[("bnep0", "DEVTYPE=bluetooth", true), CABLE])));
        let gone = computer(&[CABLE]);
        route(gone.path(), "gone0");
        assert!(is_unknown(&by_routes(gone.path())));
    }

    /// A VPN's packets leave through something else, and may cost there.
    #[test]
    fn a_tunnel_costs_what_it_leads_through() {
        let of = |interfaces: &[_]| by_routes(computer(interfaces).path());
        assert_eq!(of(&[TUNNEL, MOBILE]), Reading::Known(true));
        assert_eq!(of(&[TUNNEL, CABLE, MOBILE]), Reading::Known(true), "it may go through either");
        assert!(is_unknown(&of(&[TUNNEL, WLAN])));
        assert_eq!(of(&[TUNNEL, CABLE]), Reading::Known(false));
        assert!(is_unknown(&of(&[TUNNEL])), "nothing tells");
        let computer = computer(&[TUNNEL, CABLE, MOBILE]);
        fs::write(computer.path().join("sys/class/net/wwan0/operstate"), "down\n").unwrap();
        assert_eq!(by_routes(computer.path()), Reading::Known(false), "that is switched off");
    }

    #[test]
    fn a_bridge_costs_what_it_is_made_of_and_both_families_count() {
        let bridge = ("br0", "DEVTYPE=bridge", false);
        let made = computer(&[bridge, CABLE, MOBILE]);
        fs::create_dir(made.path().join("sys/class/net/br0/lower_eth0")).unwrap();
        assert_eq!(by_routes(made.path()), Reading::Known(false));
        fs::write(
            made.path().join("proc/net/ipv6_route"),
            format!("{} 00 {} 00 x 0 0 0 0 wwan0\n", "0".repeat(32), "0".repeat(32)),
        )
        .unwrap();
        assert_eq!(by_routes(made.path()), Reading::Known(true), "IPv6 goes over mobile broadband");
    }
}
