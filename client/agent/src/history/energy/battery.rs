//! The battery's own word on how fast it discharges, from /sys/class/power_supply.

use crate::sensor::{names, number, small_file};
use std::path::Path;

/// What all discharging batteries give, in watts; `None` where none says.
pub(super) fn watts(root: &Path) -> Option<f64> {
    let folder = root.join("sys/class/power_supply");
    let is = |supply: &Path, file: &str, what: &str| small_file(&supply.join(file)).is_ok_and(|text| text == what);
    // Microwatts, microamperes, microvolts. Some drivers write what a battery gives as a negative number.
    let amount = |supply: &Path, file: &str| number(&supply.join(file)).map(|n| n.unsigned_abs() as f64 * 1e-6);
    let supplies = names(&folder).ok()?.into_iter().map(|name| folder.join(name));
    let discharging =
        supplies.filter(|s| is(s, "type", "Battery") && is(s, "status", "Discharging") && !is(s, "scope", "Device"));
    let watts: Vec<f64> = discharging
        .filter_map(|supply| {
            let by_current = || Some(amount(&supply, "current_now")? * amount(&supply, "voltage_now")?);
            amount(&supply, "power_now").or_else(by_current)
        })
        .collect();
    (!watts.is_empty()).then(|| watts.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn power_or_current_and_voltage_tell() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, files: &[(&str, &str)]| {
            let folder = root.path().join("sys/class/power_supply").join(name);
            fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(file, text)| fs::write(folder.join(file), format!("{text}\n")).unwrap());
        };
        assert_eq!(watts(root.path()), None);
        put("AC", &[("type", "Mains"), ("online", "0")]);
        put("BAT0", &[("type", "Battery"), ("status", "Discharging"), ("power_now", "-12000000")]);
        assert_eq!(watts(root.path()), Some(12.0));
        put(
            "BAT1",
            &[("type", "Battery"), ("status", "Discharging"), ("current_now", "1000000"), ("voltage_now", "12000000")],
        );
        assert_eq!(watts(root.path()), Some(24.0));
        put("BAT0", &[("status", "Charging")]);
        assert_eq!(watts(root.path()), Some(12.0));
    }
}
