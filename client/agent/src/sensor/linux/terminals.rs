//! Idle time from terminals. A terminal is read when something was typed there, and its access time moves then (the
//! kernel keeps that to about 8 seconds); neither happens for its output. The user's own terminals tell of it at once,
//! those of others are looked at every second.

use super::watch::Watch;
use crate::{
    clock,
    policy::Reading,
    sensor::{
        facts::Input,
        places::{Places, names},
        readings::Reporter,
    },
};
use nightjar_shared::time::Mono;
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The list of terminals is read this often, and whenever one is opened or closed.
const LIST_EVERY: Duration = Duration::from_secs(5);
/// So many of those that tell nothing are looked at in between.
const RECENT: usize = 8;
/// Somebody who types need not be noticed at every key.
const BREATHER: Duration = Duration::from_millis(250);
const FRESH: Duration = Duration::from_secs(30);

/// The last resort: terminals alone, where there is no graphical session whose input they would not see.
pub async fn idle(places: Places, reporter: Reporter<Input>) -> String {
    let mut terminals = Terminals::new(&places.root);
    loop {
        if places.graphical() {
            return "there is a graphical session, which does not let itself be asked".into();
        }
        match terminals.look() {
            Ok(last) => reporter.says_for(Reading::Known(last), FRESH),
            Err(e) => return format!("the terminals cannot be read ({e})"),
        }
        terminals.wait().await;
    }
}

/// What is typed at any of them, whatever else there is: a second person has a terminal of their own.
pub async fn others(places: Places, reporter: Reporter<Input>) -> String {
    let mut terminals = Terminals::new(&places.root);
    loop {
        match terminals.look() {
            Ok(last) => reporter.says_for(Reading::Known(last), FRESH),
            Err(e) => return format!("the terminals cannot be read ({e})"),
        }
        terminals.wait().await;
    }
}

/// What is known of all terminals.
pub struct Terminals {
    dev: PathBuf,
    seen: HashMap<PathBuf, Terminal>,
    /// When the list was read.
    listed: Option<Mono>,
    /// Those that tell nothing, the last used first.
    silent: Vec<PathBuf>,
    watch: Option<Watch>,
    /// Whether somebody was typing a moment ago.
    busy: bool,
}

struct Terminal {
    accessed: SystemTime,
    input: Mono,
    tells: bool,
}

impl Terminals {
    /// Those below `root`/dev.
    pub fn new(root: &Path) -> Self {
        let watch = Watch::new().inspect_err(|e| tracing::debug!("terminals tell nothing: {e}")).ok();
        Terminals { dev: root.join("dev"), seen: HashMap::new(), listed: None, silent: vec![], watch, busy: false }
    }

    /// The last input at any of them.
    pub fn look(&mut self) -> io::Result<Input> {
        let now = clock::mono_now();
        if self.listed.is_none_or(|at| now.since(at) >= LIST_EVERY) {
            let all = self.list()?;
            self.seen.retain(|path, _| all.contains(path));
            for path in all {
                let tells = self.watch.as_mut().is_some_and(|watch| watch.file(&path));
                self.look_at(path, Some(tells), now)?;
            }
            let mut silent: Vec<_> = self.seen.iter().filter(|(_, terminal)| !terminal.tells).collect();
            silent.sort_unstable_by_key(|(_, terminal)| std::cmp::Reverse(terminal.input));
            self.silent = silent.into_iter().take(RECENT).map(|(path, _)| path.clone()).collect();
            self.listed = Some(now);
        } else {
            for path in self.silent.clone() {
                self.look_at(path, None, now)?;
            }
        }
        Ok(self.seen.values().map(|terminal| terminal.input).max().map_or(Input::Never, Input::At))
    }

