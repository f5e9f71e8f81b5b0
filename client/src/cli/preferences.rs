//! The owner's preferences: as flags, and as the commands `prefs get`, `prefs set` and `prefs edit`. All are made from
//! the same table as the file's keys, so they cannot differ.

use super::{Misunderstood, format::Format, running::Running};
use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use nightjar_agent::{
    home::Home,
    preferences::{
        FLAGS_BEFORE, LAST_GOOD_FILE, PREFERENCES, PREFERENCES_FILE, Preference, Preferences, PreferencesError,
        PreferencesFile, Row, Source, template,
    },
};
use std::{fs, path::Path, process::ExitCode};

/// What was written while somebody else changed the preferences.
const KEPT_FILE: &str = "prefs.edited.toml";
/// What is being edited, beside the file itself.
const DRAFT_FILE: &str = "prefs.draft.toml";

/// `nightjar prefs`.
#[derive(Args)]
pub(super) struct Prefs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Show all preferences, or one
    Get(Get),
    /// Change one in the file; a running agent notices within seconds
    Set(Set),
    /// Open the file, with every key explained, in $VISUAL or $EDITOR
    Edit,
}

#[derive(Args, Default)]
struct Get {
    /// Only this one: prints its value
    key: Option<String>,
}

#[derive(Args)]
struct Set {
    /// Which: `nightjar prefs get` lists them
    key: String,
    /// Its new value; `default` takes it out of the file
    #[arg(required = true, num_args = 0.., allow_negative_numbers = true)]
    value: Vec<String>,
}

/// `prefs get`, `set` and `edit`.
pub(super) fn prefs(home: &Home, prefs: &Prefs, format: Format) -> Result<ExitCode> {
    match &prefs.action {
        None => get(home, &Get::default(), format),
        Some(Action::Get(args)) => get(home, args, format),
        Some(Action::Set(args)) => set(home, &args.key, &args.value.join(" "), format),
        Some(Action::Edit) => edit(home, open_editor),
    }
}

fn get(home: &Home, args: &Get, format: Format) -> Result<ExitCode> {
    let file = PreferenceFlags::default().load(home)?;
    let running = Running::find(home).and_then(|running| running.preferences().ok());
    if let Some(mistake) = file.error() {
        eprintln!("the preferences below are the last good ones: {mistake}");
    }
    let mut rows = file.rows();
    for row in &mut rows {
        // What it was started with stands against the file.
        if let Some(told) =
            running.as_ref().and_then(|told| told.iter().find(|told| told.key == row.key && told.is_said()))
        {
            (row.value, row.source) = (told.value.clone(), told.source);
        }
    }
    let Some(key) = &args.key else { return format.say(&rows, list(&file, &rows)) };
    let row = rows.iter().find(|row| row.key == key);
    let unknown = || Misunderstood(format!("there is no preference `{key}`; `nightjar prefs get` lists them"));
    let row = row.ok_or_else(unknown)?;
    format.say(row, &row.value)
}

fn list(file: &PreferencesFile, rows: &[Row]) -> String {
    let (mut lines, mut group) = (String::new(), None);
    for row in rows {
        if group.replace(row.group) != Some(row.group) {
            lines += &format!("{}{}\n", if row.key == PREFERENCES[0].key { "" } else { "\n" }, row.group);
        }
        let from = if row.source == Source::Default { String::new() } else { format!("  ({})", row.source) };
        let value = if row.value.is_empty() { "(none)" } else { &row.value };
        lines += &format!("  {:<22} {value}{from}\n", row.key);
    }
    format!("{lines}\nfile: {}; `nightjar prefs edit` explains each", file.path().display())
}

