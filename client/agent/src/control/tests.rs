//! The control API over a real socket, with an event loop that only answers.

use super::*;
use crate::{history::Figures, join::JoinError, policy::ReasonKind, preferences::PreferencesError, session};
use nightjar_shared::{ids::DeviceId, lease::LeaseKind, wire::Role};
use std::{path::Path, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn volunteer() -> session::Profile {
    session::Profile {
        device: DeviceId([7; 32]),
        token: b"token".to_vec(),
        role: Role::Volunteer,
        kinds: LeaseKind::ALL.to_vec(),
        name: "den".into(),
        public_name: None,
        hardware: "flex, 1 threads".into(),
        memory_bytes: 1 << 30,
        checkpoint_ms: 1000,
        checkpoint_bytes_day_max: None,
    }
}

fn status(reason: &str) -> AgentStatus {
    AgentStatus {
        pid: 1,
        version: "0".into(),
        device: "d".into(),
        name: "n".into(),
        summary: Summary::default(),
        why: Why { allowed: false, kind: Some(ReasonKind::InUse), reason: reason.into(), until: None },
        owner: Some(Word { kind: WordKind::RunNow, until: None, kept: true }),
        run: None,
        session: session::Session::new(volunteer(), Default::default()).status(),
        totals: Figures::default(),
        today: Figures::default(),
        energy_source: None,
        sensors: vec![],
        limits: None,
        profile: None,
        slowed: None,
        sandbox: vec![],
        worker: WorkerStatus::default(),
        config_error: None,
    }
}

/// A served control API whose agent answers every command with its name.
async fn served(folder: &Path) -> (Server, ControlFile) {
    let home = Home::open(Some(folder.into())).unwrap();
    let (queue, mut asked) = mpsc::channel::<Asked>(4);
    tokio::spawn(async move {
        while let Some(asked) = asked.recv().await {
            match asked {
                Asked::Do(command, reply) => drop(reply.send(status(&format!("{command:?}")))),
                Asked::Set { key, reply, .. } => {
                    drop(reply.send(Err(PreferencesError::unknown_key("here", &key))));
                }
                Asked::Join { invite, name, reply } => {
                    drop(reply.send(Err(JoinError::Refused(format!("{invite} for {name:?}")))));
                }
                Asked::Day(..) | Asked::Preferences(_) => {}
            }
        }
    });
    let server = serve(&home, queue, Tickets::default()).await.unwrap();
    (server, ControlFile::load(&home).unwrap())
}

/// Sends a request by hand; gives back the status line and the body.
async fn send(address: SocketAddr, line: &str, headers: &str, body: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn owner(file: &ControlFile) -> String {
    format!("Host: {}\r\nAuthorization: Bearer {}\r\n", file.address, file.token)
}

#[tokio::test]
async fn only_who_bears_the_token_and_comes_from_here_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, file) = served(folder.path()).await;
    let (address, token) = (file.address, &file.token);
    let host = format!("Host: {address}\r\n");
    let bearer = format!("Authorization: Bearer {token}\r\n");

    let (line, body) = send(address, "GET /why", &owner(&file), "").await;
    assert!(line.contains("200") && body.contains("Status"), "{line} {body}");
    let (_, body) = send(address, "POST /pause?seconds=60", &owner(&file), "").await;
    assert!(body.contains("Pause(Some(60s))"), "{body}");
    let (_, body) = send(address, "POST /pause?words=2%20Hours", &owner(&file), "").await;
    assert!(body.contains("Pause(Some(7200s))"), "{body}");
    let (_, body) = send(address, "POST /pause?words=", &owner(&file), "").await;
    assert!(body.contains("Pause(None)"), "{body}");
    let (line, body) = send(address, "POST /pause?words=soon", &owner(&file), "").await;
    assert!(line.contains("400") && body.contains("`soon` is no length of time"), "{line} {body}");
    let (line, body) = send(address, "POST /pause?seconds=0", &owner(&file), "").await;
    assert!(line.contains("400") && body.contains("`seconds` is 0"), "{line} {body}");
    for (seconds, words) in [("-1", "is a whole number"), ("x", "is a whole number"), ("99999999", "at most a year")] {
        let (line, body) = send(address, &format!("POST /pause?seconds={seconds}"), &owner(&file), "").await;
        assert!(line.contains("400") && body.contains(words), "{line} {body}");
    }
    let (_, body) = send(address, "POST /run-now", &owner(&file), "").await;
    assert!(body.contains("RunNow(None)") && body.contains(r#""kind":"run_now""#), "{body}");
    let own = format!("Origin: http://{address}\r\n");
    assert!(send(address, "POST /resume", &(owner(&file) + &own), "").await.0.contains("200"));

    let strangers = [
        ("no token", host.clone()),
        ("a wrong token", format!("{host}Authorization: Bearer {}\r\n", "0".repeat(64))),
        ("a page elsewhere", format!("{host}{bearer}Origin: https://example.com\r\n")),
        ("a name that was rebound to loopback", format!("Host: example.com:{}\r\n{bearer}", address.port())),
        ("no host", bearer.clone()),
    ];
    for (who, headers) in strangers {
        let (line, _) = send(address, "POST /shutdown", &headers, "").await;
        assert!(line.contains("403") || line.contains("400"), "{who}: {line}");
    }
}

/// The page itself needs no token, for a browser has none yet; but it is not for other names of this address.
#[tokio::test]
async fn the_page_is_there_and_only_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, file) = served(folder.path()).await;
    let (line, body) = send(file.address, "GET /", &format!("Host: {}\r\n", file.address), "").await;
    assert!(line.contains("200") && body.contains("<html"), "{line}");
    assert!(!body.contains(&file.token));
    let (line, _) = send(file.address, "GET /", "Host: example.com\r\n", "").await;
    assert!(line.contains("403"), "{line}");
}

