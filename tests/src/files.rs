//! Files for a browser, over HTTP on this computer alone.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// Whatever is served, by its name. It is served until the test ends.
pub struct Files {
    address: String,
}

impl Files {
    /// Serves these.
    ///
    /// # Panics
    /// If no port is free.
    pub fn serve(files: BTreeMap<String, Vec<u8>>) -> Files {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it listens"));
        let files = Arc::new(files);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = files.clone();
                // One that a browser breaks off is nobody's loss.
                thread::spawn(move || answer(stream, &files).ok());
            }
        });
        Files { address }
    }

    /// Where a file is.
    pub fn address(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let mut asked = String::new();
    let mut reader = BufReader::new(stream.try_clone()?).take(64 << 10);
    reader.read_line(&mut asked)?;
    let mut header = String::from("-");
    while !header.trim().is_empty() {
        header.clear();
        reader.read_line(&mut header)?;
    }
    let name = asked.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/');
    let kind = match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    };
    let (status, bytes) = files.get(name).map_or(("404 Not Found", &[][..]), |bytes| ("200 OK", &bytes[..]));
    let length = bytes.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(bytes)
}
