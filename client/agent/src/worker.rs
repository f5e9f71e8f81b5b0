//! The worker as the agent sees it: something that takes framed messages and answers in kind. Here it is a child process
//! of the same binary; where a system has none, a thread can stand in.

use nightjar_shared::{
    fail,
    wire::{
        frame, limits,
        worker::{FromWorker, ToWorker, from_worker, to_worker},
    },
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::AbortHandle,
};

/// The log is started over when it has grown to this.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// Longest line taken from the worker's errors.
const LINE_BYTES_MAX: usize = 4096;

/// What a worker says or does.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A message.
    Says(from_worker::Body),
    /// It is gone; its last words.
    Exited(String),
}

/// Something that trains. Dropping it ends it at once.
pub trait Worker: Send {
    /// Passes a message on; `false` if it takes none, being stuck or gone.
    fn send(&mut self, message: to_worker::Body) -> bool;
}

/// Starts workers.
pub trait Workshop: Send {
    /// Starts one, which reports to `events`.
    fn start(&mut self, events: mpsc::Sender<WorkerEvent>) -> io::Result<Box<dyn Worker>>;
}

/// Starts a process for each worker.
pub struct Processes {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its errors are kept.
    pub log: PathBuf,
}

struct Process {
    messages: mpsc::Sender<Vec<u8>>,
    tasks: [AbortHandle; 2],
}

impl Workshop for Processes {
    fn start(&mut self, events: mpsc::Sender<WorkerEvent>) -> io::Result<Box<dyn Worker>> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            // A fail point armed for the agent must not fire in its worker too.
            .env_remove(fail::VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        let (messages, waiting) = mpsc::channel(8);
        let tell = tokio::spawn(tell(stdin, waiting)).abort_handle();
        let hear = tokio::spawn(hear(child, stdout, stderr, self.log.clone(), events)).abort_handle();
        Ok(Box::new(Process { messages, tasks: [tell, hear] }))
    }
}

impl Worker for Process {
    fn send(&mut self, message: to_worker::Body) -> bool {
        self.messages.try_send(frame::encode(&ToWorker { body: Some(message) })).is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child is dropped with the task that owns it, and killed with that.
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn tell(mut stdin: ChildStdin, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = waiting.recv().await {
        if stdin.write_all(&frame).await.is_err() || stdin.flush().await.is_err() {
            // Its end is reported by who listens.
            return;
        }
    }
}

async fn hear(mut child: Child, stdout: ChildStdout, stderr: ChildStderr, log: PathBuf, events: mpsc::Sender<WorkerEvent>) {
    let log = tokio::spawn(keep_log(stderr, log));
    let fault = pass_messages(stdout, &events).await;
    let last_words = match fault {
        // It closed its pipe in good order, so it is ending.
        None => {
            let status = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
            let line = log.await.unwrap_or_default();
            if line.is_empty() { status } else { format!("{status}; its last words: {line}") }
        }
        Some(fault) => {
            let _ = child.start_kill(); // it fails only if the process is gone, which is what is wanted
            fault
        }
    };
    // Nobody listens any more only when the agent ends.
    let _ = events.send(WorkerEvent::Exited(last_words)).await;
}

/// Passes messages on until the pipe ends; says what was wrong if it did not end well.
async fn pass_messages(stdout: ChildStdout, events: &mpsc::Sender<WorkerEvent>) -> Option<String> {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut prefix = [0; 4];
        if stdout.read_exact(&mut prefix).await.is_err() {
            return None;
        }
        let mut body = match frame::length(prefix, limits::WORKER_MESSAGE_BYTES_MAX) {
            Ok(length) => vec![0; length],
            Err(e) => return Some(e.to_string()),
        };
        if stdout.read_exact(&mut body).await.is_err() {
            return None;
        }
        match frame::decode::<FromWorker>(&body) {
            Ok(FromWorker { body: Some(body) }) => {
                if events.send(WorkerEvent::Says(body)).await.is_err() {
                    return None;
                }
            }
            Ok(FromWorker { body: None }) => return Some("it sent an empty message".into()),
            Err(e) => return Some(e.to_string()),
        }
    }
}

/// Writes the worker's errors to a log of bounded size; gives back the last line.
async fn keep_log(stderr: ChildStderr, path: PathBuf) -> String {
    let mut lines = BufReader::new(stderr).take(u64::MAX);
    let mut last = String::new();
    let mut line = vec![];
    loop {
        line.clear();
        lines.set_limit(LINE_BYTES_MAX as u64);
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        // A log that cannot be written must not stop the training.
        let _ = append(&path, &line);
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            last = limits::tame(text.trim());
        }
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut log = File::options().create(true).append(true).open(path)?;
    if log.metadata()?.len() + line.len() as u64 > LOG_BYTES_MAX {
        fs::rename(path, path.with_extension("log.old"))?;
        log = File::options().create(true).append(true).open(path)?;
    }
    log.write_all(line)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use nightjar_shared::wire::worker::Stop;
    use std::time::Duration;

    fn shell(script: &str, folder: &Path) -> Processes {
        Processes { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], log: folder.join("worker.log") }
    }

    #[tokio::test]
    async fn a_crash_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut heard) = mpsc::channel(8);
        let _worker = shell("echo the driver is gone >&2; exit 3", folder.path()).start(events).unwrap();
        let Some(WorkerEvent::Exited(words)) = heard.recv().await else { panic!("no end") };
        assert!(words.contains("the driver is gone") && words.contains('3'), "{words}");
        assert_eq!(fs::read_to_string(folder.path().join("worker.log")).unwrap(), "the driver is gone\n");
    }

    #[tokio::test]
    async fn a_message_arrives_and_nonsense_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut heard) = mpsc::channel(8);
        // Echoes the frame of Stop, which is no message of a worker; then a length beyond all bounds.
        let script = r"head -c 6 >/dev/null; printf '\377\377\377\377'; sleep 60";
        let mut worker = shell(script, folder.path()).start(events).unwrap();
        assert!(worker.send(to_worker::Body::Stop(Stop {})));
        let Some(WorkerEvent::Exited(words)) = heard.recv().await else { panic!("no end") };
        assert!(words.contains("over the limit"), "{words}");
    }

    #[tokio::test]
    async fn dropping_it_ends_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("alive");
        let (events, _heard) = mpsc::channel(8);
        let script = format!("while :; do echo x >> {}; sleep 0.02; done", mark.display());
        let worker = shell(&script, folder.path()).start(events).unwrap();
        while !mark.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(worker);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let length = fs::metadata(&mark).unwrap().len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(fs::metadata(&mark).unwrap().len(), length);
    }

    #[test]
    fn the_log_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        for _ in 0..1000 {
            append(&path, &[b'x'; 1000]).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= LOG_BYTES_MAX);
        assert!(fs::metadata(path.with_extension("log.old")).unwrap().len() <= LOG_BYTES_MAX);
    }
}
