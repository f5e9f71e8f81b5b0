//! A fresh Debian in a folder, with mounts and processes of its own: whatever runs in it ends with this.

use crate::children::{Children, Process};
use anyhow::{Context, Result, bail};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The oldest Debian that the programs run on.
const SUITE: &str = "bookworm";
/// Beyond the smallest system: what the journey itself asks for.
const INCLUDED: &str = "procps";
/// What the first process does, told the folder: then it does nothing.
const ENTER: &str = "mount -t proc proc \"$0/proc\"; mount --rbind /dev \"$0/dev\"; mount --rbind /sys \"$0/sys\"; \
    exec chroot \"$0\" sleep infinity";
const ASK_EVERY: Duration = Duration::from_millis(250);

pub struct Room<'a> {
    root: PathBuf,
    children: &'a Children,
    /// The first process in it, on this machine.
    first: u32,
    started: RefCell<BTreeMap<String, Process>>,
    /// Ends with it, and all processes in it.
    _outer: Process,
}

impl<'a> Room<'a> {
    pub fn new(root: PathBuf, children: &'a Children) -> Result<Room<'a>> {
        let mut make = Command::new("mmdebstrap");
        make.args(["--quiet", "--variant=minbase", &format!("--include={INCLUDED}"), SUITE]).arg(&root);
        children.output("mmdebstrap", &mut make)?;
        let mut enter = Command::new("unshare");
        enter.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-ec"]);
        enter.arg(ENTER);
        let outer = children.start("a room", enter.arg(&root), &root.with_extension("log"))?;
        let since = Instant::now();
        let first = loop {
            let first = children_of(outer.id())
                .into_iter()
                .find(|id| fs::read_link(format!("/proc/{id}/root")).is_ok_and(|at| at != Path::new("/")));
            match first {
                Some(first) => break first,
                None if since.elapsed() > Duration::from_secs(20) => {
                    bail!("the room does not open: {}", outer.last_words())
                }
                None => children.sleep(ASK_EVERY)?,
            }
        };
        Ok(Room { root, children, first, started: RefCell::default(), _outer: outer })
    }

    /// Runs a command as root; gives back all that it says.
    pub fn root(&self, words: &[&str]) -> Result<String> {
        self.user("root", words)
    }

    /// Runs a command as a user, who is logged in nowhere.
    pub fn user(&self, user: &str, words: &[&str]) -> Result<String> {
        // Standard error too: it is where dpkg warns.
        let mut command = self.command(user, &[&["sh", "-c", "exec \"$@\" 2>&1", "sh"][..], words].concat());
        self.children.output(words[0], &mut command)
    }

    /// Starts a command as root, which runs on.
    pub fn start(&self, name: &str, words: &[&str]) -> Result<()> {
        let log = self.log(name);
        let process = self.children.start(name, &mut self.command("root", words), &log)?;
        self.started.borrow_mut().insert(name.to_owned(), process);
        Ok(())
    }

    /// What it has said.
    pub fn said(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.log(name))?)
    }

    /// Kills what was started.
    pub fn kill(&self, name: &str) -> Result<()> {
        let mut started = self.started.borrow_mut().remove(name).with_context(|| format!("{name} was not started"))?;
        started.kill();
        Ok(())
    }

    /// Asks until there is an answer.
    pub fn until<T>(&self, what: &str, patience: Duration, ask: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let since = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if since.elapsed() > patience {
                bail!("waited {} s for {what}, in vain", patience.as_secs());
            }
            self.children.sleep(ASK_EVERY)?;
        }
    }

    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.at(path)).with_context(|| format!("cannot read {path} in the room"))
    }

    /// Writes a file; one that is there keeps its owner.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.at(path);
        fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
        fs::write(&file, text).with_context(|| format!("cannot write {path} in the room"))
    }

    /// Copies a file into it.
    pub fn bring(&self, from: &Path, name: &str) -> Result<()> {
        fs::copy(from, self.at(name))
            .map(drop)
            .with_context(|| format!("cannot bring {} into the room", from.display()))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.root.with_file_name(format!("{name}.log"))
    }

    fn command(&self, user: &str, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--mount", "--pid", "--root", "--wd"]);
        command.args(["runuser", "--user", user, "--"]).args(words);
        let home = if user == "root" { "/".to_owned() } else { format!("/home/{user}") };
        command.env_clear().env("HOME", home).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The children of a process.
fn children_of(id: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}