    /// Reads a terminal's access time.
    fn look_at(&mut self, path: PathBuf, tells: Option<bool>, now: Mono) -> io::Result<()> {
        let accessed = match fs::metadata(&path).and_then(|m| m.accessed()) {
            Ok(accessed) => accessed,
            // Closed since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.seen.remove(&path);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        // Only the first look depends on the calendar, which may jump.
        let first = || now - SystemTime::now().duration_since(accessed).unwrap_or_default();
        let terminal = self.seen.entry(path).or_insert_with(|| Terminal { accessed, input: first(), tells: false });
        terminal.tells = tells.unwrap_or(terminal.tells);
        if terminal.accessed != accessed {
            (terminal.accessed, terminal.input) = (accessed, now);
        }
        Ok(())
    }

    /// Waits until they should be looked at again.
    pub async fn wait(&mut self) {
        if std::mem::take(&mut self.busy) {
            tokio::time::sleep(BREATHER).await;
        }
        let pause = if self.silent.is_empty() { LIST_EVERY } else { Duration::from_secs(1) };
        let happened = match &mut self.watch {
            Some(watch) => tokio::time::timeout(pause, watch.happens()).await,
            None => {
                tokio::time::sleep(pause).await;
                return;
            }
        };
        match happened {
            // Time is up.
            Err(_) => {}
            Ok(Ok(happened)) => {
                let now = clock::mono_now();
                for path in &happened.read {
                    if let Some(terminal) = self.seen.get_mut(path) {
                        terminal.input = now;
                    }
                }
                if happened.listed || happened.read.is_empty() {
                    self.listed = None;
                }
                self.busy = !happened.read.is_empty();
            }
            Ok(Err(e)) => {
                tracing::debug!("terminals tell nothing any more: {e}");
                (self.watch, self.listed) = (None, None);
            }
        }
    }

    /// Lists them, and watches for new ones.
    fn list(&mut self) -> io::Result<Vec<PathBuf>> {
        let windows = self.dev.join("pts");
        if let Some(watch) = &mut self.watch {
            watch.folder(&windows);
        }
        let of_consoles =
            names(&self.dev)?.into_iter().filter(|n| n.strip_prefix("tty").is_some_and(|rest| !rest.is_empty()));
        let of_windows = names(&windows)?.into_iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        Ok(of_consoles.map(|n| self.dev.join(n)).chain(of_windows.map(|n| windows.join(n))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with terminals that were last typed in so many seconds ago.
    fn system(terminals: &[(&str, u64)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev/pts")).unwrap();
        terminals.iter().for_each(|(name, idle_s)| touch(root.path(), name, *idle_s));
        root
    }

    fn touch(root: &Path, name: &str, idle_s: u64) {
        let file =
            fs::File::options().create(true).truncate(false).write(true).open(root.join("dev").join(name)).unwrap();
        let now = SystemTime::now();
        file.set_times(fs::FileTimes::new().set_accessed(now - Duration::from_secs(idle_s)).set_modified(now)).unwrap();
    }

    fn idle_s(terminals: &mut Terminals) -> u64 {
        terminals.look().unwrap().idle(clock::mono_now()).as_secs()
    }

    #[tokio::test]
    async fn the_terminal_used_last_counts_and_only_terminals_do() {
        let root = system(&[("tty1", 900), ("pts/0", 40), ("pts/1", 70), ("pts/ptmx", 1), ("tty", 2), ("null", 3)]);
        let mut terminals = Terminals::new(root.path());
        let idle = idle_s(&mut terminals);
        assert!((40..60).contains(&idle), "{idle}");
        assert_eq!(Terminals::new(system(&[]).path()).look().unwrap(), Input::Never);
        // Whatever the calendar says of it, a time that moves is input now.
        touch(root.path(), "pts/1", 3000);
        terminals.wait().await;
        assert!(idle_s(&mut terminals) < 20);
    }

    #[tokio::test]
    async fn a_terminal_that_is_read_or_opened_tells() {
        let root = system(&[("pts/0", 400)]);
        fs::write(root.path().join("dev/pts/0"), "typed").unwrap();
        touch(root.path(), "pts/0", 400);
        let mut terminals = Terminals::new(root.path());
        assert!(idle_s(&mut terminals) >= 400);
        fs::read(root.path().join("dev/pts/0")).unwrap();
        terminals.wait().await;
        assert!(idle_s(&mut terminals) < 100);
        touch(root.path(), "pts/0", 400);
        let mut terminals = Terminals::new(root.path());
        assert!(idle_s(&mut terminals) >= 400);
        touch(root.path(), "pts/1", 5);
        terminals.wait().await;
        assert!(idle_s(&mut terminals) < 100);
    }
}
