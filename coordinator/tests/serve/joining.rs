//! A volunteer's browser: Chromium opens the link of an invite, joins, and is a device like any other. The page is
//! built before, by `cargo xtask web`.

use crate::{
    bed::{Bed, Serving},
    browser::Browser,
    command_line::of_run,
    device::{Device, trained},
};
use nightjar_coordinator::{
    certificate::CertificateKey,
    server::{Wish, wall_now},
};
use nightjar_shared::{
    invite,
    wire::{Invite, LeaseRequest, Role, coordinator_message as answer, device_message as ask},
};
use serde_json::{Value, json};
use std::{
    env, mem,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where `cargo xtask web` puts the page, unless it was told otherwise.
fn built() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("web").join("page");
    let folder = env::var_os("NIGHTJAR_PAGE").map_or(beside, PathBuf::from);
    if folder.join("index.html").exists() {
        return Some(folder);
    }
    assert!(env::var_os("CI").is_none(), "CI needs the page: `cargo xtask web`");
    eprintln!("SKIPPED: {} has no page; `cargo xtask web` builds it", folder.display());
    None
}

/// A run that pages may join, and a browser.
struct Scene {
    bed: Bed,
    browser: Browser,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Option<Self> {
        let page = built()?;
        let folder = tempfile::tempdir().unwrap();
        let browser = Browser::start(folder.path())?;
        let mut bed = Bed::with_pages();
        bed.page = Some(page);
        Some(Scene { bed, browser, folder })
    }

    /// The link that a lab hands out.
    fn link(&self, server: &Serving) -> String {
        let identity = self.bed.identity();
        let certificates = CertificateKey::of(&identity).hashes(wall_now(), 3);
        let token = identity.sign_invite(Invite {
            addresses: vec![server.address.to_string()],
            role: Role::Volunteer as i32,
            run_name: "bed".into(),
            nonce: vec![1],
            certificates: certificates.iter().map(|hash| hash.to_vec()).collect(),
            ..Invite::default()
        });
        format!("http://{}/join/#{}", server.public, invite::to_link(&token))
    }

    async fn joined(&self, server: &Serving) {
        self.browser.open(&self.link(server));
        until("the form", || self.browser.script("return !document.querySelector('#join').hidden", &[]) == true).await;
        assert_eq!(self.browser.script("return location.hash", &[]), "", "no history keeps the invite");
        self.browser.write("#device-name", "the phone");
        self.browser.click("#join button");
        until("the run", || self.browser.text("#whose") == "bed").await;
    }

