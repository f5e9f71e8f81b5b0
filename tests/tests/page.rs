//! The volunteer's page in a real browser: with a real coordinator and a real agent it joins, trains, pauses and
//! changes its mind; and in every state it is looked at in both themes, wide and narrow. Pictures stay in
//! `page-screenshots` below the target folder's `tmp`.

#[path = "page/canned.rs"]
mod canned;

use canned::{CannedAgent, sayings};
use nightjar_tests::{Browser, Place, Running, Size, View, process::run, until};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const VIEWS: [View; 4] = [
    View { width: 1100, dark: false },
    View { width: 1100, dark: true },
    View { width: 360, dark: false },
    View { width: 360, dark: true },
];
const WIDE: View = VIEWS[0];

fn picture(name: &str, view: View) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page-screenshots");
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{name}-{}-{}.png", view.width, if view.dark { "dark" } else { "light" }))
}

/// Nothing is wrong with what is shown: contrast, structure, names for screen readers, console, and who was asked.
fn assert_sound(browser: &Browser, what: &str, view: View, origin: &str) {
    let wrong = browser.script(include_str!("page/checks.js"), &[json!(view.width)]);
    let what = format!("{what}, {view:?}");
    assert_eq!(wrong, json!([]), "{what}");
    let tree = browser.tool("Accessibility.getFullAXTree", &json!({}));
    let controls = [
        "button",
        "checkbox",
        "switch",
        "textbox",
        "spinbutton",
        "combobox",
        "radio",
        "radiogroup",
        "image",
        "link",
        "figure",
    ];
    let nodes = tree["nodes"].as_array().unwrap();
    let nameless: Vec<&Value> = nodes
        .iter()
        .filter(|node| node["ignored"] == false && controls.contains(&node["role"]["value"].as_str().unwrap_or("")))
        .filter(|node| node["name"]["value"].as_str().unwrap_or("").trim().is_empty())
        .collect();
    assert!(nameless.is_empty(), "{what}: without a name for screen readers: {nameless:#?}");
    let outside: Vec<String> =
        browser.requests().into_iter().filter(|asked| !asked.starts_with(origin) && asked != "data:,").collect();
    assert!(outside.is_empty(), "{what}: asked outside of the agent: {outside:?}");
}

#[test]
fn every_state_reads_well_in_both_themes_wide_and_narrow() {
    let place = Place::empty();
    let Some(browser) = Browser::start(&place.path("")) else { return };
    // The pictures are the same at any hour.
    let clock = format!(
        "{{ const Real = Date, now = Real.parse('{}'); globalThis.Date = class extends Real {{ \
         constructor(...a) {{ a.length ? super(...a) : super(now); }} static now() {{ return now; }} }}; }}",
        sayings()["now"].as_str().unwrap()
    );
    browser.tool("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": clock }));
    browser.tool("Emulation.setTimezoneOverride", &json!({ "timezoneId": "UTC" }));
    browser.tool("Emulation.setLocaleOverride", &json!({ "locale": "en-GB" }));
    let agent = CannedAgent::start();
    let origin = format!("http://{}/", agent.address);
    let states = [
        ("running", "Training", "Training: nobody has used this computer for 23 minutes."),
        ("held", "Holding", "Somebody used this computer 2 minutes ago"),
        ("paused", "Paused", "You have paused it."),
        ("trouble", "Holding", "Nobody can tell whether the network is metered"),
        ("stranger", "Not part of a run", "This computer has not joined a run yet."),
        ("joined", "Ready", "It may train; connecting."),
        ("offline", "Offline", "The coordinator cannot be reached."),
        ("stranger-answers", "Needs you", "Somebody else answers in the coordinator's place."),
        ("over", "Needs you", "The run is over: its token budget is used up."),
        ("broken", "Needs you", "The worker failed: signal: 11"),
    ];
    for (state, word, sentence) in states {
        browser.open("about:blank");
        browser.open(&agent.link(state));
        until(state, || {
            (browser.text("#state") == word && !browser.text("#preferences .pref").is_empty()).then_some(())
        });
        assert!(browser.text("#sentence").starts_with(sentence), "{state}: {}", browser.text("#sentence"));
        for view in VIEWS {
            browser.screenshot(view, &picture(state, view));
            assert_sound(&browser, state, view, &origin);
        }
        if state == "running" && std::env::var_os("NIGHTJAR_WRITE_DOCS").is_some() {
            browser.view(WIDE, 640);
            browser.capture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/volunteer.png"));
        }
        // The stream that it does not have is the one thing that may fail.
        let said: Vec<String> = browser.console().into_iter().filter(|line| !line.contains("/events")).collect();
        assert!(said.is_empty(), "{state}: {said:?}");
    }

    // What the sentence asks for has a button; what the coordinator has not told yet is not said to be nothing.
    let offered = |state: &str| {
        browser.open("about:blank");
        browser.open(&agent.link(state));
        until(state, || (!browser.text("#preferences .pref").is_empty()).then_some(()));
        browser.text("#offers")
    };
    assert_eq!(offered("offline"), "Try again now");
    assert_eq!(offered("stranger-answers"), "Try again nowLeave the run");
    assert_eq!(offered("running"), "");
    assert!(offered("joined").is_empty() && !browser.text("#project-body").contains("written nothing"));
    assert_eq!(offered("trouble"), "Open this preference");
    browser.click("#offers button");
    let focused = browser.script("return document.activeElement.closest('.pref')?.dataset.key ?? ''", &[]);
    assert_eq!(focused, json!("waive"));

    // Each part of the day is reached by keyboard and tells its reason.
    browser.open("about:blank");
    browser.open(&agent.link("held"));
    until("the picture of the day", || {
        browser
            .script("return document.querySelectorAll('#picture .span').length > 3", &[])
            .as_bool()
            .filter(|there| *there)
    });
    assert_eq!(
        browser.text("#caption"),
        "Trained for 7\u{202f}h 56\u{202f}min, ready for 48\u{202f}min, held for 9\u{202f}h 15\u{202f}min so far."
    );
    browser.script("document.querySelector('#picture [tabindex=\"0\"]').focus()", &[]);
    const LEFT: &str = "\u{e012}";
    browser.press(LEFT);
    assert_eq!(browser.text("#caption"), "15:46 to 17:46, 2\u{202f}h. Held: you have paused it.");
    assert_eq!(
        browser.script("return document.activeElement.getAttribute('aria-label')", &[]),
        json!(browser.text("#caption"))
    );
    let rows = browser.script("return document.querySelectorAll('#day-table tbody tr').length", &[]);
    assert_eq!(rows, json!(14), "the table says what the picture shows");
    browser.screenshot(WIDE, &picture("reason", WIDE));

    // The agent goes: the page says so, and what it shows is marked as old.
    drop(agent);
    until("word that the agent is gone", || (browser.text("#state") == "No answer").then_some(()));
    assert!(
        browser.text("#next").starts_with("Last heard at 18:24; what you see below is from then."),
        "{}",
        browser.text("#next")
    );
    for view in VIEWS {
        browser.screenshot(view, &picture("gone", view));
        assert_sound(&browser, "gone", view, &origin);
    }

    // Without a key it says how to get one, and asks nothing.
    let agent = CannedAgent::start();
    browser.open(&format!("http://{}/", agent.address));
    until("word that the page is locked", || (browser.text("#state") == "Locked").then_some(()));
    browser.screenshot(WIDE, &picture("locked", WIDE));
}

