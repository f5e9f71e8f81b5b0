//! Tests of the file as a running program holds it: layers, edits that leave comments alone, mistakes, reloading.

use super::*;
use crate::preferences::{LAST_GOOD_FILE, Policy};
use proptest::prelude::*;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(text: &str) -> Self {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        place.write(text);
        place
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(PREFERENCES_FILE)
    }

    /// Replaced as a whole, as editors do it; so it never has the stamp that it had.
    fn write(&self, text: &str) {
        write(&self.path(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn load(&self) -> Result<PreferencesFile, String> {
        self.load_under(&[], &[])
    }

    fn load_under(&self, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<PreferencesFile, String> {
        let environment = environment.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
        let last_good = self.folder.path().join(LAST_GOOD_FILE);
        PreferencesFile::load_under(&self.path(), &last_good, environment, flags).map_err(|e| e.to_string())
    }
}

#[test]
fn flags_beat_the_environment_that_beats_the_file() {
    let place = Place::new("version = 2\nidle_minutes = 1\naway_threads = 1\ncheckpoint_s = 1\n");
    let environment =
        [("NIGHTJAR_AWAY_THREADS", "2"), ("NIGHTJAR_CHECKPOINT_S", "2"), ("NIGHTJAR_HOME", "/"), ("AWAY_THREADS", "9")];
    let file = place.load_under(&environment, &[("checkpoint_s", "3")]).unwrap();
    let p = file.preferences();
    assert_eq!((p.idle_minutes, p.away.threads, p.checkpoint_s, p.in_use.threads), (Some(1), 2, 3, 1));
    let sources = ["idle_minutes", "away_threads", "checkpoint_s", "in_use_threads"].map(|key| file.source(key));
    assert_eq!(sources, [Source::File, Source::Environment, Source::CommandLine, Source::Default]);
    let told = place.load_under(&[("NIGHTJAR_DEVICE", "abacus")], &[]).unwrap_err();
    assert_eq!(
        told,
        "NIGHTJAR_DEVICE in the environment: `device` is `abacus`; allowed is auto, flex, wgpu, wgpu:N or cuda:N"
    );
    assert!(place.load_under(&[], &[("device", "abacus")]).unwrap_err().starts_with("command line: `device`"));
}

#[test]
fn an_edit_leaves_everything_else_alone() {
    let place = Place::new(
        "version = 2\n# why\nidle_minutes =  5   # five\r\n\nprograms = [ # games\n  \"a\",\n] # end\n# on_battery = \
        false",
    );
    let mut file = place.load().unwrap();
    file.set("idle_minutes", "off").unwrap();
    file.set("programs", "b, c,b").unwrap();
    file.set("on_battery", "yes").unwrap();
    file.set("schedule", "mon-fri 20:00-07:00").unwrap();
    assert_eq!(
        place.text(),
        "version = 2\n# why\nidle_minutes =  \"off\"   # five\r\n\nprograms = [\"b\", \"c\"] # end\non_battery = \
        true\nschedule = \"mon-fri 20:00-07:00\"\n"
    );
    assert_eq!((file.preferences().idle_minutes, file.preferences().on_battery), (None, true));
    file.set("programs", "default").unwrap();
    assert!(place.text().contains("\n# programs = [\"b\", \"c\"] # end\n"));
    assert!(file.preferences().programs.is_empty());
    let before = place.text();
    let told = file.set("idle_minutes", "0.5").unwrap_err().to_string();
    assert_eq!(told, "nothing was changed: `idle_minutes` is `0.5`; allowed is off, or a whole number from 1 to 1440");
    assert!(file.set("idel_minutes", "1").unwrap_err().to_string().contains("`idle_minutes` may be meant"));
    assert_eq!(place.text(), before);
}

#[test]
fn the_first_set_writes_the_explained_file() {
    let place = Place::new("");
    fs::remove_file(place.path()).unwrap();
    let mut file = place.load().unwrap();
    file.set("device", "wgpu:1").unwrap();
    assert_eq!(place.text(), template().replace("# device = \"auto\"", "device = \"wgpu:1\""));
}

#[test]
fn what_lies_beside_the_file_stays() {
    let place = Place::new("");
    let theirs = place.path().with_file_name("prefs.toml.new");
    fs::write(&theirs, "dear").unwrap();
    place.load().unwrap().set("policy", "always").unwrap();
    assert_eq!(fs::read(&theirs).unwrap(), b"dear");
    assert!(place.text().contains("always"));
    let mut beside = fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(beside.all(|name| !name.display().to_string().starts_with('.')), "nothing is left behind");
}

#[test]
fn a_set_upgrades_the_format() {
    let place = Place::new("policy = \"idle\" # as ever\nschedule = \"01:00-02:00\"\n");
    let mut file = place.load().unwrap();
    file.set("schedule", "03:00-04:00").unwrap();
    assert_eq!(place.text(), "version = 2\npolicy = \"considerate\" # as ever\nschedule = \"03:00-04:00\"\n");
}

#[test]
fn the_last_good_one_stays_in_force() {
    let place = Place::new("version = 2\nidle_minutes = 7\n");
    let mut file = place.load().unwrap();
    assert!(!file.reload_if_changed());
    place.write("version = 2\nidle_minutes = 7\ncheckpoint_s = 0\n");
    assert!(!file.reload_if_changed());
    assert!(file.error().unwrap().to_string().contains("line 3: `checkpoint_s` is `0`"));
    assert_eq!(file.preferences().idle_minutes, Some(7));
    assert!(file.set("idle_minutes", "9").is_err(), "a file with a mistake is not built on");

    // Over a restart too, and under other flags.
    let mut file = place.load_under(&[], &[("checkpoint_s", "9")]).unwrap();
    assert!(file.error().is_some());
    assert_eq!((file.preferences().idle_minutes, file.preferences().checkpoint_s), (Some(7), 9));
    place.write("version = 2\nidle_minutes = 8\n");
    assert!(file.reload_if_changed() && file.error().is_none());
    assert_eq!(file.preferences().idle_minutes, Some(8));

    let fresh = Place::new("idle_minutes = -1");
    assert!(fresh.load().unwrap_err().contains("line 1"), "there is no good one yet");
    fresh.write(&"#".repeat(BYTES_MAX as usize + 1));
    assert!(fresh.load().unwrap_err().contains("longer than"));
}

/// Some editors remove a file before they write it anew.
#[test]
fn a_file_that_is_gone_for_a_moment_counts_for_nothing() {
    let place = Place::new("version = 2\npolicy = \"always\"\n");
    let mut file = place.load().unwrap();
    fs::remove_file(place.path()).unwrap();
    assert!(!file.reload_if_changed());
    place.write("version = 2\npolicy = \"always\"\n");
    assert!(!file.reload_if_changed());
    assert_eq!(file.preferences().policy, Policy::Always);
    fs::remove_file(place.path()).unwrap();
    assert!(!file.reload_if_changed() && file.reload_if_changed());
    assert_eq!(file.preferences(), &Preferences::default());
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let place = Place::new("version = 2\n");
    let real = place.folder.path().join("dotfiles.toml");
    fs::rename(place.path(), &real).unwrap();
    std::os::unix::fs::symlink(&real, place.path()).unwrap();
    place.load().unwrap().set("device", "flex").unwrap();
    assert!(fs::symlink_metadata(place.path()).unwrap().is_symlink());
    assert!(fs::read_to_string(real).unwrap().contains("device = \"flex\""));
}

/// As an editor leaves it that was told to write Latin-1.
#[test]
fn a_file_that_is_no_text_is_named_with_line_and_byte() {
    let place = Place::new("");
    fs::write(place.path(), b"version = 2\nprograms = \"caf\xe9\"\n").unwrap();
    let told = place.load().unwrap_err().to_string();
    assert!(told.contains("prefs.toml, line 2: byte 28 of the file is no UTF-8"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever is set in whatever order, the file says it and its comments stay.
    #[test]
    fn any_edits_hold(edits in prop::collection::vec((0usize..8, prop::bool::ANY), 1..12)) {
        let values = [
            ("idle_minutes", "3", "off"), ("schedule", "always", "sat 10:00-11:00"), ("waive", "idle, disk", ""), ("programs", "a\"b, c", "é"),
            ("on_battery", "true", "default"), ("device", "flex", "cuda:3"), ("tokens_per_s_max", "1.5", "1000"), ("away_duty_percent", "off", "50"),
        ];
        let place = Place::new("# first\n\nversion = 2 # two\n  # last");
        let mut file = place.load().unwrap();
        let mut expected = Preferences::default();
        for (which, other) in edits {
            let (key, one, two) = values[which];
            let value = if other { two } else { one };
            file.set(key, value).unwrap();
            expected.set("test", key, value).unwrap();
            prop_assert_eq!(file.preferences(), &expected);
        }
        let again = place.load().unwrap();
        prop_assert_eq!(again.preferences(), &expected);
        let text = place.text();
        prop_assert!(text.starts_with("# first\n\nversion = 2 # two\n  # last"), "{}", text);
    }
}

/// Whoever made the file read-only, a person or a program that writes it for them, meant it. Taking its place would
/// take nothing but its folder's leave.
#[test]
fn a_file_that_is_read_only_is_never_replaced() {
    let place = Place::new("version = 2\nidle_minutes = 5\n");
    let mut file = place.load().unwrap();
    let set_read_only = |read_only: bool| {
        let mut permissions = fs::metadata(place.path()).unwrap().permissions();
        permissions.set_readonly(read_only);
        fs::set_permissions(place.path(), permissions).unwrap();
    };
    set_read_only(true);
    for told in [file.set("idle_minutes", "7"), file.replace("version = 2\nidle_minutes = 7\n")] {
        let told = told.unwrap_err().to_string();
        assert!(told.contains(&place.path().display().to_string()) && told.contains("is read-only"), "{told}");
    }
    assert_eq!((place.text(), file.preferences().idle_minutes), ("version = 2\nidle_minutes = 5\n".into(), Some(5)));
    set_read_only(false);
    file.set("idle_minutes", "7").unwrap();
    assert_eq!(place.text(), "version = 2\nidle_minutes = 7\n");
}

#[cfg(unix)]
#[test]
fn what_a_link_leads_to_is_kept_as_well() {
    let place = Place::new("");
    let elsewhere = place.folder.path().join("dotfiles.toml");
    fs::remove_file(place.path()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.path()).unwrap();
    let mut file = place.load().unwrap();
    let told = file.set("idle_minutes", "7").unwrap_err().to_string();
    assert!(told.contains("a link to a file that is not there") && place.path().is_symlink(), "{told}");
    fs::write(&elsewhere, "version = 2\nidle_minutes = 5\n").unwrap();
    let mut permissions = fs::metadata(&elsewhere).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&elsewhere, permissions).unwrap();
    let mut file = place.load().unwrap();
    assert!(file.set("idle_minutes", "7").unwrap_err().to_string().contains("is read-only"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "version = 2\nidle_minutes = 5\n");
}

/// Notepad and PowerShell begin UTF-8 with a mark.
#[test]
fn a_byte_order_mark_is_no_part_of_the_first_key() {
    let place = Place::new("\u{feff}version = 2\r\nidle_minutes = 5\r\n");
    let mut file = place.load().unwrap();
    assert_eq!((file.preferences().idle_minutes, file.error().is_none()), (Some(5), true));
    file.set("idle_minutes", "7").unwrap();
    assert_eq!(place.load().unwrap().preferences().idle_minutes, Some(7));
    file.replace("\u{feff}version = 2\nidle_minutes = 9\n").unwrap();
    assert_eq!(place.load().unwrap().preferences().idle_minutes, Some(9));
    assert!(place.text().starts_with("version"), "it is not written again");
    // Where the first key is the one that is set.
    place.write("\u{feff}idle_minutes = 5\r\nversion = 2\r\n");
    place.load().unwrap().set("idle_minutes", "8").unwrap();
    assert_eq!(place.load().unwrap().preferences().idle_minutes, Some(8));
    assert_eq!(place.text().matches("idle_minutes").count(), 1, "{}", place.text());
    // A mistake is told with the line that it stands in.
    place.write("\u{feff}version = 2\nidle_minutes = soon\n");
    assert!(place.load().unwrap().error().is_some_and(|mistake| mistake.to_string().contains("line 2")));
}

/// What stands in the file's place may be a pipe, whose opening never ends: the owner is served meanwhile.
#[cfg(unix)]
#[test]
fn a_pipe_in_the_files_place_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let [path, good] = ["prefs.toml", "good"].map(|name| folder.path().join(name));
    let mut file = PreferencesFile::load(&path, &good, &[]).unwrap();
    file.set("idle_minutes", "7").unwrap();
    fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(!file.reload_if_changed());
    assert!(file.error().is_some_and(|e| e.to_string().contains("no plain file")));
    assert!(file.set("idle_minutes", "8").is_err());
    assert_eq!(file.preferences().idle_minutes, Some(7));
    let again = PreferencesFile::load(&path, &good, &[]).unwrap();
    assert_eq!(again.preferences().idle_minutes, Some(7), "what was last good is in force");
}
