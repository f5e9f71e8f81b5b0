//! A real PostgreSQL server for a test, in a folder of its own, reached by a socket there. It ends with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Whom the server runs as, where the test is root's: it refuses root.
const NOBODY: u32 = 65_534;

/// A server at work, or one that was stopped.
pub struct Database {
    folder: tempfile::TempDir,
    programs: PathBuf,
    server: Option<Child>,
}

impl Database {
    /// Starts one; `None`, and it is said, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "CI needs PostgreSQL: `cargo xtask setup`");
            println!("skipped: PostgreSQL is not installed (`cargo xtask setup` installs it)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut database = Database { folder, programs, server: None };
        fs::create_dir(database.data()).unwrap();
        fs::set_permissions(database.data(), PermissionsExt::from_mode(0o700)).unwrap();
        if is_root() {
            chown(database.data(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut make = database.program("initdb");
        make.arg("--pgdata").arg(database.data());
        make.args(["--auth=trust", "--username=owl", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = make.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        database.go_on();
        Some(database)
    }

    /// Starts it where it was stopped.
    pub fn go_on(&mut self) {
        let mut serve = self.program("postgres");
        serve.arg("-D").arg(self.data()).arg("-k").arg(self.data()).args(["-h", ""]);
        self.server = Some(serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        while !self.program("pg_isready").arg("-q").arg("-h").arg(self.data()).status().unwrap().success() {
            assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as a power cut would, but for what the system has still to write.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Nobody is left to start others.
            server.kill().unwrap();
            server.wait().unwrap();
            let begun = Instant::now();
            while !self.kill_children() {
                assert!(begun.elapsed() < Duration::from_secs(30), "PostgreSQL does not end");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The address of the database, for a coordinator.
    pub fn url(&self) -> String {
        format!("postgres://owl@localhost/postgres?host={}", self.data().display())
    }

    /// Has SQL carried out, as an operator would, and gives what it answers.
    pub fn psql(&self, sql: &str) -> String {
        let mut ask = self.program("psql");
        let asked = ask.arg("-h").arg(self.data()).args(["-U", "owl", "-d", "postgres", "-qtA", "-c", sql]).output();
        let asked = asked.unwrap();
        assert!(asked.status.success(), "{sql}: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Kills what the server has started; whether none of it was left.
    fn kill_children(&self) -> bool {
        let data = self.data();
        let children = fs::read_dir("/proc").unwrap().flatten().filter(|process| {
            let is_its = fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data);
            is_its && fs::read_to_string(process.path().join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
        });
        let ids = children.filter_map(|process| process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
        let left: Vec<Pid> = ids.collect();
        for id in &left {
            // It may have ended meanwhile.
            let _ = kill_process(*id, Signal::KILL);
        }
        left.is_empty()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Nothing of it is wanted any more.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

/// Where its programs are: in the path, or where Debian keeps them, the newest version.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|v| v.path().join("bin")).collect();
    versions.sort();
    let has_all = |folder: &Path| ["initdb", "postgres", "psql", "pg_isready"].iter().all(|p| folder.join(p).is_file());
    std::env::split_paths(&path).chain(versions.into_iter().rev()).find(|folder| has_all(folder))
}
