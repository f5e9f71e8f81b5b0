//! The lab's dashboard, with a real run behind it: what it answers, and how it looks and works in a real browser.
//! Pictures stay in `board-screenshots` below the target folder's `tmp`.

use crate::{
    bed::{Bed, Serving, get, get_as},
    browser::{Browser, View},
    device::{Device, Link, trained},
    until,
};
use nightjar_shared::{
    delta::CodecId,
    wire::{Evaluation, Hello, LeaseRequest, Role, coordinator_message as answer, device_message as ask},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
};

pub const VIEWS: [View; 6] = [
    View { width: 1280, dark: false },
    View { width: 1280, dark: true },
    View { width: 768, dark: false },
    View { width: 768, dark: true },
    View { width: 360, dark: false },
    View { width: 360, dark: true },
];
/// What devices call themselves; some mean harm.
const NAMES: [&str; 6] = [
    "kitchen-pc",
    "<script>document.title='pwned'</script>",
    "\"><img src=x onerror=\"document.title='pwned'\">",
    "a name that is very long and has no end, so that it has to break somewhere or push all else off the screen",
    "\u{202e}gpj.evil",
    "",
];

/// What the first is called in public.
const PUBLIC_NAME: &str = "Anna's owls";

async fn join(device: &Device, bed: &Bed, to: SocketAddr, name: &str, role: Role) -> Link {
    let mut link = device.link(to).await;
    let hello = Hello {
        software: "test".into(),
        invite: bed.invite(role),
        role: role as i32,
        codecs: CodecId::ALL.iter().map(|c| *c as u32).collect(),
        kinds: vec![if role == Role::Anchor { 2 } else { 1 }],
        name: name.into(),
        // Whoever means harm is called the same in public.
        public_name: if name == NAMES[0] { PUBLIC_NAME } else { name }.into(),
        device: "AMD Radeon <780M>".into(),
        ..Hello::default()
    };
    assert!(matches!(link.ask(ask::Body::Hello(hello)).await, answer::Body::Welcome(_)));
    link
}

/// A run that has trained and measured for so many rounds; its devices are still there.
async fn run(bed: &Bed, server: &Serving, rounds: u64) -> (Vec<Device>, Vec<Link>) {
    let (devices, mut links) = trained_in(bed, server, 0..rounds).await;
    // Some train on, one has turned its back.
    for link in &mut links[..3] {
        link.lease(LeaseRequest::default()).await;
    }
    drop(links.remove(4));
    server.until(|status| status["states"]["away"] == 1).await;
    (devices, links)
}

