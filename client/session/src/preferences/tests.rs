//! Tests of the table and of reading: what is allowed, what is told, and the formats of older versions.

use super::{layers::lay, *};
use proptest::prelude::*;

fn read(text: &str) -> Result<Preferences, String> {
    lay("prefs.toml", text, &[]).map(|laid| laid.preferences).map_err(|e| e.to_string())
}

fn shown(preferences: &Preferences) -> Vec<String> {
    PREFERENCES.iter().map(|p| (p.get)(preferences)).collect()
}

#[test]
fn a_file_is_read() {
    let p = read(
        "version = 2\nschedule = \"mon-fri 23:30-06:15\" # nights\naway_threads = 3\ntokens_per_s_max = 1.5e3\n\
         hold_on_metered = false\nwaive = [\"idle\", \"disk\"]\nprograms = [\"steam\", \"my game\"]\nin_use_duty_percent = 20\nmemory_mib_min = \"off\"",
    )
    .unwrap();
    assert_eq!((p.away.threads, p.tokens_per_s_max, p.hold_on_metered), (3, 1500.0, false));
    assert_eq!(p.schedule.to_string(), "mon-fri 23:30-06:15");
    assert_eq!((p.waive, p.programs), ([Sensor::Idle, Sensor::Disk].into(), vec!["steam".into(), "my game".into()]));
    assert_eq!((p.in_use.duty_percent, p.memory_mib_min), (Some(20), None));
    assert_eq!(read("").unwrap(), Preferences::default());
}

#[test]
fn a_mistake_is_told_with_file_line_key_and_what_is_allowed() {
    let told = read("version = 2\n\nidle_minutes = 5000 # minutes\n").unwrap_err();
    assert_eq!(told, "prefs.toml, line 3: `idle_minutes` is `5000`; allowed is off, or a whole number from 1 to 1440");
    let told = read("# hi\nidle_minute = 5").unwrap_err();
    assert_eq!(told, "prefs.toml, line 2: there is no preference `idle_minute`; `idle_minutes` may be meant");
    let told = read("device = \"flex\"\npolicy = \n").unwrap_err();
    assert!(told.starts_with("prefs.toml, line 2: this is not TOML: "), "{told}");
    assert!(!told.contains('\n'), "{told}");
    let told = read("device = \"flex\"\ndevice = \"auto\"\n").unwrap_err();
    assert!(told.contains("line 2") && told.contains("duplicate"), "{told}");
    assert!(read("version = 3").unwrap_err().contains("upgrade it"));
    assert!(read("version = \"x\"").unwrap_err().contains("line 1"));
    for bad in [
        "schedule = \"22:00\"",
        "schedule = 22:00:00",
        "device = \"cuda:x\"",
        "waive = \"everything\"",
        "on_battery = 1",
        "in_use_duty_percent = 101",
        "[device]",
        "programs = [1]",
        "tokens_per_s_max = nan",
        "public_name = \"a\\u202eb\"",
    ] {
        let told = read(bad).unwrap_err();
        assert!(told.starts_with("prefs.toml, line 1: `") && told.contains("allowed is"), "{bad}: {told}");
    }
}

/// 0 is a number where nothing is meant by it, another word for `off` where that is the same, and a mistake elsewhere;
/// it is never without a limit what should have none of it.
#[test]
fn zero_is_nothing_and_never_everything() {
    let p = read("version = 2\ndata_mib_month_max = 0\nquota_mib_max = 0\nmemory_mib_min = 0\nin_use_duty_percent = 0")
        .unwrap();
    assert_eq!((p.data_mib_month_max, p.quota_mib_max), (Some(0), Some(0)));
    assert_eq!((p.memory_mib_min, p.in_use.duty_percent), (None, None));
    assert_eq!(
        shown(&p).iter().filter(|value| *value == "0").count(),
        shown(&Preferences::default()).iter().filter(|v| *v == "0").count() + 2
    );
    for key in [
        "temperature_c_max",
        "pressure_percent_max",
        "away_memory_mib_max",
        "in_use_memory_mib_max",
        "write_mib_day_max",
    ] {
        let told = read(&format!("version = 2\n{key} = 0")).unwrap_err();
        assert!(told.contains(&format!("`{key}` is `0`; allowed is off")), "{told}");
    }
    let p = read("version = 2\ndata_mib_month_max = \"off\"\nquota_mib_max = \"off\"\ntemperature_c_max = \"off\"")
        .unwrap();
    assert_eq!((p.data_mib_month_max, p.quota_mib_max, p.temperature_c_max), (None, None, None));
    // The first format knew it as another word for `off` everywhere.
    let p = read("data_mib_month_max = 0\nquota_mib_max = 0\ntemperature_c_max = 0").unwrap();
    assert_eq!((p.data_mib_month_max, p.quota_mib_max, p.temperature_c_max), (None, None, None));
}