#[tokio::test]
async fn a_mistake_is_answered_in_one_line_and_too_much_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, file) = served(folder.path()).await;
    let headers = owner(&file) + "Content-Type: application/json\r\n";
    let (line, body) = send(file.address, "POST /preferences", &headers, r#"{"key":"x","value":"1"}"#).await;
    assert!(line.contains("400") && body.starts_with("here: there is no preference `x`;"), "{line} {body}");
    let (line, body) = send(file.address, "POST /join", &headers, r#"{"invite":"x"}"#).await;
    assert!(line.contains("400") && body.ends_with("take this device: x for None"), "{line} {body}");
    let (line, body) = send(file.address, "GET /history?day=yesterday", &headers, "").await;
    assert!(line.contains("400") && body.contains("2026-11-24"), "{line} {body}");
    for day in ["9999-12-31", "-009999-01-01"] {
        let (line, body) = send(file.address, &format!("GET /history?day={day}"), &headers, "").await;
        assert!(line.contains("400") && body.contains("nothing to tell"), "{line} {body}");
    }
    for (path, bad) in [("/preferences", r#"{"key":"x"}"#), ("/preferences", "{"), ("/join", "[]"), ("/join", "")] {
        let (line, body) = send(file.address, &format!("POST {path}"), &headers, bad).await;
        let is_plain = body.contains("send JSON like") && !body.contains("field") && !body.contains("struct");
        assert!(line.contains(" 4") && is_plain, "{line} {body}");
    }
    let much = format!(r#"{{"key":"x","value":"{}"}}"#, "1".repeat(100 << 10));
    let (line, _) = send(file.address, "POST /preferences", &headers, &much).await;
    assert!(line.contains("413"), "{line}");
}

#[tokio::test]
async fn who_listens_hears_how_it_stands_and_every_change_once() {
    let folder = tempfile::tempdir().unwrap();
    let (server, file) = served(folder.path()).await;
    assert!(!server.has_listeners());
    let mut stream = tokio::net::TcpStream::connect(file.address).await.unwrap();
    stream.write_all(format!("GET /events HTTP/1.1\r\n{}\r\n", owner(&file)).as_bytes()).await.unwrap();
    let mut heard = String::new();
    let mut hear = async |words: &str| {
        let mut bytes = [0; 4096];
        while !heard.contains(words) {
            let n = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(n > 0, "it hung up after {heard}");
            heard += std::str::from_utf8(&bytes[..n]).unwrap();
        }
        heard.clone()
    };
    hear(r#""reason":"Status""#).await;
    assert!(server.has_listeners());
    server.tell(status("one"));
    server.tell(status("one"));
    server.tell(status("two"));
    let heard = hear(r#""reason":"two""#).await;
    assert!(heard.matches(r#""reason":"one""#).count() <= 1, "{heard}");
}

/// The page gets the token for a ticket, once; and nobody does who is not the page, or has none.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_ticket_opens_the_page_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, file) = served(folder.path()).await;
    let page = format!("Host: {0}\r\nOrigin: http://{0}\r\n", file.address);
    let (line, _) = send(file.address, "POST /ticket", &page, "").await;
    assert!(line.contains("403"), "a ticket is for who bears the token: {line}");
    let (_, ticket) = send(file.address, "POST /ticket", &owner(&file), "").await;
    assert!(
        file.link_with(&ticket).ends_with(&format!("/#once-{ticket}"))
            && !file.link_with(&ticket).contains(&file.token)
    );
    let host = format!("Host: {}\r\n", file.address);
    for (who, headers) in
        [("no page", host.clone()), ("an extension", format!("{host}Origin: chrome-extension://x\r\n"))]
    {
        assert!(send(file.address, "POST /enter", &headers, &ticket).await.0.contains("403"), "{who}");
    }
    assert!(send(file.address, "POST /enter", &page, "0").await.0.contains("403"));
    let (line, body) = send(file.address, "POST /enter", &page, &ticket).await;
    assert!(line.contains("200") && body == file.token, "{line}");
    assert!(send(file.address, "POST /enter", &page, &ticket).await.0.contains("403"), "once");
}

/// A bookmark leads to the page still after the next start; what lets one in is new each time.
#[tokio::test]
async fn the_page_stays_where_it_is_and_its_key_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (server, first) = served(folder.path()).await;
    assert!(server.moved().is_none());
    server.task.abort();
    while tokio::net::TcpStream::connect(first.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(server);
    let (server, second) = served(folder.path()).await;
    assert!(server.moved().is_none());
    assert_eq!(first.address, second.address);
    assert_ne!(first.token, second.token);
    assert!(send(second.address, "GET /why", &owner(&first), "").await.0.contains("403"), "the old key fits no longer");

    let other = tempfile::tempdir().unwrap();
    for name in ["page-port", nightjar_shared::mark::MARK_FILE] {
        std::fs::copy(folder.path().join(name), other.path().join(name)).unwrap();
    }
    let (beside, third) = served(other.path()).await;
    assert!(beside.moved().is_some_and(|words| words.contains(&first.address.port().to_string())));
    assert!(send(third.address, "GET /why", &owner(&third), "").await.0.contains("200"));
}

#[cfg(unix)]
#[tokio::test]
async fn its_files_are_the_owners_alone_and_go_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().into())).unwrap();
    let (server, file) = served(folder.path()).await;
    let open_file = file.write_open_file(&home).unwrap();
    let html = std::fs::read_to_string(&open_file).unwrap();
    assert!(html.contains(&format!("http://{}/#{}", file.address, file.token)));
    for path in [&open_file, &home.runtime_path(CONTROL_FILE)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    drop(server);
    assert!(!open_file.exists() && !home.runtime_path(CONTROL_FILE).exists());
}