/// Trains and measures in these rounds, which begin where the run is. The anchor's link is the last.
pub async fn trained_in(bed: &Bed, server: &Serving, rounds: Range<u64>) -> (Vec<Device>, Vec<Link>) {
    let devices: Vec<Device> = (0..=NAMES.len()).map(|_| Device::new(bed)).collect();
    let mut links = vec![];
    for (device, name) in devices.iter().zip(NAMES) {
        links.push(join(device, bed, server.address, name, Role::Volunteer).await);
    }
    let mut anchor = join(&devices[NAMES.len()], bed, server.address, "anchor-1", Role::Anchor).await;
    for round in rounds {
        let link = &mut links[(round * round % 5) as usize];
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offer) = trained(&bed.spec.model, &lease, round);
        link.upload(lease.id, &delta).await.unwrap();
        link.ask(ask::Body::DeltaOffer(offer)).await;
        let measured = round + 1;
        server.until(|status| status["version"].as_u64() >= Some(measured)).await;
        let lease = anchor.lease(LeaseRequest::default()).await;
        let noise = 0.08 * ((round * 7919) % 13) as f64 / 13.0;
        let tokens = u64::from(lease.samples) * 8;
        let nats = (1.9 + 3.4 * (-(round as f64) / 9.0).exp() + noise) * tokens as f64;
        let done = Evaluation { lease_id: lease.id, generation: lease.generation, nats, tokens };
        assert!(matches!(anchor.ask(ask::Body::Evaluation(done)).await, answer::Body::Done(_)));
    }
    links.push(anchor);
    (devices, links)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_bounded_escaped_and_guarded() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let (_devices, _links) = run(&bed, &server, 3).await;
    let http = server.http;
    tokio::task::spawn_blocking(move || {
        let page = get_as("localhost", http, "/").unwrap();
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'"),
            "{head}"
        );
        assert!(head.contains("frame-ancestors 'none'") && head.contains("nosniff") && !head.contains("unsafe-inline"));
        assert!(body.contains("&lt;script&gt;document") && !body.contains("<script>document"), "{body}");
        assert!(!body.contains("style=\"") && !body.contains("onerror=\"d"), "nothing is inline");

        let list = |query: &str| serde_json::from_str::<Value>(&get(http, &format!("/api/devices?{query}"))).unwrap();
        let all = list("sort=name&dir=up");
        assert_eq!((all["matching"].as_u64(), all["devices"].as_array().unwrap().len()), (Some(7), 7), "{all}");
        let page = list("sort=tokens&offset=2&limit=3");
        assert_eq!((page["matching"].as_u64(), page["devices"].as_array().unwrap().len()), (Some(7), 3));
        let found = list("search=KITCHEN");
        assert_eq!(
            (&found["devices"][0]["name"], &found["devices"][0]["state"]),
            (&"kitchen-pc".into(), &"training".into())
        );
        assert_eq!(list("state=away")["matching"], 1);
        assert_eq!(list("sort=nonsense&offset=-3&limit=999999999999999999999")["matching"], 7);

        let id = found["devices"][0]["id"].as_str().unwrap();
        let device = get(http, &format!("/devices/{id}"));
        assert!(
            device.contains("kitchen-pc") && device.contains("AMD Radeon &lt;780M&gt;") && device.contains("merged"),
            "{device}"
        );
        for nobody in ["00", &"0".repeat(64), "%3Cscript%3E"] {
            assert!(
                get_as("localhost", http, &format!("/devices/{nobody}")).unwrap().starts_with("HTTP/1.1 404"),
                "{nobody}"
            );
        }
        let status: Value = serde_json::from_str(&get(http, "/api/status")).unwrap();
        assert_eq!((&status["ended"]["merged"], &status["ended"]["evaluated"]), (&json!(3), &json!(3)), "{status}");
        assert_eq!(status["losses"].as_array().unwrap().len(), 3);
        assert!(status["losses"][0]["loss_max"] == status["losses"][0]["loss"] && status["round_s"].is_number());

        let post = |path: &str, body: &str| {
            let mut stream = TcpStream::connect(http).unwrap();
            let length = body.len();
            write!(
                stream,
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        assert!(post("/qr", "nightjar:abc").contains("<svg"));
        assert!(post("/qr", &"x".repeat(3000)).starts_with("HTTP/1.1 400"));
        assert!(post("/qr", &"x".repeat(9000)).starts_with("HTTP/1.1 413"));
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_come_when_something_changes_and_listeners_are_bounded() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let listen = |http: SocketAddr| {
        let mut stream = TcpStream::connect(http).unwrap();
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        BufReader::new(stream)
    };
    let mut news = listen(server.http);
    let mut first = String::new();
    while !first.contains("data: ") {
        first.clear();
        news.read_line(&mut first).unwrap();
    }
    assert!(first.contains("\"curves\"") && first.contains("\"figures\""), "{first}");
    let _link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let joined = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("1 waiting")
            && !line.contains("> 1<")
            && !line.contains(" 1 device")
            && !line.contains("</i>1 waiting")
        {
            line.clear();
            assert!(news.read_line(&mut line).unwrap() > 0, "the stream ended");
        }
        line
    });
    assert!(joined.await.unwrap().contains("data: "));
    let mut others: Vec<_> = (0..64).map(|_| listen(server.http)).collect();
    let mut refused = 0;
    for other in &mut others {
        let mut line = String::new();
        other.read_line(&mut line).unwrap();
        refused += usize::from(line.starts_with("HTTP/1.1 503"));
    }
    assert!(refused <= 2, "64 have a place: {refused}");
    let mut line = String::new();
    listen(server.http).read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 503"), "{line}");
    drop(others);
    server.stop().await;
}

pub fn picture(name: &str, view: View) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("board-screenshots");
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{name}-{}-{}.png", view.width, if view.dark { "dark" } else { "light" }))
}