    fn state(&self) -> String {
        self.browser.text("#state")
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: it never came");
}

/// The same, for what the page's graphics processor has to do first: here it is a program, which compiles kernels for
/// minutes where the machine is busy.
async fn until_trained(server: &Serving, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..900 {
        let status = server.status().await;
        if is_so(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it never was so: {}", server.status().await)
}

/// The only device of a run.
fn device(status: &Value) -> &Value {
    &status["devices"][0]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web`"]
async fn a_browser_joins_by_a_link_and_comes_back_as_the_same_device() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.bed.serve().await;
    scene.joined(&server).await;
    assert_eq!(scene.state(), "Stopped", "nothing trains before its owner says so");
    scene.browser.click("#start");
    let status = server.until(|status| device(status)["online"] == true).await;
    assert_eq!(device(&status)["name"], "the phone", "{status}");
    let id = scene.browser.text("#device");
    let origin = format!("http://{}/", server.public);
    let outside: Vec<String> =
        scene.browser.requests().into_iter().filter(|asked| !asked.starts_with(&origin)).collect();
    assert!(outside.is_empty(), "it asks for nothing from elsewhere: {outside:?}");

    // Reloaded, it goes on by itself: the same key, the same run.
    scene.browser.open("about:blank");
    server.until(|status| device(status)["online"] == false).await;
    scene.browser.open(&format!("{origin}join/"));
    let status = server.until(|status| device(status)["online"] == true).await;
    assert_eq!((scene.browser.text("#device"), status["devices"].as_array().unwrap().len()), (id, 1));

    // Stopped, it stays in the run; having left, it is in none.
    scene.browser.click("#stop");
    until("the stop", || scene.state() == "Stopped").await;
    scene.browser.script("window.confirm = () => true", &[]);
    scene.browser.click("#leave");
    until("the farewell", || scene.browser.text("#whose").is_empty()).await;
    server.stop().await;
    assert!(of_run(&scene.bed, &["verify"]).status.success());
    drop(scene.folder);
}

/// The coordinator is killed and started again, at another address by its own words; the page finds it by what it
/// knows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web`"]
async fn a_page_outlasts_its_coordinator() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.bed.serve().await;
    scene.joined(&server).await;
    scene.browser.click("#start");
    server.until(|status| device(status)["online"] == true).await;
    let address = server.address;
    server.wish.send(Wish::End).await.unwrap();
    server.stop().await;
    until("the loss", || scene.state() == "Not connected").await;
    let server = scene.bed.serve_at(address).await;
    server.until(|status| device(status)["online"] == true).await;
    let told = scene.browser.console();
    let wrong: Vec<&String> = told.iter().filter(|line| line.contains("Content Security Policy")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    server.stop().await;
}

/// A link that was changed on its way lets nobody in, and says so.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web`"]
async fn a_changed_link_is_refused_in_the_page() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.bed.serve().await;
    let link = scene.link(&server);
    let (before, token) = link.split_once("nightjar:").unwrap();
    let mut token = invite::from_link(&format!("nightjar:{token}")).unwrap();
    let last = token.len() - 1;
    token[last] ^= 1;
    scene.browser.open(&format!("{before}{}", invite::to_link(&token)));
    until("the form", || scene.browser.script("return !document.querySelector('#join').hidden", &[]) == true).await;
    scene.browser.click("#join button");
    until("the refusal", || scene.browser.text("#notices").contains("signature does not fit")).await;
    assert_eq!(server.status().await["devices"], json!([]));
    server.stop().await;
}

/// A page trains and delivers beside a native device; hidden in the midst of a lease, and reloaded, it goes on with it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web`"]
async fn a_page_trains_and_what_it_delivers_is_merged() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.bed.serve().await;
    scene.joined(&server).await;
    scene.browser.click("#start");
    let first = until_trained(&server, |status| status["merged"].as_u64() > Some(0)).await;
    assert_eq!(first["merged"], 1, "{first}");
    let mut native = Device::new(&scene.bed).join(server.address, scene.bed.invite(Role::Volunteer)).await;
    let lease = native.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&scene.bed.spec.model, &lease, 1);
    native.upload(lease.id, &delta).await.unwrap();
    let done = native.ask(ask::Body::DeltaOffer(offer)).await;
    assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{done:?}");
    // Out of sight it stands still, and keeps what it is at.
    let seen = |is_hidden: bool| {
        let script = "Object.defineProperty(document, 'hidden', { configurable: true, get: () => arguments[0] }); \
                      document.dispatchEvent(new Event('visibilitychange'))";
        scene.browser.script(&script.replace("arguments[0]", &is_hidden.to_string()), &[]);
    };
    seen(true);
    until("the yield", || scene.browser.text("#sentence") == "The page is not in front.").await;
    let mut before = String::new();
    until("the standstill", || {
        std::thread::sleep(Duration::from_secs(2));
        let lease = scene.browser.text("#lease");
        mem::replace(&mut before, lease.clone()) == lease
    })
    .await;
    seen(false);
    until("the return", || scene.state() == "Training").await;
    // Put away and opened again in the midst of whatever it is at.
    scene.browser.open("about:blank");
    server
        .until(|status| status["devices"].as_array().unwrap().iter().filter(|d| d["online"] == true).count() == 1)
        .await;
    scene.browser.open(&format!("http://{}/join/", server.public));
    let merged = server.status().await["merged"].as_u64().unwrap();
    until_trained(&server, |status| status["merged"].as_u64() > Some(merged + 1)).await;
    let tokens = scene.browser.text("#total");
    assert!(tokens.contains("tokens") && !tokens.starts_with("0 "), "{tokens}");
    scene.browser.click("#stop");
    until("the stop", || scene.state() == "Stopped").await;
    server.stop().await;
    let verified = of_run(&scene.bed, &["verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

/// A page that was ended in the midst of writing: files whose headers claim to be the newest of a name, and are torn.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web`"]
async fn what_was_torn_in_the_browsers_storage_is_found() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.bed.serve().await;
    scene.joined(&server).await;
    scene.browser.click("#start");
    server.until(|status| device(status)["online"] == true).await;
    let id = scene.browser.text("#device");
    // Another document of the same place, so that the page has let go of its files.
    scene.browser.open(&format!("http://{}/join/icon.svg", server.public));
    let tear = "return (async () => {
        const root = await navigator.storage.getDirectory(), folder = await root.getDirectoryHandle('nightjar');
        let [torn, held] = [0, 0];
        for await (const file of folder.values()) {
            if ((await file.getFile()).size > 0) { held += 1; continue; }
            const header = new Uint8Array(4096), name = ['membership.json', 'journal.json'][torn % 2];
            header.set(new TextEncoder().encode('NJF1'));
            header[8] = 1; // a turn that is later than all others
            header[12] = name.length;
            header.set(new TextEncoder().encode(name), 16);
            const writer = await file.createWritable();
            await writer.write(header);
            await writer.close();
            torn += 1;
        }
        return [torn, held];
    })()";
    let mut found = Value::Null;
    until("the storage", || {
        found = scene.browser.script(tear, &[]);
        found[0].as_u64() > Some(1)
    })
    .await;
    assert!(found[1].as_u64() > Some(1), "{found}");
    scene.browser.open(&format!("http://{}/join/", server.public));
    let status = server.until(|status| device(status)["online"] == true).await;
    assert_eq!((scene.browser.text("#device"), scene.browser.text("#whose")), (id, "bed".to_owned()));
    assert_eq!(status["devices"].as_array().unwrap().len(), 1);
    server.stop().await;
}
