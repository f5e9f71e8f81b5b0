//! Older formats of the file. A file without a `version` is of version 1, which had one `policy` for everything. It is
//! read as it is, and rewritten in today's format when a preference in it is next set; its comments and lines stay.

use super::{
    PreferencesError, VERSION,
    edit::{self, Edit},
    layers::{self, Entry},
};

/// Keys of version 1 that have another name now: before, now. As flags the old names still work.
pub const FLAGS_BEFORE: [(&str, &str); 1] = [("threads", "away_threads")];

/// Keys for which 0 was another word for `off`.
const ZERO_WAS_OFF: [&str; 4] = ["temperature_c_max", "pressure_percent_max", "data_mib_month_max", "quota_mib_max"];

/// The longest time between checkpoints that is allowed today, in seconds.
const CHECKPOINT_S_MAX: u64 = 60;

/// A file's entries as they would stand in today's format.
pub(super) fn entries(mut entries: Vec<Entry>, file: &str) -> Result<Vec<Entry>, PreferencesError> {
    let version = layers::version_of(&entries, file)?;
    if version < 2 {
        for edit in from_1(&entries) {
            edit.apply_to(&mut entries);
        }
    }
    entries.retain(|e| e.key != "version");
    Ok(entries)
}

/// A file's text in today's format.
pub(super) fn text(file: &str, text: &str) -> Result<String, PreferencesError> {
    let entries = layers::read(file, text)?;
    if layers::version_of(&entries, file)? == VERSION {
        return Ok(text.into());
    }
    let mut text = text.to_owned();
    for edit in from_1(&entries) {
        text = edit::apply(file, &text, &edit)?;
    }
    text = edit::without_line(file, &text, "version")?;
    Ok(format!("version = {VERSION}\n{text}"))
}

/// What makes version 2 of version 1.
fn from_1(entries: &[Entry]) -> Vec<Edit> {
    let value = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let mut edits = vec![];
    let mut put = |key: &str, value: &str| edits.push(Edit::Put { key: key.into(), value: value.into() });
    match value("policy") {
        // The hours of a schedule counted for `schedule` only.
        Some("idle") => {
            put("policy", "considerate");
            edits.push(Edit::Drop { key: "schedule".into() });
        }
        Some("schedule") => {
            put("policy", "considerate");
            put("idle_minutes", "off");
            if value("schedule").is_none() {
                put("schedule", "22:00-07:00");
            }
        }
        _ => {}
    }
    if value("checkpoint_s").and_then(|s| s.parse::<u64>().ok()).is_some_and(|s| (CHECKPOINT_S_MAX..=3600).contains(&s))
    {
        edits.push(Edit::Put { key: "checkpoint_s".into(), value: CHECKPOINT_S_MAX.to_string() });
    }
    for key in ZERO_WAS_OFF {
        if value(key) == Some("0") {
            edits.push(Edit::Put { key: key.into(), value: "off".into() });
        }
    }
    for (before, now) in FLAGS_BEFORE {
        if value(before).is_some() {
            edits.push(Edit::Rename { key: before.into(), to: now.into() });
        }
    }
    edits
}
