//! `serve.toml`: what `serve RUN` starts with, in the folder that `new` makes. Its keys are flags of `serve` and of
//! `invite`, and are explained by the flags' own help.

use super::{
    Failure,
    invite::{Invite, InvitedRole},
    run_file,
    serve::Serve,
};
use clap::{Args, Command};
use nightjar_coordinator::{
    run_file::{comment, of_toml},
    server::issue::{DAYS_MAX, Reachable, Terms},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Its name.
pub const SERVE_FILE: &str = "serve.toml";
/// The run spec beside it.
pub const RUN_FILE: &str = "run.toml";
/// The state folder beside it.
pub const STATE_FOLDER: &str = "state";

const FIRST: &str = "What `nightjar-coordinator serve` starts with when it is given this folder. Paths begin here. A flag on the \
                     command line counts for more than the same key here.";
const INVITES: &str = "Invites that are printed at the first start; remove one, or repeat the section for another. \
                       `nightjar-coordinator invite` makes more at any time.";

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeFile {
    /// The dataset.
    pub data: PathBuf,
    /// The model that a new run starts from.
    pub init: Option<PathBuf>,
    /// Where devices connect.
    pub listen: Option<SocketAddr>,
    /// Where the dashboard is.
    pub http: Option<SocketAddr>,
    /// Where strangers see the run.
    pub public: Option<SocketAddr>,
    /// Invites that are printed at the first start.
    #[serde(default)]
    pub invite: Vec<Invited>,
}

/// One invite.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Invited {
    /// What it makes of a device.
    #[serde(default)]
    pub role: InvitedRole,
    /// Where devices reach the coordinator.
    #[serde(deserialize_with = "addresses")]
    pub address: Vec<Reachable>,
    /// Days that it lasts.
    #[serde(default, deserialize_with = "days")]
    pub expires_days: Option<u64>,
    /// Devices that may join with it.
    pub devices: Option<u64>,
}

fn addresses<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Reachable>, D::Error> {
    let addresses = Vec::deserialize(value)?;
    if addresses.is_empty() {
        return Err(D::Error::custom("address is empty; name where devices reach this computer"));
    }
    Ok(addresses)
}

fn days<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    let written = i64::deserialize(value)?;
    let days = u64::try_from(written).ok().filter(|days| (1..=DAYS_MAX).contains(days));
    let wrong = || D::Error::custom(format!("expires-days is {written}; allowed is 1 to {DAYS_MAX}"));
    days.map(Some).ok_or_else(wrong)
}

impl Invited {
    /// As it is signed.
    pub fn terms(&self) -> Terms {
        let addresses = self.address.clone();
        Terms { role: self.role.into(), addresses, days: self.expires_days, devices: self.devices, for_pages: false }
    }
}

impl Invited {
    /// Whom it is for, in words.
    pub fn words(&self) -> String {
        let whom = match (self.role, self.devices) {
            (InvitedRole::Anchor, Some(1)) => "an anchor node".to_owned(),
            (InvitedRole::Anchor, None) => "anchor nodes".to_owned(),
            (InvitedRole::Anchor, Some(n)) => format!("{n} anchor nodes"),
            (InvitedRole::Volunteer, Some(1)) => "one volunteer's device".to_owned(),
            (InvitedRole::Volunteer, None) => "volunteers".to_owned(),
            (InvitedRole::Volunteer, Some(n)) => format!("{n} devices of volunteers"),
        };
        self.expires_days.map_or(whom.clone(), |days| format!("{whom}, for {days} days"))
    }
}

