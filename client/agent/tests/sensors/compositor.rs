//! As much of a Wayland compositor as the idle protocol needs: a registry with one seat and the notifier.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A compositor for the test's one client.
pub struct Compositor {
    folder: TempDir,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    client: Option<UnixStream>,
    notification: Option<u32>,
    ended: bool,
}

impl Compositor {
    /// One that has the idle protocol in this version; 0: not at all.
    pub fn start(version: u32) -> Compositor {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("wayland-7")).unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let of_thread = shared.clone();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if of_thread.lock().unwrap().ended {
                    return;
                }
                of_thread.lock().unwrap().client = Some(client.try_clone().unwrap());
                serve(client, version, &of_thread);
            }
        });
        Compositor { folder, shared }
    }

    /// The runtime folder with its socket.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().into()
    }

    /// Says that nobody uses the seat.
    pub fn idled(&self) {
        self.say(0);
    }

    /// Says that somebody does.
    pub fn resumed(&self) {
        self.say(1);
    }

    fn say(&self, opcode: u16) {
        let since = Instant::now();
        loop {
            let mut shared = self.shared.lock().unwrap();
            if let Some(notification) = shared.notification {
                return shared.client.as_mut().unwrap().write_all(&message(notification, opcode, &[])).unwrap();
            }
            drop(shared);
            assert!(since.elapsed() < super::PATIENCE, "no notification was asked for");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        let mut shared = self.shared.lock().unwrap();
        shared.ended = true;
        if let Some(client) = shared.client.take() {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        let socket = self.folder.path().join("wayland-7");
        // Wakes the thread, which then ends.
        let _ = UnixStream::connect(&socket);
        let _ = std::fs::remove_file(socket);
    }
}

/// An event: object, size and opcode, arguments.
fn message(object: u32, opcode: u16, arguments: &[u8]) -> Vec<u8> {
    let size = (8 + arguments.len()) as u32;
    [&object.to_ne_bytes(), &(size << 16 | u32::from(opcode)).to_ne_bytes(), arguments].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32 + 1).to_ne_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(4 + (text.len() + 1).next_multiple_of(4), 0);
    bytes
}

fn serve(mut client: UnixStream, version: u32, shared: &Mutex<Shared>) {
    let number = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut registry, mut notifier) = (0, 0);
    let mut head = [0; 8];
    while client.read_exact(&mut head).is_ok() {
        let (object, word) = (number(&head, 0), number(&head, 4));
        let (opcode, size) = (word & 0xffff, (word >> 16) as usize);
        let mut body = vec![0; size - 8];
        client.read_exact(&mut body).unwrap();
        let answer = match (object, opcode) {
            // wl_display.sync
            (1, 0) => [message(number(&body, 0), 0, &[0; 4]), message(1, 1, &body[..4])].concat(),
            // wl_display.get_registry
            (1, 1) => {
                registry = number(&body, 0);
                let global = |name: u32, interface: &str, version: u32| {
                    let arguments = [&name.to_ne_bytes()[..], &text(interface), &version.to_ne_bytes()].concat();
                    message(registry, 0, &arguments)
                };
                let notifier = if version > 0 { global(2, "ext_idle_notifier_v1", version) } else { vec![] };
                [global(1, "wl_seat", 7), global(9, "wl_shm", 1), notifier].concat()
            }
            // wl_registry.bind: name, interface, version, id
            (object, 0) if object == registry => {
                if number(&body, 0) == 2 {
                    notifier = number(&body, body.len() - 4);
                    assert_eq!(number(&body, body.len() - 8), version);
                }
                vec![]
            }
            // get_idle_notification, or since version 2 get_input_idle_notification: id, timeout, seat
            (object, opcode @ 1..=2) if object == notifier => {
                assert_eq!(opcode, version);
                shared.lock().unwrap().notification = Some(number(&body, 0));
                vec![]
            }
            _ => vec![],
        };
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}