/// What the table shows for a default reads back to that default, and is what the table says is allowed.
#[test]
fn every_default_survives_text_and_every_flag_is_its_key() {
    let defaults = Preferences::default();
    let mut again = read(
        "version = 2\nidle_minutes = 77\naway_threads = 7\ndevice = \"flex\"\npolicy = \"always\"\nwaive = \"all\"",
    )
    .unwrap();
    for preference in PREFERENCES {
        assert_eq!(preference.flag, preference.key.replace('_', "-"));
        again.set("test", preference.key, "default").unwrap();
    }
    assert_eq!(again, defaults);
}

#[test]
fn the_first_file_explains_every_key_and_changes_nothing() {
    let text = template();
    assert_eq!(read(&text).unwrap(), Preferences::default());
    assert!(text.lines().all(|line| line.chars().count() <= 101), "{text}");
    // With every comment sign before a key taken away it says the defaults, and is read.
    let keys = |line: &str| PREFERENCES.iter().any(|p| line.starts_with(&format!("# {} = ", p.key)));
    let lines = text.lines().map(|line| if keys(line) { &line[2..] } else { line });
    let full: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert_eq!(full.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count(), PREFERENCES.len() + 1);
    assert_eq!(read(&full).unwrap(), Preferences::default());
}

#[test]
fn the_first_format_is_understood() {
    let idle = read(
        "policy = \"idle\"\nidle_minutes = 5\nschedule = \"01:00-02:00\"\nthreads = 2\ncheckpoint_s = \
        600\nmemory_mib_min = 0",
    )
    .unwrap();
    assert_eq!((idle.policy, idle.idle_minutes, idle.schedule.is_always()), (Policy::Considerate, Some(5), true));
    assert_eq!((idle.away.threads, idle.checkpoint_s, idle.memory_mib_min), (2, 60, None));
    let schedule = read("policy = \"schedule\"").unwrap();
    assert_eq!((schedule.idle_minutes, schedule.schedule.to_string()), (None, "22:00-07:00".into()));
    let schedule = read("policy = \"schedule\"\nidle_minutes = 5\nschedule = \"01:00-02:00\"").unwrap();
    assert_eq!((schedule.idle_minutes, schedule.schedule.to_string()), (None, "01:00-02:00".into()));
    assert_eq!(read("policy = \"always\"").unwrap().policy, Policy::Always);
    // Not so in a file that says that it is of today's.
    assert!(read("version = 2\npolicy = \"idle\"").unwrap_err().contains("allowed is considerate or always"));
    assert!(read("policy = \"idel\"").unwrap_err().contains("line 1: `policy`"));
}

#[test]
fn the_first_format_is_rewritten_with_its_comments() {
    let before = "# mine\npolicy = \"schedule\" # nights only\nidle_minutes = 5\n\n# cores\nthreads = 2\n";
    let after = migrate::text("prefs.toml", before).unwrap();
    assert_eq!(
        after,
        "version = 2\n# mine\npolicy = \"considerate\" # nights only\nidle_minutes = \"off\"\n\n# cores\naway_threads \
        = 2\nschedule = \"22:00-07:00\"\n"
    );
    assert_eq!(read(&after).unwrap(), read(before).unwrap());
    let before = "policy = \"idle\"\nschedule = \"01:00-02:00\" # unused\nversion = 1\n";
    let after = migrate::text("prefs.toml", before).unwrap();
    assert_eq!(after, "version = 2\npolicy = \"considerate\"\n# schedule = \"01:00-02:00\" # unused\n");
    assert_eq!(migrate::text("prefs.toml", &after).unwrap(), after);
}

