//! Several processes of the program that serve one run. They are killed, stopped, woken and started again.

use crate::{
    bed::Bed,
    command_line::{Process, program},
    database::Database,
    object_store::KEYS,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Lines of what a process has said that are shown where a test fails.
const TOLD_MAX: usize = 60;

/// Each has a state folder and a port of its own, which it keeps.
pub struct Processes<'a> {
    bed: &'a Bed,
    folders: Vec<PathBuf>,
    pub addresses: Vec<SocketAddr>,
    running: Vec<Option<Process>>,
}

impl<'a> Processes<'a> {
    /// The first begins the run; the others are given what its state folder holds besides blobs.
    pub fn start(bed: &'a Bed, number: usize, ledger: &str, blobs: &str) -> Self {
        let folder = |n| if n == 0 { bed.state() } else { bed.path(&format!("state-{n}")) };
        let folders = (0..number).map(folder).collect();
        let addresses = free_ports().take(number).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let mut all = Processes { bed, folders, addresses, running: vec![] };
        for n in 0..number {
            let places: &[&str] = if n == 0 { &["--ledger", ledger, "--blobs", blobs] } else { &[] };
            if n > 0 {
                copy_files(&bed.state(), &all.folders[n]);
            }
            let mut process = Process::of(all.command(n).args(places).stdout(Stdio::piped()).spawn().unwrap());
            let (lines, mut log) = (process.lines.take(), all.log(n));
            std::thread::spawn(move || lines.map(|mut lines| io::copy(&mut lines, &mut log)));
            all.running.push(Some(process));
        }
        all
    }

    fn command(&self, n: usize) -> Command {
        let mut command = program();
        command.args(["serve", "--http", "127.0.0.1:0", "--listen"]).arg(self.addresses[n].to_string());
        command.arg("--run").arg(self.bed.run_file()).arg("--data").arg(self.bed.data());
        command.arg("--state").arg(&self.folders[n]).envs(KEYS).stderr(self.log(n));
        command
    }

    /// What it says, after all that it has said before.
    fn log(&self, n: usize) -> File {
        File::options().create(true).append(true).open(self.log_file(n)).unwrap()
    }

    fn log_file(&self, n: usize) -> PathBuf {
        self.bed.path(&format!("process-{n}.log"))
    }

    pub fn kill(&mut self, n: usize) {
        self.running[n] = None;
    }

    /// Starts it where it was; nobody waits until it serves.
    pub fn start_again(&mut self, n: usize) {
        let child = self.command(n).stdout(self.log(n)).spawn().unwrap();
        let at = self.addresses[n];
        self.running[n] = Some(Process { child, address: at, http: at, lines: None });
    }

    pub fn signal(&self, n: usize, signal: Signal) {
        kill_process(Pid::from_child(self.child(n)), signal).unwrap();
    }

    fn child(&self, n: usize) -> &Child {
        &self.running[n].as_ref().expect("it runs").child
    }

    /// Those that have ended without being killed.
    pub fn ended(&mut self) -> Vec<String> {
        let mut ended = vec![];
        for (n, process) in self.running.iter_mut().enumerate() {
            let status = process.as_mut().and_then(|process| process.child.try_wait().unwrap());
            ended.extend(status.map(|status| format!("process {n}: {status}")));
        }
        ended
    }

    /// Which one leads, if one does. The database is there.
    pub fn leader(&self, database: &Database) -> Option<usize> {
        let ask = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'nightjar leader at %'";
        let named = database.psql(ask);
        let address: SocketAddr = named.strip_prefix("nightjar leader at ")?.parse().ok()?;
        self.addresses.iter().position(|known| *known == address)
    }

    /// Kills all.
    pub fn end(&mut self) {
        self.running.clear();
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        self.end();
        for n in (0..self.folders.len()).filter(|_| std::thread::panicking()) {
            let said = fs::read_to_string(self.log_file(n)).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("process {n} said last:\n{}", lines[lines.len().saturating_sub(TOLD_MAX)..].join("\n"));
        }
    }
}

/// Ports that the system gives to nobody who asks for any, as devices do: one who is killed finds its own free again.
fn free_ports() -> impl Iterator<Item = u16> {
    let ports = (0..20_000).map(|n| 10_000 + ((std::process::id() * 101 + n) % 20_000) as u16);
    ports.filter(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok())
}

/// What an operator copies to another machine: files, and none of what is made anew.
pub fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name();
        if entry.path().is_file() && name != "lock" && name != "reserve" {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}