impl ServeFile {
    /// That of a run's folder, its paths led from there.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(SERVE_FILE);
        if !path.exists() {
            return Err(Failure::input(format!(
                "{} is no folder of a run: it has no {SERVE_FILE}. `nightjar-coordinator new {}` makes one; a run without one is \
                 served with --run, --data and --state",
                folder.display(),
                folder.display()
            )));
        }
        let bytes = run_file::bytes_of(&path)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::input(format!("{}: it is not UTF-8 text; save it as UTF-8", path.display())))?;
        let said: ServeFile =
            toml::from_str(text).map_err(|error| Failure::input(run_file::at(&path, &of_toml(text, &error))))?;
        Ok(ServeFile { data: folder.join(&said.data), init: said.init.map(|init| folder.join(init)), ..said })
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let serve = Serve::augment_args(Command::new("serve"));
        let invite = Invite::augment_args(Command::new("invite"));
        let mut text = comment(FIRST);
        let path = |path: &PathBuf| quoted(path.display().to_string());
        let address = |address: &SocketAddr| quoted(address.to_string());
        key(&mut text, &serve, "data", Some(path(&self.data)), "");
        key(&mut text, &serve, "init", self.init.as_ref().map(path), "\"DIR\"");
        key(&mut text, &serve, "listen", self.listen.as_ref().map(address), "\"0.0.0.0:4433\"");
        key(&mut text, &serve, "http", self.http.as_ref().map(address), "\"127.0.0.1:8433\"");
        key(&mut text, &serve, "public", self.public.as_ref().map(address), "\"0.0.0.0:8080\"");
        text += &format!("\n{}", comment(INVITES));
        if self.invite.is_empty() {
            text += "# [[invite]]\n# role = \"volunteer\"\n# address = [\"my.host.org:4433\"]\n";
        }
        for (at, invited) in self.invite.iter().enumerate() {
            text += if at == 0 { "[[invite]]\n" } else { "\n[[invite]]\n" };
            let role = if invited.role == InvitedRole::Anchor { "anchor" } else { "volunteer" };
            let addresses: Vec<String> = invited.address.iter().map(|at| quoted(at.to_string())).collect();
            let lines = [
                ("role", Some(quoted(role.to_owned())), ""),
                ("address", Some(format!("[{}]", addresses.join(", "))), ""),
                ("expires-days", invited.expires_days.map(|days| days.to_string()), "30"),
                ("devices", invited.devices.map(|devices| devices.to_string()), "10"),
            ];
            for (name, value, example) in lines {
                // Once is enough.
                match value {
                    _ if at == 0 => key(&mut text, &invite, name, value, example),
                    Some(value) => text += &format!("{name} = {value}\n"),
                    None => {}
                }
            }
        }
        text
    }
}

fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}

/// Adds a key with its flag's help; one that is not set with an example, as a comment.
fn key(text: &mut String, command: &Command, flag: &str, value: Option<String>, example: &str) {
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
    let help = argument.and_then(|argument| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    *text += &format!("\n{}", comment(&help));
    // Writing to a string cannot fail.
    let _ = match value {
        Some(value) => writeln!(text, "{flag} = {value}"),
        None => writeln!(text, "# {flag} = {example}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(text: &str) -> Result<ServeFile, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SERVE_FILE), text).unwrap();
        ServeFile::read(folder.path()).map_err(Failure::why)
    }

    #[test]
    fn what_is_written_is_read_again_and_every_key_is_explained() {
        let invited = Invited {
            role: InvitedRole::Volunteer,
            address: vec![Reachable::parse("my.host.org:4433").unwrap()],
            expires_days: None,
            devices: Some(3),
        };
        let anchor = Invited { role: InvitedRole::Anchor, expires_days: Some(7), ..invited.clone() };
        let full = ServeFile {
            data: "/data \"here\"".into(),
            init: Some("/model".into()),
            listen: Some(([0, 0, 0, 0], 443).into()),
            http: None,
            public: Some(([127, 0, 0, 1], 80).into()),
            invite: vec![invited, anchor],
        };
        for file in [full, ServeFile { data: "/data".into(), ..ServeFile::default() }] {
            let text = file.text();
            assert_eq!(read(&text).as_ref(), Ok(&file), "{text}");
            let lines: Vec<&str> = text.lines().collect();
            for name in ["data", "init", "listen", "http", "public"] {
                let at = lines.iter().position(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
                let before = lines[at.unwrap() - 1];
                assert!(before.starts_with("# ") && before.len() > 9, "{name}: {before}");
            }
        }
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        for (text, words) in [
            ("data = \"d\"\nstat = 3\n", "serve.toml:2:1: there is no key `stat`"),
            ("# one\ndata = 3\n", "serve.toml:2:8: "),
            (
                "data = \"d\"\n[[invite]]\naddress = [\"0.0.0.0:4433\"]\n",
                "serve.toml:3:11: 0.0.0.0:4433 is no address: that",
            ),
            ("data = \"d\"\n[[invite]]\naddress = []\n", "serve.toml:3:11: address is empty"),
            (
                "data = \"d\"\n[[invite]]\naddress = [\"h:1\"]\nexpires-days = 0\n",
                "serve.toml:4:16: expires-days is 0; allowed is 1 to",
            ),
            ("listen = \"127.0.0.1:1\"\n", "there must be a key `data`"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(words) && !why.contains('\n'), "{words}: {why}");
        }
        let folder = tempfile::tempdir().unwrap();
        let why = ServeFile::read(folder.path()).unwrap_err().why();
        assert!(why.contains("nightjar-coordinator new"), "{why}");
    }
}