/// Nothing is wrong with what is shown: contrast, structure, what fits, the console, and who was asked; and, where
/// axe-core is at hand (`NIGHTJAR_AXE` names its file), what that finds.
pub fn assert_sound(browser: &Browser, what: &str, view: View, origin: &str) {
    let wrong = browser.script(include_str!("../../../tests/tests/page/checks.js"), &[json!(view.width)]);
    assert_eq!(wrong, json!([]), "{what}, {view:?}");
    if let Some(axe) = std::env::var_os("NIGHTJAR_AXE") {
        let axe = fs::read_to_string(axe).unwrap();
        browser.script(&axe, &[]);
        browser.script("window.found = null; axe.run().then(r => { window.found = r.violations.map(v => `${v.id}: ${v.nodes.map(n => n.html).join(' | ')}`); })", &[]);
        let found =
            until("axe's word", || Some(browser.script("return window.found", &[])).filter(|found| !found.is_null()));
        assert_eq!(found, json!([]), "{what}, {view:?}");
    }
    let outside: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|asked| !asked.starts_with(origin) && !asked.starts_with("blob:"))
        .collect();
    assert!(outside.is_empty(), "{what}: asked elsewhere: {outside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_works_in_a_browser() {
    let mut bed = Bed::new();
    bed.spec.token_budget = 14_000;
    let server = bed.serve().await;
    let folder = bed.path("browser");
    fs::create_dir_all(&folder).unwrap();
    let Some(browser) = Browser::start(&folder) else { return };
    let (_devices, _links) = run(&bed, &server, 40).await;
    let (origin, public) = (format!("http://{}/", server.http), format!("http://{}/", server.public));
    let looking = tokio::task::spawn_blocking(move || {
        look(&browser, &origin);
        look_from_outside(&browser, &public);
    });
    looking.await.unwrap();
    server.stop().await;
}

fn look_from_outside(browser: &Browser, origin: &str) {
    // What the dashboard still asked for is none of this page's.
    browser.open("about:blank");
    drop(browser.requests());
    browser.open(origin);
    assert_eq!(browser.text("h1"), "bed");
    assert!(browser.text("#helpers + p").starts_with("7 devices"), "{}", browser.text("#helpers + p"));
    let shown = browser.text("main");
    assert!(shown.contains(PUBLIC_NAME) && shown.contains(NAMES[1]), "{shown}");
    assert!(!shown.contains("kitchen"), "what a device is called is not public: {shown}");
    assert_ne!(browser.script("return document.title", &[]), json!("pwned"));
    assert_eq!(browser.script("return document.querySelectorAll('polyline').length", &[]), json!(1));
    for view in VIEWS {
        browser.screenshot(view, &picture("public", view));
        assert_sound(browser, "the public page", view, origin);
    }
    assert_eq!(browser.console(), [""; 0]);
}

/// Whoever is slow, sends too much or holds many connections gets nothing, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_hold_the_public_page() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let public = server.public;
    tokio::task::spawn_blocking(move || {
        let slow: Vec<TcpStream> = (0..40)
            .map(|_| {
                let mut stream = TcpStream::connect(public).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
                stream
            })
            .collect();
        let page = get_as("localhost", public, "/").unwrap();
        assert!(
            page.starts_with("HTTP/1.1 200") && page.contains("How to join") && !page.contains("<script"),
            "{page}"
        );
        assert!(get(public, "/run.json").starts_with("{\"run\":\"bed\""));
        assert!(get_as("localhost", public, "/api/status").unwrap().starts_with("HTTP/1.1 404"));
        let mut large = TcpStream::connect(public).unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        let _ = large.write_all(head.as_bytes());
        let mut answer = String::new();
        let _ = large.read_to_string(&mut answer);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        for mut stream in slow {
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert!(!answer.starts_with("HTTP/1.1 200"), "a half request ends without a page: {answer}");
        }
    })
    .await
    .unwrap();
    server.stop().await;
}

