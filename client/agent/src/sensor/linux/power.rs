//! Mains and battery: UPower, which tells of changes at once; where it does not answer, /sys/class/power_supply.

use super::bus::{self, Watched};
use crate::{
    policy::{Power, Reading},
    sensor::{
        places::{names, number, small_file},
        readings::Reporter,
    },
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Asks UPower until it fails; returns why.
pub async fn upower(address: String, reporter: Reporter<Power>) -> String {
    watch(&address, &reporter).await.err().unwrap_or_else(bus::gone)
}

async fn watch(address: &str, reporter: &Reporter<Power>) -> Result<(), String> {
    const NAME: &str = "org.freedesktop.UPower";
    let bus = bus::connect(address).await?;
    let mut manager = Watched::new(&bus, NAME, "/org/freedesktop/UPower", NAME).await?;
    let path = "/org/freedesktop/UPower/devices/DisplayDevice";
    let mut battery = Watched::new(&bus, NAME, path, "org.freedesktop.UPower.Device").await?;
    loop {
        let on_battery: bool = manager.get("OnBattery").await?;
        // A computer without a battery has a display device that is not present, or none.
        let present = battery.get("IsPresent").await.unwrap_or(false);
        let charge = if present { Some(battery.get::<f64>("Percentage").await?) } else { None };
        let charge_percent = charge.filter(|percent| (0.0..=100.0).contains(percent));
        reporter.says(Reading::Known(Power { on_mains: !on_battery, charge_percent }));
        tokio::select! {
            changed = manager.changed() => changed?,
            changed = battery.changed() => changed?,
        }
    }
}

/// How often files are looked at where nothing tells of changes.
const EVERY: Duration = Duration::from_secs(2);

/// Looks at /sys below `root`.
pub async fn files(root: PathBuf, reporter: Reporter<Power>) -> String {
    loop {
        match look(&root.join("sys/class/power_supply")) {
            Ok(power) => reporter.says_for(Reading::Known(power), EVERY * 10),
            Err(why) => return why,
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn look(folder: &Path) -> Result<Power, String> {
    let supplies = names(folder).map_err(|e| format!("/sys/class/power_supply cannot be read ({e})"))?;
    let (mut plugs, mut plugged, mut draining, mut charges) = (0, false, false, vec![]);
    for supply in supplies.iter().map(|name| folder.join(name)) {
        match small_file(&supply.join("type")).unwrap_or_default().as_str() {
            "Mains" | "USB" | "Wireless" => {
                plugs += 1;
                plugged |= number(&supply.join("online")).is_some_and(|online| online > 0);
            }
            // The battery of a mouse has the scope `Device`.
            "Battery" if small_file(&supply.join("scope")).unwrap_or_default() != "Device" => {
                draining |= small_file(&supply.join("status")).unwrap_or_default() == "Discharging";
                charges.extend(number(&supply.join("capacity")).filter(|percent| (0..=100).contains(percent)));
            }
            _ => {}
        }
    }
    let charge_percent = match charges.len() {
        0 => None,
        n => Some(charges.iter().sum::<i64>() as f64 / n as f64),
    };
    // USB ports count as plugs even where nothing is in them; without a battery there is nothing else to run on.
    let on_mains = if charge_percent.is_none() && !draining { true } else { (plugged || plugs == 0) && !draining };
    Ok(Power { on_mains, charge_percent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn supplies(of: &[(&str, &[(&str, &str)])]) -> Power {
        let folder = tempfile::tempdir().unwrap();
        for (name, files) in of {
            fs::create_dir(folder.path().join(name)).unwrap();
            for (file, text) in *files {
                fs::write(folder.path().join(name).join(file), format!("{text}\n")).unwrap();
            }
        }
        look(folder.path()).unwrap()
    }

    #[test]
    fn files_tell_of_plugs_and_batteries() {
        let battery = |status| ("BAT0", [("type", "Battery"), ("status", status), ("capacity", "71")]);
        let (full, draining) = (battery("Charging"), battery("Discharging"));
        let plug: [(&str, &[(&str, &str)]); 2] =
            [("AC", &[("type", "Mains"), ("online", "1")]), ("AC", &[("type", "Mains"), ("online", "0")])];
        let mouse =
            ("hid", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging"), ("capacity", "3")] as &[_]);
        assert_eq!(supplies(&[]), Power { on_mains: true, charge_percent: None });
        assert_eq!(supplies(&[mouse]), Power { on_mains: true, charge_percent: None });
        assert_eq!(
            supplies(&[plug[0], (full.0, &full.1), mouse]),
            Power { on_mains: true, charge_percent: Some(71.0) }
        );
        assert_eq!(
            supplies(&[plug[1], (draining.0, &draining.1)]),
            Power { on_mains: false, charge_percent: Some(71.0) }
        );
        // Plugged into too weak a source.
        assert_eq!(
            supplies(&[plug[0], (draining.0, &draining.1)]),
            Power { on_mains: false, charge_percent: Some(71.0) }
        );
    }
}
