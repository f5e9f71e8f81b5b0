//! A real S3 server for a test, SeaweedFS, in a folder of its own on loopback. It ends with the test.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The bucket that it has.
const BUCKET: &str = "nightjar";
/// The key that it knows.
pub const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "owl"), ("AWS_SECRET_ACCESS_KEY", "hoot-hoot")];
/// Its parts and their ports.
const PORTS: [&str; 10] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
];

/// A server at work, or one that was stopped.
pub struct ObjectStore {
    folder: tempfile::TempDir,
    program: PathBuf,
    ports: Vec<u16>,
    server: Option<Child>,
}

impl ObjectStore {
    /// Starts one; `None`, and it is said, where SeaweedFS is not installed.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            assert!(env::var_os("CI").is_none(), "CI needs SeaweedFS: `cargo xtask setup`");
            println!("skipped: SeaweedFS is not installed (`cargo xtask setup` installs it)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let [(_, key), (_, secret)] = KEYS;
        // Whoever has no key may see that the bucket is there: so it is known that the server has started.
        let identities = serde_json::json!({ "identities": [
            {
                "name": "nightjar",
                "credentials": [{ "accessKey": key, "secretKey": secret }],
                "actions": ["Admin", "Read", "Write", "List"],
            },
            { "name": "anonymous", "actions": [format!("List:{BUCKET}")] },
        ]});
        fs::write(folder.path().join("s3.json"), identities.to_string()).unwrap();
        // Ports that are free now; nobody else is given them soon.
        let free: Vec<TcpListener> = PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = free.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        drop(free);
        let mut store = ObjectStore { folder, program, ports, server: None };
        store.go_on();
        Some(store)
    }

    /// Starts it where it was stopped.
    pub fn go_on(&mut self) {
        let folder = self.folder.path();
        let mut serve = Command::new(&self.program);
        serve.args(["-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false"]);
        // It tells nobody that it runs.
        serve.args(["-webdav=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        serve.arg(format!("-bucket={BUCKET}")).arg(format!("-dir={}", folder.display()));
        serve.arg(format!("-s3.config={}", folder.join("s3.json").display()));
        for (name, port) in PORTS.iter().zip(&self.ports) {
            serve.arg(format!("-{name}={port}"));
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        serve.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(serve.spawn().unwrap());
        let begun = Instant::now();
        while !self.has_bucket() {
            assert!(begun.elapsed() < Duration::from_secs(60), "SeaweedFS does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// The address of a place in its bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}", self.endpoint())
    }

    /// Whether it answers, and has its bucket.
    fn has_bucket(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.ports[0]))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // Nothing of it is wanted any more.
        self.kill();
    }
}

/// Where the program is: in the path, or where `cargo xtask setup` puts it.
fn program() -> Option<PathBuf> {
    let tools = env::home_dir().map(|home| home.join(".cache/nightjar/tools/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(tools).map(|folder| folder.join("weed")).find(|file| file.is_file())
}