/// The address that `nightjar open` starts a browser with.
fn opened(place: &Place, name: &str) -> String {
    let (tools, address) = (place.path("tools"), place.path("address"));
    fs::create_dir_all(&tools).unwrap();
    let opener = tools.join("xdg-open");
    fs::write(&opener, format!("#!/bin/sh\nprintf %s \"$1\" > {}\n", address.display())).unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    until("an agent whose page can be opened", || {
        let mut open = place.device(name, &["open"]);
        open.env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()));
        run(open).status.success().then(|| fs::read_to_string(&address).unwrap())
    })
}

#[test]
fn a_volunteer_joins_trains_pauses_and_changes_a_preference() {
    let place = Place::new(Size { text_bytes: 200_000, token_budget: 1_000_000_000 });
    let Some(browser) = Browser::start(&place.path("")) else { return };
    let _coordinator = place.start_coordinator();
    // Nothing of this computer's desktop is seen, so that it holds at first for what it cannot tell.
    let mut command = place.device("dusk", &["run", "--device", "flex", "--away-threads", "1"]);
    command
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    let agent = Running::start(command, &place.path("dusk.log"));
    let link = opened(&place, "dusk");
    let control: Value = serde_json::from_str(&fs::read_to_string(place.path("dusk/control.json")).unwrap()).unwrap();
    assert!(!link.contains(control["token"].as_str().unwrap()), "every user can read what a browser is started with");
    let origin = link.split('#').next().unwrap().to_owned();
    browser.view(WIDE, 900);
    browser.open(&link);
    let log = place.path("dusk.log");
    let state = |word: &str| {
        until(&format!("{word}; see {}", log.display()), || (browser.text("#state") == word).then_some(()))
    };

    // The volunteer has an invite and nothing else.
    state("Not part of a run");
    let reason = "This computer has not joined a run yet.";
    until(reason, || (browser.text("#sentence") == reason).then_some(()));
    let invite = place.invite("volunteer");
    let refused = |pasted: &str, words: &str| {
        browser.write("#invite", pasted);
        browser.click("#join-button");
        until(words, || browser.text("#join-error").contains(words).then_some(()));
    };
    refused("", "Paste the invite first");
    refused(&invite[..invite.len() - 9], "The invite is damaged or incomplete");
    for view in [WIDE, VIEWS[3]] {
        browser.screenshot(view, &picture("real-refused", view));
        assert_sound(&browser, "an invite that is refused", view, &origin);
    }
    browser.view(WIDE, 900);
    browser.write("#device-name", "dusk");
    browser.write("#invite", &invite);
    browser.click("#join-button");
    until("word that it has joined", || (browser.text("#acted") == "Joined “test”.").then_some(()));
    state("Holding");
    assert_eq!(browser.text("#whose"), "on dusk");
    assert_eq!(browser.script("return document.querySelector('#join').hidden", &[]), json!(true));
    assert_eq!(browser.script("return location.hash", &[]), json!(""), "the token stays in no address bar");
    until("the preferences", || (!browser.text("[data-key=policy] .label").is_empty()).then_some(()));
    browser.screenshot(WIDE, &picture("real-holding", WIDE));

    // The owner's word counts at once: this computer is the run's.
    browser.click("[data-key=policy] label[for=pref-policy-1]");
    until("a confirmation", || (browser.text("[data-key=policy] .said") == "Saved").then_some(()));
    state("Training");
    until("figures that grow", || {
        let tokens = browser.text("#figures-body tbody tr:first-child td");
        (tokens != "0" && tokens != "–" && !tokens.is_empty()).then_some(())
    });
    let project = browser.text("#project-body");
    for words in ["test", "Run by", "the people of the test", "test@run.example"] {
        assert!(project.contains(words), "{project}");
    }
    for view in [WIDE, VIEWS[3]] {
        browser.screenshot(view, &picture("real-training", view));
        assert_sound(&browser, "training for real", view, &origin);
    }
    browser.view(WIDE, 900);

    // More windows than a browser has connections to one place: in each the page loads and hears the news, and its
    // buttons work.
    let first = browser.window();
    let others: Vec<String> = (0..8)
        .map(|_| {
            let window = browser.open_window();
            browser.open(&opened(&place, "dusk"));
            until("the page in another window", || (browser.text("#state") == "Training").then_some(()));
            window
        })
        .collect();
    browser.click("#pause-other");
    browser.write("#pause-words", "soon");
    browser.click("#pause-form button");
    until("word that this is no time", || browser.text("#acted").contains("is no length of time").then_some(()));
    browser.write("#pause-words", "2 Hours");
    browser.click("#pause-form button");
    state("Paused");
    browser.turn_to(&others[0]);
    state("Paused");
    browser.click("#resume");
    browser.turn_to(&first);
    state("Training");

    browser.click("[data-pause=hour]");
    state("Paused");
    assert!(run(place.device("dusk", &["why"])).good().stdout.contains("pause"), "the command line knows it too");
    browser.screenshot(WIDE, &picture("real-paused", WIDE));
    browser.click("#resume");
    state("Training");

    // Yesterday it was not here; and the log tells what it did since.
    browser.click("#day-back");
    until("yesterday", || (browser.text("#caption") == "Nightjar did not run on this day.").then_some(()));
    browser.click("#day-on");
    until("today", || browser.text("#caption").starts_with("Trained for").then_some(()));
    browser.click("#log summary");
    until("the log", || browser.text("#log-lines").contains("steps, loss").then_some(()));

    // A preference that forbids: the reason changes to it, and only to it.
    browser.write("#pref-memory_mib_min", "1048576");
    until("a confirmation", || (browser.text("[data-key=memory_mib_min] .said") == "Saved").then_some(()));
    state("Holding");
    until("the reason", || browser.text("#sentence").to_lowercase().contains("memory").then_some(()));
    let file = fs::read_to_string(place.path("dusk/prefs.toml")).unwrap();
    assert!(file.contains("memory_mib_min = 1048576"), "{file}");
    browser.screenshot(WIDE, &picture("real-reason", WIDE));

    // One that is not allowed: a line beside the field says what is, and nothing changes.
    browser.write("#pref-checkpoint_s", "0");
    let error = until("an error beside the field", || {
        Some(browser.text("[data-key=checkpoint_s] .error")).filter(|e| !e.is_empty())
    });
    assert!(error.contains("a whole number from 1 to 60"), "{error}");
    assert_eq!(
        browser.script("return document.querySelector('#pref-checkpoint_s').getAttribute('aria-invalid')", &[]),
        json!("true")
    );
    assert_eq!(fs::read_to_string(place.path("dusk/prefs.toml")).unwrap(), file);

    browser.click("[data-key=memory_mib_min] .reset");
    state("Training");
    assert_sound(&browser, "after all that", WIDE, &origin);
    // A refusal is an answer of 400, which browsers write on the console too.
    let is_refusal = |line: &String| ["/preferences", "/join", "/pause"].iter().any(|path| line.contains(path));
    let said: Vec<String> = browser.console().into_iter().filter(|line| !is_refusal(line)).collect();
    assert!(said.is_empty(), "{said:?}");
    assert!(agent.stop().status.success());
    state("No answer");
}