fn set(home: &Home, key: &str, value: &str, format: Format) -> Result<ExitCode> {
    let mut file = PreferenceFlags::default().load(home)?;
    file.set(key, value).map_err(misunderstood)?;
    let value = Preference::find(key).map(|p| (p.get)(file.preferences())).unwrap_or_default();
    let of_agent = Running::find(home).and_then(|running| running.preferences().ok());
    let said = of_agent.into_iter().flatten().find(|told| told.key == key && told.is_said());
    let words = match (file.source(key), said) {
        (_, Some(told)) => format!(
            "the file says so now, but the running agent's {} says {key} = {}, and that stays in force",
            told.source, told.value
        ),
        (Source::File | Source::Default, None) => format!("{key} = {value}"),
        (other, None) => format!("the file says so now, but the {other} says {key} = {value}, and that stays in force"),
    };
    let rows = file.rows();
    format.say(&rows.iter().find(|row| row.key == key), words)
}

/// What the disk cannot do is no fault of the command.
fn misunderstood(e: PreferencesError) -> anyhow::Error {
    match e {
        PreferencesError::Read { .. } | PreferencesError::Write { .. } | PreferencesError::ReadOnly { .. } => e.into(),
        e => Misunderstood(e.to_string()).into(),
    }
}

/// Has a copy edited, which takes the file's place only if it has no mistake.
fn edit(home: &Home, open: impl Fn(&Path) -> Result<()>) -> Result<ExitCode> {
    let mut file = PreferencesFile::unread(&home.config_path(PREFERENCES_FILE), &home.path(LAST_GOOD_FILE))?;
    let draft = home.path(DRAFT_FILE);
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    // A copy that is newer than the file was left with a mistake the last time.
    let goes_on = modified(&draft).is_some() && modified(&draft) > modified(file.path());
    let before = file.text()?;
    if !goes_on {
        let text = before.clone().unwrap_or_else(template);
        home.write_private(DRAFT_FILE, text.as_bytes()).context("cannot write a copy to edit")?;
    }
    if let Err(failed) = open(&draft) {
        if !goes_on {
            fs::remove_file(&draft).context("cannot remove the copy")?;
        }
        return Err(failed);
    }
    let after = fs::read_to_string(&draft).with_context(|| format!("cannot read {}", draft.display()))?;
    if file.text()?.is_some_and(|text| text == after) {
        fs::remove_file(&draft).context("cannot remove the copy")?;
        println!("nothing has changed");
        return Ok(ExitCode::SUCCESS);
    }
    if file.text()? != before {
        home.write_private(KEPT_FILE, after.as_bytes()).context("cannot keep what you wrote")?;
        fs::remove_file(&draft).context("cannot remove the copy")?;
        let kept = home.path(KEPT_FILE);
        anyhow::bail!(
            "the preferences were changed elsewhere while you edited them, and stay so; what you wrote is in {}",
            kept.display()
        );
    }
    if let Err(mistake) = file.replace(&after) {
        // The line is right, but the file that it stands in is the copy.
        let told = mistake.to_string().replace(&file.path().display().to_string(), &draft.display().to_string());
        anyhow::bail!("{told}\nthe old preferences stay in force; `nightjar prefs edit` goes on with what you wrote");
    }
    fs::remove_file(&draft).context("cannot remove the copy")?;
    println!("in force now: {}", file.path().display());
    Ok(ExitCode::SUCCESS)
}

fn open_editor(path: &Path) -> Result<()> {
    let named =
        ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.trim().is_empty()));
    let editor = named.unwrap_or_else(|| if cfg!(windows) { "notepad".into() } else { "vi".into() });
    // The variable may hold arguments too, in the shell's words.
    let mut command = if cfg!(windows) {
        std::process::Command::new(&editor)
    } else {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{editor} \"$1\""), "sh"]);
        shell
    };
    let status = command
        .arg(path)
        .status()
        .with_context(|| format!("cannot start the editor `{editor}`; set EDITOR to another"))?;
    ensure!(status.success(), "the editor `{editor}` ended with {status}; nothing was changed");
    Ok(())
}

