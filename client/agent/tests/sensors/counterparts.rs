//! An X server and the services of a laptop, started for one test.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use x11rb::{
    connection::Connection,
    protocol::xproto::{AtomEnum, ConnectionExt as _, CreateWindowAux, PropMode, Window, WindowClass},
    rust_connection::RustConnection,
    wrapper::ConnectionExt as _,
};

/// Says that a test skips for lack of something; under CI it may not.
fn missing(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is missing: cargo xtask setup");
    eprintln!("skipped: this machine has no {what}; cargo xtask setup installs it");
}

fn runs(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An X server without hardware.
pub struct Screen {
    server: Child,
    pub name: String,
    pub width: u16,
    pub height: u16,
    client: RustConnection,
    root: Window,
}

impl Screen {
    /// Starts one; `None` where that cannot be.
    pub fn start() -> Option<Screen> {
        // Without a display it fails, but it is there.
        if Command::new("xdotool").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            missing("xdotool");
            return None;
        }
        let (width, height) = (640, 480);
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"]);
        let Ok(mut server) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
            missing("Xvfb");
            return None;
        };
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let name = format!(":{}", number.trim());
        let (client, screen) = RustConnection::connect(Some(&name)).unwrap();
        let root = client.setup().roots[screen].root;
        Some(Screen { server, name, width, height, client, root })
    }

    fn xdotool(&self, words: &[&str]) {
        assert!(Command::new("xdotool").args(words).env("DISPLAY", &self.name).status().unwrap().success());
    }

    /// Presses a key.
    pub fn key(&self) {
        self.xdotool(&["key", "a"]);
    }

    /// Moves the pointer.
    pub fn pointer(&self) {
        self.xdotool(&["mousemove_relative", "3", "1"]);
    }

    /// Shows a window in the corner.
    pub fn window(&self, width: u16, height: u16) -> Shown<'_> {
        let id = self.client.generate_id().unwrap();
        let (class, none) = (WindowClass::INPUT_OUTPUT, CreateWindowAux::new());
        self.client.create_window(0, id, self.root, 0, 0, width, height, 0, class, 0, &none).unwrap();
        self.client.map_window(id).unwrap().check().unwrap();
        Shown { screen: self, id }
    }

    /// Does what a window manager does: says which windows there are.
    pub fn manage(&self, windows: &[&Shown]) -> Manager<'_> {
        let manager = Manager { screen: self };
        let ids: Vec<u32> = windows.iter().map(|window| window.id).collect();
        manager.set(self.root, "_NET_CLIENT_LIST", AtomEnum::WINDOW, &ids);
        manager.set(self.root, "_NET_SUPPORTING_WM_CHECK", AtomEnum::WINDOW, &ids[..1]);
        manager
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A window; dropping it closes it.
pub struct Shown<'a> {
    screen: &'a Screen,
    id: Window,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let _ = self.screen.client.destroy_window(self.id);
        let _ = self.screen.client.flush();
    }
}

/// Sets the properties that window managers set.
pub struct Manager<'a> {
    screen: &'a Screen,
}

impl Manager<'_> {
    fn atom(&self, name: &str) -> u32 {
        self.screen.client.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom
    }

    fn set(&self, window: Window, name: &str, kind: AtomEnum, values: &[u32]) {
        self.screen.client.change_property32(PropMode::REPLACE, window, self.atom(name), kind, values).unwrap().check().unwrap();
    }

    pub fn activate(&self, window: &Shown) {
        self.set(self.screen.root, "_NET_ACTIVE_WINDOW", AtomEnum::WINDOW, &[window.id]);
    }

    pub fn full_screen(&self, window: &Shown, is: bool) {
        let states = if is { vec![self.atom("_NET_WM_STATE_FULLSCREEN")] } else { vec![] };
        self.set(window.id, "_NET_WM_STATE", AtomEnum::ATOM, &states);
    }
}

/// UPower, logind and NetworkManager on a private system bus, and a session bus, by `computer.py`.
pub struct Computer {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub system_bus: String,
    pub session_bus: String,
}

impl Computer {
    /// Starts them; `None` where that cannot be.
    pub fn start() -> Option<Computer> {
        let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| runs(python, &["-c", "import dbusmock"]));
        let Some(python) = python.filter(|_| runs("dbus-daemon", &["--version"])) else {
            missing("dbus-daemon with python-dbusmock");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tests/night/computer.py");
        let mut command = Command::new(python);
        let mut process = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (system_bus, session_bus) = (String::new(), String::new());
        let mut computer = Computer { process, commands, answers: BufReader::new(answers), system_bus, session_bus };
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
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        // Its input ends with this, and so does it, with all that it started.
        let (end, _) = std::io::pipe().map(|(_, write)| (write, ())).unwrap();
        drop(std::mem::replace(&mut self.commands, std::os::fd::OwnedFd::from(end).into()));
        let _ = self.process.wait();
    }
}