fn look(browser: &Browser, origin: &str) {
    let wide = VIEWS[0];
    browser.view(wide, 900);
    browser.open(origin);
    let drawn = "return document.querySelectorAll('[data-chart=loss] tbody tr').length";
    until("the curve", || (browser.script(drawn, &[]) == json!(40)).then_some(()));
    until("the stream of news", || (browser.text("#live-words") == "live").then_some(()));
    assert_eq!(browser.text("#state"), "Training");
    assert_eq!(browser.text("#sentence"), "3 of 7 devices train.");
    assert_eq!(browser.script("return document.title", &[]), json!("bed · Nightjar"), "no name runs as a script");
    assert_eq!(
        browser.script("return document.querySelectorAll('#devices tbody img, #devices tbody script').length", &[]),
        json!(0)
    );
    for view in VIEWS {
        browser.screenshot(view, &picture("run", view));
        assert_sound(browser, "the run", view, origin);
    }
    if std::env::var_os("NIGHTJAR_WRITE_DOCS").is_some() {
        browser.view(View { width: 1000, dark: false }, 1080);
        browser.capture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/run.png"));
    }
    browser.view(wide, 900);
    // The operator's buttons are for operators.
    assert_eq!(
        browser.script("return [...document.querySelectorAll('[data-operator]')].every(e => e.hidden)", &[]),
        json!(true)
    );

    // The curve, by keyboard.
    browser.script("document.querySelector('[data-chart=loss] canvas').focus()", &[]);
    let readout = "[data-chart=loss] .readout";
    assert!(browser.text(readout).contains("version 40"), "{}", browser.text(readout));
    const LEFT: &str = "\u{e012}";
    browser.press(LEFT);
    assert!(browser.text(readout).contains("version 39"), "{}", browser.text(readout));
    let label =
        browser.script("return document.querySelector('[data-chart=loss] canvas').getAttribute('aria-label')", &[]);
    assert!(label.as_str().unwrap().starts_with("Held-out loss: from 5."), "{label}");
    // Zoomed in, smoothed, with other axes: it draws, and the table says what was measured.
    for change in ["log x", "log y"] {
        let script = "const box = [...document.querySelectorAll('[data-chart=loss] label')].find(l => l.textContent.includes(arguments[0])).querySelector('input'); box.click()";
        browser.script(script, &[json!(change)]);
    }
    browser.click("[data-chart=loss] [data-do=in]");
    browser.screenshot(wide, &picture("zoomed", wide));
    browser.click("[data-chart=loss] [data-do=all]");
    let script = "const s = document.querySelector('#loss-smooth'); s.value = '5'; s.dispatchEvent(new Event('change', { bubbles: true })); \
                  const x = document.querySelector('#loss-x'); x.value = 'time'; x.dispatchEvent(new Event('change', { bubbles: true }));";
    browser.script(script, &[]);
    browser.screenshot(wide, &picture("smoothed", wide));
    assert_eq!(browser.script(drawn, &[]), json!(40));
    // What is saved is caught on its way.
    browser.script("window.saved = []; URL.createObjectURL = blob => { blob.text().then(t => window.saved.push([blob.type, t.length, t.split('\\n').slice(0, 2)])); return 'blob:x'; }; HTMLAnchorElement.prototype.click = () => {};", &[]);
    browser.click("[data-chart=loss] [data-do=csv]");
    browser.click("[data-chart=loss] [data-do=png]");
    let saved = until("what is saved", || {
        let saved = browser.script("return window.saved", &[]);
        (saved.as_array()?.len() == 2).then_some(saved)
    });
    assert_eq!(saved[0][0], "text/csv");
    assert_eq!(saved[0][2][0], "line,version,tokens,unix_ms,value,least,greatest");
    assert!(saved[0][2][1].as_str().unwrap().starts_with("held-out,1,"), "{saved}");
    assert!(saved[1][0] == "image/png" && saved[1][1].as_u64() > Some(10_000), "{saved}");

    // Devices: sorted by a link, filtered by a form, and a page for each.
    browser.open(&format!("{origin}?sort=name&dir=up"));
    assert_eq!(
        browser.script("return document.querySelector('th[aria-sort]').getAttribute('aria-sort')", &[]),
        json!("ascending")
    );
    browser.write("#search", "kitchen");
    browser.click(".filter button");
    until("the device that was looked for", || {
        (browser.script("return document.querySelectorAll('#devices tbody tr').length", &[]) == json!(1)).then_some(())
    });
    browser.click("#devices tbody th a");
    until("the device's page", || (browser.text("h1") == "kitchen-pc").then_some(()));
    assert!(browser.script("return document.querySelectorAll('#leases tbody tr').length", &[]).as_u64() >= Some(5));
    for view in VIEWS {
        browser.screenshot(view, &picture("device", view));
        assert_sound(browser, "a device", view, origin);
    }
    // The one thing that may be missing: who is signed in.
    let said: Vec<String> = browser.console().into_iter().filter(|line| !line.contains("/api/v1/session")).collect();
    assert!(said.is_empty(), "{said:?}");
}
