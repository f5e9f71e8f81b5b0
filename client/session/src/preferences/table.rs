//! The table of preferences: each one's key, words and effect, in one place.

use super::{Group, Kind, Policy, Preference, Sensor, Week};
use nightjar_shared::public_name::PublicName;
use std::ops::RangeInclusive;

const fn number(unit: &'static str, min: u32, max: u32) -> Kind {
    Kind::Number { unit, min: min as f64, max: max as f64, off: false }
}

const fn number_or_off(unit: &'static str, min: u32, max: u32) -> Kind {
    Kind::Number { unit, min: min as f64, max: max as f64, off: true }
}

/// All of them, in the order in which they are shown.
pub const PREFERENCES: &[Preference] = &[
    Preference {
        key: "policy",
        flag: "policy",
        group: Group::When,
        label: "Whose comfort counts",
        value_name: "POLICY",
        help: "considerate: every condition below holds training; always: only heat, short memory and a full disk do, \
            as far as they can be seen (for machines that nobody sits at)",
        allowed: "considerate or always",
        kind: Kind::Choice(&[
            ("considerate", "mine: every condition counts"),
            ("always", "the run's: train whenever it is safe"),
        ]),
        set: |p, text| {
            p.policy = match text {
                "considerate" => Policy::Considerate,
                "always" => Policy::Always,
                _ => return None,
            };
            Some(())
        },
        get: |p| format!("{:?}", p.policy).to_lowercase(),
    },
    Preference {
        key: "idle_minutes",
        flag: "idle-minutes",
        group: Group::When,
        label: "Minutes without input until nobody uses the computer",
        value_name: "MINUTES",
        help: "Minutes without keyboard or mouse input (without a desktop: at terminals) after which nobody uses the \
            computer; off: it always counts as unused",
        allowed: "off, or a whole number from 1 to 1440",
        kind: number_or_off("minutes", 1, 1440),
        set: |p, text| whole_or_none(text, 1..=1440).map(|n| p.idle_minutes = n),
        get: |p| or_off(p.idle_minutes),
    },
    Preference {
        key: "schedule",
        flag: "schedule",
        group: Group::When,
        label: "Hours of the week",
        value_name: "HOURS",
        help: "Hours in which it may train, in local time; they may cross midnight",
        allowed: "always, or days and hours such as `22:00-07:00` or `mon-fri 19:00-07:00, sat-sun 00:00-24:00`",
        kind: Kind::Hours,
        set: |p, text| Week::parse(text).map(|w| p.schedule = w),
        get: |p| p.schedule.to_string(),
    },
    Preference {
        key: "on_battery",
        flag: "on-battery",
        group: Group::Conditions,
        label: "Train on battery too",
        value_name: "BOOL",
        help: "Whether it may train while the computer is not plugged in",
        allowed: "true or false",
        kind: Kind::Switch,
        set: |p, text| switch(text).map(|b| p.on_battery = b),
        get: |p| p.on_battery.to_string(),
    },
    Preference {
        key: "charge_percent_min",
        flag: "charge-percent-min",
        group: Group::Conditions,
        label: "Least charge on battery",
        value_name: "PERCENT",
        help: "How full the battery must be to train on it, where on_battery allows that; after a hold, 5 points \
            fuller (where that is possible)",
        allowed: "off, or a whole number from 1 to 100",
        kind: number_or_off("%", 1, 100),
        set: |p, text| whole_or_none(text, 1..=100).map(|n| p.charge_percent_min = n),
        get: |p| or_off(p.charge_percent_min),
    },
    Preference {
        key: "temperature_c_max",
        flag: "temperature-c-max",
        group: Group::Conditions,
        label: "Highest temperature",
        value_name: "CELSIUS",
        help: "The hottest that processor or GPU may be, in °C; it slows down from 5 °C below, and after a hold waits \
            until it is 5 °C cooler",
        allowed: "off (no limit), or a whole number from 40 to 110",
        kind: number_or_off("°C", 40, 110),
        set: |p, text| whole_or_off(text, 40..=110).map(|n| p.temperature_c_max = n),
        get: |p| or_off(p.temperature_c_max),
    },
    Preference {
        key: "hold_on_metered",
        flag: "hold-on-metered",
        group: Group::Conditions,
        label: "Hold on metered networks",
        value_name: "BOOL",
        help: "Whether it holds while the network is paid for by the byte",
        allowed: "true or false",
        kind: Kind::Switch,
        set: |p, text| switch(text).map(|b| p.hold_on_metered = b),
        get: |p| p.hold_on_metered.to_string(),
    },
    Preference {
        key: "hold_on_full_screen",
        flag: "hold-on-full-screen",
        group: Group::Conditions,
        label: "Hold during games and films",
        value_name: "BOOL",
        help: "Whether it holds while a window covers a whole screen: games, films, talks",
        allowed: "true or false",
        kind: Kind::Switch,
        set: |p, text| switch(text).map(|b| p.hold_on_full_screen = b),
        get: |p| p.hold_on_full_screen.to_string(),
    },
    Preference {
        key: "programs",
        flag: "programs",
        group: Group::Conditions,
        label: "Hold while these programs run",
        value_name: "NAMES",
        help: "Programs beside which it does not train, by the names of their processes",
        allowed: "up to 64 names of up to 64 letters with commas between, such as `steam, blender`, or none",
        kind: Kind::Programs,
        set: |p, text| {
            let names = list(text);
            let good =
                names.len() <= 64 && names.iter().all(|n| n.chars().count() <= 64 && !n.contains(char::is_control));
            good.then(|| p.programs = names)
        },
        get: |p| p.programs.join(", "),
    },
    Preference {
        key: "pressure_percent_max",
        flag: "pressure-percent-max",
        group: Group::Conditions,
        label: "Slow down when other programs wait",
        value_name: "PERCENT",
        help: "Share of the last ten seconds that programs may have waited for processor, memory or disk before \
            training slows down (Linux)",
        allowed: "off, or a whole number from 1 to 100",
        kind: number_or_off("%", 1, 100),
        set: |p, text| whole_or_off(text, 1..=100).map(|n| p.pressure_percent_max = n),
        get: |p| or_off(p.pressure_percent_max),
    },
    Preference {
        key: "memory_mib_min",
        flag: "memory-mib-min",
        group: Group::Conditions,
        label: "Memory that stays free",
        value_name: "MIB",
        help: "Memory that must stay free, in MiB; after a hold, a quarter more",
        allowed: "off, or a whole number from 1 to 1048576",
        kind: number_or_off("MiB", 1, 1 << 20),
        set: |p, text| whole_or_none(text, 1..=1 << 20).map(|n| p.memory_mib_min = n),
        get: |p| or_off(p.memory_mib_min),
    },
    Preference {
        key: "disk_mib_min",
        flag: "disk-mib-min",
        group: Group::Conditions,
        label: "Disk space that stays free",
        value_name: "MIB",
        help: "Disk space that must stay free where Nightjar keeps its files, in MiB; after a hold, a quarter more",
        allowed: "off, or a whole number from 1 to 1073741824",
        kind: number_or_off("MiB", 1, 1 << 30),
        set: |p, text| whole_or_none(text, 1..=1 << 30).map(|n| p.disk_mib_min = n),
        get: |p| or_off(p.disk_mib_min),
    },
    Preference {
        key: "data_mib_month_max",
        flag: "data-mib-month-max",
        group: Group::Conditions,
        label: "Data in a month",
        value_name: "MIB",
        help: "Most data in a calendar month, up and down together, in MiB; 0 is none at all, off is no limit",
        allowed: "off (no limit), or a whole number from 0 (none at all) to 1073741824",
        kind: number_or_off("MiB", 0, 1 << 30),
        set: |p, text| whole_or_off(text, 0..=1 << 30).map(|n| p.data_mib_month_max = n),
        get: |p| or_off(p.data_mib_month_max),
    },
    Preference {
        key: "waive",
        flag: "waive",
        group: Group::Conditions,
        label: "Train even where these cannot be seen",
        value_name: "SENSORS",
        help: "Sensors whose silence does not forbid: what cannot be known otherwise counts as forbidding",
        allowed: "any of idle, power, temperature, metered, full_screen, programs, memory, disk with commas between, \
            all, or none",
        kind: Kind::Choices(&[
            ("idle", "whether somebody uses the computer"),
            ("power", "whether it is plugged in"),
            ("temperature", "how hot it is"),
            ("metered", "whether the network is metered"),
            ("full_screen", "whether a window covers a screen"),
            ("programs", "which programs run"),
            ("memory", "how much memory is free"),
            ("disk", "how much of the disk is free"),
        ]),
        set: |p, text| {
            let named = |name: &String| Sensor::ALL.into_iter().find(|s| s.name() == name);
            let sensors = match text {
                "all" => Some(Sensor::ALL.into()),
                _ => list(text).iter().map(named).collect(),
            };
            sensors.map(|s| p.waive = s)
        },
        get: |p| p.waive.iter().map(|s| s.name()).collect::<Vec<_>>().join(", "),
    },
    Preference {
        key: "away_duty_percent",
        flag: "away-duty-percent",
        group: Group::Away,
        label: "Share of the computer's time",
        value_name: "PERCENT",
        help: "Share of the time that GPU and CPU may compute while nobody uses the computer; off: none",
        allowed: "off, or a whole number from 1 to 100",
        kind: number_or_off("%", 1, 100),
        set: |p, text| whole_or_none(text, 1..=100).map(|n| p.away.duty_percent = n.map(|n| n as u8)),
        get: |p| or_off(p.away.duty_percent.map(u64::from)),
    },
    Preference {
        key: "away_threads",
        flag: "away-threads",
        group: Group::Away,
        label: "Threads",
        value_name: "THREADS",
        help: "Threads for training on the CPU while nobody uses the computer; 0 takes half of the cores",
        allowed: "a whole number from 0 to 1024",
        kind: number("threads", 0, 1024),
        set: |p, text| whole(text, 0..=1024).map(|n| p.away.threads = n),
        get: |p| p.away.threads.to_string(),
    },
    Preference {
        key: "away_memory_mib_max",
        flag: "away-memory-mib-max",
        group: Group::Away,
        label: "Most memory",
        value_name: "MIB",
        help: "Memory that training may take while nobody uses the computer, in MiB",
        allowed: "off (no limit), or a whole number from 64 to 1048576",
        kind: number_or_off("MiB", 64, 1 << 20),
        set: |p, text| whole_or_off(text, 64..=1 << 20).map(|n| p.away.memory_mib_max = n),
        get: |p| or_off(p.away.memory_mib_max),
    },
    Preference {
        key: "in_use_duty_percent",
        flag: "in-use-duty-percent",
        group: Group::InUse,
        label: "Share of the computer's time",
        value_name: "PERCENT",
        help: "Share of the time that GPU and CPU may compute while somebody uses the computer; off: none",
        allowed: "off, or a whole number from 1 to 100",
        kind: number_or_off("%", 1, 100),
        set: |p, text| whole_or_none(text, 1..=100).map(|n| p.in_use.duty_percent = n.map(|n| n as u8)),
        get: |p| or_off(p.in_use.duty_percent.map(u64::from)),
    },
    Preference {
        key: "in_use_threads",
        flag: "in-use-threads",
        group: Group::InUse,
        label: "Threads",
        value_name: "THREADS",
        help: "Threads for training on the CPU while somebody uses the computer; 0 takes half of the cores",
        allowed: "a whole number from 0 to 1024",
        kind: number("threads", 0, 1024),
        set: |p, text| whole(text, 0..=1024).map(|n| p.in_use.threads = n),
        get: |p| p.in_use.threads.to_string(),
    },
    Preference {
        key: "in_use_memory_mib_max",
        flag: "in-use-memory-mib-max",
        group: Group::InUse,
        label: "Most memory",
        value_name: "MIB",
        help: "Memory that training may take while somebody uses the computer, in MiB",
        allowed: "off (no limit), or a whole number from 64 to 1048576",
        kind: number_or_off("MiB", 64, 1 << 20),
        set: |p, text| whole_or_off(text, 64..=1 << 20).map(|n| p.in_use.memory_mib_max = n),
        get: |p| or_off(p.in_use.memory_mib_max),
    },
    Preference {
        key: "device",
        flag: "device",
        group: Group::Work,
        label: "What trains",
        value_name: "DEVICE",
        help: "What trains: auto, flex (the CPU), wgpu (a GPU), wgpu:N (the N-th GPU) or, in a build with CUDA, \
            cuda:N; another one goes on from the last checkpoint",
        allowed: "auto, flex, wgpu, wgpu:N or cuda:N",
        kind: Kind::Text,
        set: |p, text| {
            let numbered =
                ["wgpu:", "cuda:"].iter().any(|kind| text.strip_prefix(kind).is_some_and(|n| n.parse::<u16>().is_ok()));
            (numbered || ["auto", "flex", "wgpu"].contains(&text)).then(|| p.device = text.into())
        },
        get: |p| p.device.clone(),
    },
    Preference {
        key: "tokens_per_s_max",
        flag: "tokens-per-s-max",
        group: Group::Work,
        label: "Most tokens a second",
        value_name: "TOKENS",
        help: "Most tokens to train on in a second; 0 means no cap",
        allowed: "0 (no cap), or a number from 1 to 1000000000000",
        kind: Kind::Number { unit: "tokens/s", min: 0.0, max: 1e12, off: false },
        set: |p, text| {
            let n: f64 = text.parse().ok()?;
            // What is no number is in no range; -0 is 0.
            let n = if n == 0.0 { Some(0.0) } else { Some(n).filter(|n| (1.0..=1e12).contains(n)) };
            n.map(|n| p.tokens_per_s_max = n)
        },
        get: |p| p.tokens_per_s_max.to_string(),
    },
    Preference {
        key: "checkpoint_s",
        flag: "checkpoint-s",
        group: Group::Work,
        label: "Seconds between checkpoints",
        value_name: "SECONDS",
        help: "Seconds between two checkpoints of a lease, at least: about this much training is lost in a crash. \
            Large models are saved less often (see write_mib_day_max)",
        allowed: "a whole number from 1 to 60",
        kind: number("s", 1, 60),
        set: |p, text| whole(text, 1..=60).map(|n| p.checkpoint_s = n),
        get: |p| p.checkpoint_s.to_string(),
    },
    Preference {
        key: "free_memory_on_yield",
        flag: "free-memory-on-yield",
        group: Group::Work,
        label: "Free the memory while it holds",
        value_name: "BOOL",
        help: "Whether training gives its memory back when it yields, and starts a little later when it goes on; on a \
            GPU it always does",
        allowed: "true or false",
        kind: Kind::Switch,
        set: |p, text| switch(text).map(|b| p.free_memory_on_yield = b),
        get: |p| p.free_memory_on_yield.to_string(),
    },
    Preference {
        key: "quota_mib_max",
        flag: "quota-mib-max",
        group: Group::Work,
        label: "Most disk space for Nightjar's files",
        value_name: "MIB",
        help: "Most that Nightjar may keep on the disk (weights, shards, checkpoints), in MiB; what is oldest goes \
            first; 0 is nothing at all, off is no limit",
        allowed: "off (no limit), or a whole number from 0 (nothing at all) to 1073741824",
        kind: number_or_off("MiB", 0, 1 << 30),
        set: |p, text| whole_or_off(text, 0..=1 << 30).map(|n| p.quota_mib_max = n),
        get: |p| or_off(p.quota_mib_max),
    },
    Preference {
        key: "write_mib_day_max",
        flag: "write-mib-day-max",
        group: Group::Work,
        label: "Most that checkpoints write in a day",
        value_name: "MIB",
        help: "Most that checkpoints may write to the disk in a day, in MiB, since disks wear out by it: the larger a \
            model, the further apart its checkpoints are; what a lease itself writes is counted in the status, and not \
            held back",
        allowed: "off (no limit), or a whole number from 64 to 1073741824",
        kind: number_or_off("MiB", 64, 1 << 30),
        set: |p, text| whole_or_off(text, 64..=1 << 30).map(|n| p.write_mib_day_max = n),
        get: |p| or_off(p.write_mib_day_max),
    },
    Preference {
        key: "public_name",
        flag: "public-name",
        group: Group::Others,
        label: "Show this name on the run's public page",
        value_name: "NAME",
        help: "The name by which everybody may read on the run's public page that you help, if it has one; off: you \
            are counted there, and not named. The name of this device is for the people of the run alone",
        allowed: "off, or a name of up to 40 characters with a letter or a digit in it",
        kind: Kind::Name,
        set: |p, text| {
            let name = if is_nothing(text) { None } else { Some(PublicName::parse(text).ok()?) };
            p.public_name = name;
            Some(())
        },
        get: |p| p.public_name.as_ref().map_or("off".into(), ToString::to_string),
    },
];

fn whole(text: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|n| allowed.contains(n))
}

/// A number or `off`.
fn whole_or_off(text: &str, allowed: RangeInclusive<u64>) -> Option<Option<u64>> {
    if text == "off" { Some(None) } else { whole(text, allowed).map(Some) }
}

/// A number or `off`, where 0 means the same: a floor of nothing is no floor.
fn whole_or_none(text: &str, allowed: RangeInclusive<u64>) -> Option<Option<u64>> {
    if text == "0" { Some(None) } else { whole_or_off(text, allowed) }
}

fn or_off(number: Option<u64>) -> String {
    number.map_or("off".into(), |n| n.to_string())
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// As nothing is shown, and in other words for it.
fn is_nothing(text: &str) -> bool {
    ["", "none", "(none)", "nothing", "off"].contains(&text.to_lowercase().as_str())
}

/// What stands between commas, each once.
fn list(text: &str) -> Vec<String> {
    let mut items: Vec<String> = vec![];
    if is_nothing(text) {
        return items;
    }
    for item in text.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        if !items.iter().any(|i| i == item) {
            items.push(item.into());
        }
    }
    items
}
