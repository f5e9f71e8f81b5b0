//! What operators order in the dashboard: a real browser signs in, pauses a run, sees it drain, and resumes it.

use crate::{
    admin::token,
    bed::{Bed, Serving},
    board::{VIEWS, assert_sound, picture},
    browser::Browser,
    device::{Device, Link},
    until,
};
use nightjar_shared::wire::{LeaseRequest, Role, coordinator_message as answer, device_message as ask};
use serde_json::json;
use std::fs;
use tokio::runtime::Handle;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_drains_and_resumes_a_run_in_a_browser() {
    let mut bed = Bed::new();
    bed.limits = vec!["enrolments-per-invite=2/1"];
    let server = bed.serve().await;
    let folder = bed.path("browser");
    fs::create_dir_all(&folder).unwrap();
    let Some(browser) = Browser::start(&folder) else { return };
    let (owl, hawk) = (Device::new(&bed), Device::new(&bed));
    let mut link = owl.join(server.address, bed.invite(Role::Volunteer)).await;
    let _idle = hawk.join(server.address, bed.invite(Role::Volunteer)).await;
    let mut third = Device::new(&bed).link(server.address).await;
    for _ in 0..3 {
        let told = third.hello(bed.invite(Role::Volunteer), Role::Volunteer).await;
        assert!(matches!(told, answer::Body::Refusal(_)), "{told:?}");
    }
    link.lease(LeaseRequest::default()).await;
    let operator = token(&bed, "operator", "ann");
    let looking = tokio::task::spawn_blocking(move || {
        look(&browser, &server, &operator, link);
        server
    });
    looking.await.unwrap().stop().await;
}

/// Presses a button of an operator, and goes on or not.
fn order(browser: &Browser, path: &str, title: &str, is_meant: bool) {
    browser.click(&format!("main [data-path='{path}']"));
    until("the question", || (browser.text("#confirm-title") == title).then_some(()));
    browser.click(if is_meant { "#confirm-go" } else { "#confirm-cancel" });
    let is_open = "return document.getElementById('confirm').open";
    until("the answer", || (browser.script(is_open, &[]) == json!(false)).then_some(()));
}

fn look(browser: &Browser, server: &Serving, operator: &str, mut link: Link) {
    let origin = format!("http://{}/", server.http);
    let status = || Handle::current().block_on(server.status());
    let says = |state: &str| until(state, || (browser.text("#state") == state).then_some(()));
    let is_seen = |path: &str| {
        let seen = format!("return document.querySelector(\"main [data-path='{path}']\").checkVisibility()");
        browser.script(&seen, &[]) == json!(true)
    };
    let pictures = |name: &str| {
        for view in VIEWS {
            browser.screenshot(view, &picture(name, view));
            assert_sound(browser, name, view, &origin);
        }
        browser.view(VIEWS[0], 900);
    };
    const PAUSE: &str = "/api/v1/run/pause";
    const RESUME: &str = "/api/v1/run/resume";
    browser.view(VIEWS[0], 900);
    browser.open(&origin);
    let limits = browser.text("#limits");
    assert!(limits.contains("enrolments-per-invite") && limits.contains("3 ×"), "{limits}");

    // Nobody may before they have signed in.
    until("the way in", || {
        let shown = "return document.querySelector('[data-signed=out]').checkVisibility()";
        (browser.script(shown, &[]) == json!(true)).then_some(())
    });
    assert!(!is_seen(PAUSE) && !is_seen(RESUME));
    browser.click("[data-signed=out] button");
    browser.write("#field-token", operator);
    browser.click("#confirm-go");
    until("the buttons", || is_seen(PAUSE).then_some(()));
    assert!(!is_seen(RESUME), "only what can be done is offered");

    order(browser, PAUSE, "Pause the run?", false);
    assert_eq!(status()["paused_unix_ms"], json!(null), "who closes the question orders nothing");
    order(browser, PAUSE, "Pause the run?", true);
    says("Draining");
    assert!(status()["paused_unix_ms"].is_u64());
    assert_eq!(browser.text("#sentence"), "Paused, with 1 lease still out.");
    assert!(browser.text("#next").starts_with("An operator paused it at 20"), "{}", browser.text("#next"));
    assert!(is_seen(RESUME) && !is_seen(PAUSE));
    pictures("draining");

    let left = Handle::current().block_on(link.ask(ask::Body::Leave(Default::default())));
    assert!(matches!(left, answer::Body::Done(_)), "{left:?}");
    says("Paused");
    // A page that is opened now says the same.
    browser.open(&origin);
    assert_eq!(browser.text("#sentence"), "The run is paused.");
    until("the buttons", || is_seen(RESUME).then_some(()));
    assert!(!is_seen(PAUSE));
    pictures("paused");
    order(browser, RESUME, "Resume the run?", true);
    says("Quiet");
    assert_eq!(status()["paused_unix_ms"], json!(null));
    until("the button", || is_seen(PAUSE).then_some(()));
    assert_eq!(browser.text("#acted"), "resumed");
    // The one thing that was missing: who is signed in.
    let said: Vec<String> = browser.console().into_iter().filter(|line| !line.contains("/api/v1/session")).collect();
    assert!(said.is_empty(), "{said:?}");
}
