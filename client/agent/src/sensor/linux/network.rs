//! Whether the network is paid for by the byte: NetworkManager; where it does not answer, the kind of the interface that
//! the default route goes through.

use super::bus::{self, Watched};
use crate::{policy::Reading, sensor::board::Post};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

/// Asks NetworkManager until it fails; returns why.
pub async fn network_manager(address: String, post: Post<bool>) -> String {
    watch(&address, &post).await.err().unwrap_or_else(bus::gone)
}

async fn watch(address: &str, post: &Post<bool>) -> Result<(), String> {
    const NAME: &str = "org.freedesktop.NetworkManager";
    let bus = bus::connect(address).await?;
    let mut manager = Watched::new(&bus, NAME, "/org/freedesktop/NetworkManager", NAME).await?;
    loop {
        match manager.get::<u32>("Metered").await? {
            // Said by the owner or the network; guessed.
            1 | 3 => post.says(Reading::Known(true)),
            2 | 4 => post.says(Reading::Known(false)),
            _ => post.passes("NetworkManager does not know"),
        }
        manager.changed().await?;
    }
}

const EVERY: Duration = Duration::from_secs(5);

/// Looks at the routes below `root`.
pub async fn routes(root: PathBuf, post: Post<bool>) -> String {
    loop {
        // Without a route nothing is sent that could cost.
        let reading = default_interface(&root.join("proc/net"))
            .map_or(Reading::Known(false), |interface| kind(&root.join("sys/class/net").join(&interface), &interface));
        post.says_for(reading, EVERY * 6);
        tokio::time::sleep(EVERY).await;
    }
}

/// The interface that packets to anywhere leave through.
fn default_interface(folder: &Path) -> Option<String> {
    // The first lines suffice: tables with thousands of routes exist.
    let lines =
        |name| fs::File::open(folder.join(name)).map(|file| BufReader::new(file.take(1 << 16)).lines().map_while(Result::ok));
    let old = lines("route").into_iter().flatten().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")).then(|| words[0].to_owned())
    });
    old.or_else(|| {
        lines("ipv6_route").ok()?.find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let everywhere = words.first()?.bytes().all(|b| b == b'0') && words.get(1) == Some(&"00");
            (everywhere && words.last() != Some(&"lo")).then(|| words.last().map(|name| (*name).to_owned()))?
        })
    })
}

/// What an interface's kind lets one say. Only a cable is taken for free; a phone may be behind USB as well as behind Wi-Fi.
fn kind(interface: &Path, name: &str) -> Reading<bool> {
    let uevent = crate::sensor::places::small_file(&interface.join("uevent")).unwrap_or_default();
    let device = fs::canonicalize(interface.join("device")).unwrap_or_default();
    let over_usb = device.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    if uevent.contains("DEVTYPE=wwan") || name.starts_with("wwan") || name.starts_with("ppp") {
        Reading::Known(true)
    } else if uevent.contains("DEVTYPE=wlan") || interface.join("wireless").exists() || over_usb {
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

    #[test]
    fn the_default_routes_interface_tells() {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path().join("proc/net");
        fs::create_dir_all(&proc).unwrap();
        assert_eq!(default_interface(&proc), None);
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        fs::write(proc.join("route"), table).unwrap();
        assert_eq!(default_interface(&proc).as_deref(), Some("wlan0"));
        let interface = |name: &str, uevent: &str| {
            let folder = root.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("uevent"), uevent).unwrap();
            kind(&folder, name)
        };
        assert!(matches!(interface("wlan0", "DEVTYPE=wlan\nINTERFACE=wlan0"), Reading::Unknown(_)));
        assert_eq!(interface("eth0", "INTERFACE=eth0"), Reading::Known(false));
        assert_eq!(interface("wwan0", "DEVTYPE=wwan"), Reading::Known(true));
        assert!(matches!(kind(&root.path().join("gone0"), "gone0"), Reading::Unknown(_)));
    }
}
