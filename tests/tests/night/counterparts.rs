//! An X server and the services of a laptop, started for one test. Shared with the agent's own tests of its sensors.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Says that a test skips for lack of something; under CI it may not.
fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI needs {what}: `cargo xtask setup`");
    eprintln!("SKIPPED: this machine has no {what}; `cargo xtask setup` installs it");
}

fn runs(program: &str, words: &[&str]) -> Option<bool> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().ok().map(|status| status.success())
}

/// An X server without hardware.
pub struct Screen {
    server: Child,
    /// Its display's name.
    pub name: String,
}

/// The screen's size in pixels.
pub const SIZE: (u16, u16) = (640, 480);

impl Screen {
    /// Starts one; `None` where that cannot be.
    pub fn start() -> Option<Screen> {
        // Without a display it fails, but it is there.
        if runs("xdotool", &["version"]).is_none() {
            missing("xdotool");
            return None;
        }
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-nolisten", "tcp", "-noreset", "-screen", "0"]);
        command.arg(format!("{}x{}x24", SIZE.0, SIZE.1));
        let Ok(mut server) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
            missing("Xvfb");
            return None;
        };
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        Some(Screen { server, name: format!(":{}", number.trim()) })
    }

    /// Presses a key.
    pub fn key(&self) {
        let mut command = Command::new("xdotool");
        assert!(command.args(["key", "a"]).env("DISPLAY", &self.name).status().unwrap().success());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// UPower, logind and NetworkManager on a private system bus, and a session bus, by `computer.py`.
pub struct Computer {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The system bus's address.
    pub system_bus: String,
    /// The session bus's address.
    pub session_bus: String,
}

impl Computer {
    /// Starts them by the script in this folder of the package's; `None` where that cannot be.
    pub fn start(script_folder: &str) -> Option<Computer> {
        let knows = |python: &&str| runs(python, &["-c", "import dbusmock"]) == Some(true);
        let python = ["/usr/bin/python3", "python3"].into_iter().find(knows);
        let Some(python) = python.filter(|_| runs("dbus-daemon", &["--version"]).is_some()) else {
            missing("dbus-daemon with python-dbusmock");
            return None;
        };
        let here: PathBuf = [env!("CARGO_MANIFEST_DIR"), script_folder].iter().collect();
        let script = here.join("computer.py");
        let mut command = Command::new(python);
        let mut process = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (system_bus, session_bus) = (String::new(), String::new());
        let mut computer =
            Computer { process, commands: Some(commands), answers: BufReader::new(answers), system_bus, session_bus };
        let addresses = computer.answer();
        let (system, session) = addresses.split_once(' ').expect("two addresses");
        (computer.system_bus, computer.session_bus) = (system.into(), session.into());
        Some(computer)
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        assert!(self.answers.read_line(&mut line).unwrap() > 0, "computer.py ended");
        line.trim().to_owned()
    }

    /// Has something happen; returns what there is to say of it.
    pub fn does(&mut self, command: &str) -> String {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        self.answer()
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        // Its input ends with this, and so does it, with all that it started.
        self.commands = None;
        let _ = self.process.wait();
    }
}