#[test]
fn the_table_is_one_page_of_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/preferences.md");
    if std::env::var_os("NIGHTJAR_WRITE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document(),
        "docs/preferences.md is not what the table says; run this test with NIGHTJAR_WRITE_DOCS=1"
    );
}

#[test]
fn a_row_tells_what_a_page_needs() {
    let laid = lay("prefs.toml", "version = 2\nidle_minutes = 3", &[]).unwrap();
    let rows = row::rows(&laid.preferences, |key| laid.source(key));
    let json = serde_json::to_value(&rows).unwrap();
    let idle = json.as_array().unwrap().iter().find(|r| r["key"] == "idle_minutes").unwrap();
    assert_eq!(
        (idle["kind"].as_str(), idle["value"].as_str(), idle["default"].as_str()),
        (Some("number"), Some("3"), Some("10"))
    );
    assert_eq!(
        (idle["source"].as_str(), idle["off"].as_bool(), idle["max"].as_f64()),
        (Some("file"), Some(true), Some(1440.0))
    );
    let waive = json.as_array().unwrap().iter().find(|r| r["key"] == "waive").unwrap();
    assert_eq!((waive["kind"].as_str(), waive["choices"][0]["value"].as_str()), (Some("choices"), Some("idle")));
    // Every choice offered is allowed.
    for row in &rows {
        for choice in row.choices.iter().flatten() {
            Preferences::default().set("test", row.key, choice.value).unwrap();
        }
    }
}

proptest! {
    /// Neither text from outside nor a value can make the reader panic, and what is allowed reads back as it is shown.
    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,80}", key in 0..PREFERENCES.len(), value in "[ -~é\n]{0,20}") {
        let _ = read(&text);
        let _ = read(&format!("{} = {value}", PREFERENCES[key].key));
        let mut p = Preferences::default();
        if p.set("test", PREFERENCES[key].key, &value).is_ok() {
            let mut again = Preferences::default();
            again.set("test", PREFERENCES[key].key, &(PREFERENCES[key].get)(&p)).unwrap();
            prop_assert_eq!(shown(&again), shown(&p));
        }
    }
}

/// What is shown is taken, in whatever letters.
#[test]
fn every_value_is_taken_as_it_is_shown() {
    let mut p = Preferences::default();
    let mut set = |key: &str, value: &str| p.set("here", key, value).map(|()| (Preference::find(key).unwrap().get)(&p));
    for key in ["waive", "programs"] {
        for nothing in ["none", "(none)", "nothing", "off", "", "None", "OFF"] {
            assert_eq!(set(key, nothing).unwrap(), "", "{key} {nothing}");
        }
    }
    for (key, said, meant) in [
        ("waive", "IDLE, Power", "idle, power"),
        ("waive", "ALL", "idle, power, temperature, metered, full_screen, programs, memory, disk"),
        ("programs", "Steam", "Steam"),
        ("public_name", " Ada L. ", "Ada L."),
        ("public_name", "Off", "off"),
        ("public_name", "", "off"),
        ("policy", "ALWAYS", "always"),
        ("schedule", "Always", "always"),
        ("on_battery", "True", "true"),
        ("hold_on_metered", "Off", "false"),
        ("idle_minutes", "OFF", "off"),
        ("device", "WGPU:1", "wgpu:1"),
        ("policy", "Default", "considerate"),
    ] {
        assert_eq!(set(key, said).unwrap(), meant, "{key} {said}");
    }
    // Every bound is told, the upper one too.
    for preference in PREFERENCES {
        if let Kind::Number { max, .. } = preference.kind {
            assert!(preference.allowed.contains(&max.to_string()), "{}", preference.key);
        }
    }
}