/// What was said on the command line: keys and values, checked when they are applied.
#[derive(Clone, Debug, Default)]
pub(super) struct PreferenceFlags(Vec<(&'static str, String)>);

impl PreferenceFlags {
    /// The preferences' file, under the environment and these flags.
    pub fn load(&self, home: &Home) -> Result<PreferencesFile> {
        self.load_with(home, &[])
    }

    /// As [`PreferenceFlags::load`], with more flags, which those that were said beat.
    pub fn load_with(&self, home: &Home, extra: &[(&str, &str)]) -> Result<PreferencesFile> {
        let mut flags = extra.to_vec();
        flags.extend(self.0.iter().map(|(key, value)| (*key, value.as_str())));
        let loaded = PreferencesFile::load(&home.config_path(PREFERENCES_FILE), &home.path(LAST_GOOD_FILE), &flags);
        loaded.map_err(|e| if e.is_of_the_command_line() { Misunderstood(e.to_string()).into() } else { e.into() })
    }
}

impl FromArgMatches for PreferenceFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = |key: &'static str| matches.get_one::<String>(key).map(|value| (key, value.clone()));
        Ok(PreferenceFlags(PREFERENCES.iter().filter_map(|p| said(p.key)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags of all preferences, whose help says what holds without them.
fn flags(defaults: &Preferences) -> Vec<Arg> {
    let flags = PREFERENCES.iter().map(|p| {
        let default = (p.get)(defaults);
        let default = if default.is_empty() { "none" } else { &default };
        let help = format!("{} [allowed: {}] [default: {default}]", p.help, p.allowed);
        let before = FLAGS_BEFORE.iter().filter(|(_, now)| *now == p.key).map(|(before, _)| *before);
        Arg::new(p.key).long(p.flag).aliases(before).value_name(p.value_name).help(help).help_heading(p.group.title())
    });
    flags.collect()
}

/// What an anchor node is told beside its flags: nobody sits at it.
const OF_AN_ANCHOR: [(&str, &str); 1] = [("policy", "always")];

/// The same for an anchor node, where other things hold without a word.
#[derive(Clone, Debug, Default)]
pub(super) struct AnchorFlags(PreferenceFlags);

impl AnchorFlags {
    /// The preferences' file, under the environment and these flags.
    pub fn load(&self, home: &Home) -> Result<PreferencesFile> {
        self.0.load_with(home, &OF_AN_ANCHOR)
    }
}

impl FromArgMatches for AnchorFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        PreferenceFlags::from_arg_matches(matches).map(AnchorFlags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for AnchorFlags {
    fn augment_args(command: Command) -> Command {
        let mut defaults = Preferences::default();
        for (key, value) in OF_AN_ANCHOR {
            // What is in the table is allowed; a test says so.
            let _ = defaults.set("an anchor's defaults", key, value);
        }
        command.args(flags(&defaults))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl Args for PreferenceFlags {
    fn augment_args(command: Command) -> Command {
        command.args(flags(&Preferences::default()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::PathBuf;

    /// What `run` takes.
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        flags: PreferenceFlags,
    }

    /// A home folder that goes when its test ends.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0); // what stays is in the system's folder for such things
        }
    }

    fn home(name: &str) -> (Folder, Home) {
        let folder = std::env::temp_dir().join(format!("nightjar-preferences-{name}-{}", std::process::id()));
        let home = Home::open(Some(folder.clone())).unwrap();
        (Folder(folder), home)
    }

    /// An editor that puts one text in the place of another.
    fn types(find: &'static str, instead: &'static str) -> impl Fn(&Path) -> Result<()> {
        move |path| {
            let text = fs::read_to_string(path)?;
            assert!(text.contains(find), "{text}");
            Ok(fs::write(path, text.replacen(find, instead, 1))?)
        }
    }

    #[test]
    fn flags_beat_the_file_and_old_names_still_work() {
        let (_folder, home) = home("flags");
        set(&home, "idle_minutes", "7", Format::default()).unwrap();
        set(&home, "away_threads", "7", Format::default()).unwrap();
        let flags =
            Flags::parse_from(["run", "--threads", "3", "--policy", "always", "--schedule", "mon 1:00-2:00"]).flags;
        let file = flags.load_with(&home, &[("away_threads", "9"), ("checkpoint_s", "9")]).unwrap();
        let p = file.preferences();
        assert_eq!((p.idle_minutes, p.away.threads, p.checkpoint_s), (Some(7), 3, 9));
        assert_eq!((p.schedule.to_string(), file.source("policy")), ("mon 01:00-02:00".into(), Source::CommandLine));
    }

    #[test]
    fn the_help_says_what_holds_without_a_word() {
        let help = |mut command: Command| command.render_long_help().to_string().replace(char::is_whitespace, " ");
        let of = |help: &str| {
            let (_, policy) = help.split_once("--policy").unwrap();
            policy.split_once("[default: ").unwrap().1.split_once(']').unwrap().0.to_owned()
        };
        assert_eq!(of(&help(PreferenceFlags::augment_args(Command::new("run")))), "considerate");
        assert_eq!(of(&help(AnchorFlags::augment_args(Command::new("anchor")))), "always");
    }

    #[test]
    fn a_mistake_in_an_edit_changes_nothing_and_is_not_lost() {
        let (_folder, home) = home("mistake");
        let path = home.config_path(PREFERENCES_FILE);
        edit(&home, types("# idle_minutes = 10", "idle_minutes = 12")).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        assert_eq!(good, template().replace("# idle_minutes = 10", "idle_minutes = 12"));

        let told = edit(&home, types("idle_minutes = 12", "idle_minutes = 12000")).unwrap_err().to_string();
        assert!(told.contains(DRAFT_FILE) && told.contains("`idle_minutes` is `12000`; allowed is off, or"), "{told}");
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
        edit(&home, types("idle_minutes = 12000", "idle_minutes = 120")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), good.replace("= 12", "= 120"));

        edit(&home, |_| anyhow::bail!("no such editor")).unwrap_err();
        assert!(!home.path(DRAFT_FILE).exists());
        edit(&home, |_| Ok(())).unwrap();
        assert!(!home.path(DRAFT_FILE).exists());
    }

    /// A file with a mistake can be mended, though there was never a good one.
    #[test]
    fn an_edit_does_not_undo_what_was_set_meanwhile() {
        let (_folder, home) = home("meanwhile");
        set(&home, "idle_minutes", "7", Format::default()).unwrap();
        let types_late = |path: &Path| {
            types("idle_minutes = 7", "idle_minutes = 9")(path)?;
            set(&home, "schedule", "22:00-07:00", Format::default()).map(drop)
        };
        let told = edit(&home, types_late).unwrap_err().to_string();
        let kept = home.path(KEPT_FILE);
        assert!(told.contains(&kept.display().to_string()), "{told}");
        assert!(fs::read_to_string(kept).unwrap().contains("idle_minutes = 9"));
        let file = PreferencesFile::load(&home.config_path(PREFERENCES_FILE), &home.path(LAST_GOOD_FILE), &[]).unwrap();
        let wanted = file.preferences();
        assert_eq!((wanted.idle_minutes, wanted.schedule.to_string()), (Some(7), "22:00-07:00".into()));
    }

    #[test]
    fn an_edit_mends_a_file_that_cannot_be_read() {
        let (_folder, home) = home("mend");
        let path = home.config_path(PREFERENCES_FILE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "device = flex\n").unwrap();
        assert!(
            set(&home, "idle_minutes", "7", Format::default())
                .unwrap_err()
                .to_string()
                .contains("line 1: this is not TOML")
        );
        edit(&home, types("flex", "\"flex\"")).unwrap();
        get(&home, &Get { key: Some("device".into()) }, Format { json: true }).unwrap();
        assert!(get(&home, &Get { key: Some("devise".into()) }, Format::default()).is_err());
    }
}
