//! A browser that a test drives: Chromium without a window, through its driver, over the W3C's WebDriver protocol.

use crate::{
    process::{self, Running},
    until,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Where a screen is drawn, and how.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Width in CSS pixels.
    pub width: u32,
    /// Whether the system asks for dark pages.
    pub dark: bool,
}

/// A running browser; dropping it ends it.
pub struct Browser {
    driver: Running,
    agent: ureq::Agent,
    /// The session's address at the driver.
    session: String,
}

/// The height of a screen before it is measured, in CSS pixels.
const HEIGHT: u32 = 900;

impl Browser {
    /// Starts one that keeps its files in `folder`; `None` where none is installed.
    ///
    /// # Panics
    /// In CI (`CI` is set), if none is installed; anywhere, if one does not start.
    pub fn start(folder: &Path) -> Option<Browser> {
        let found = in_path(&["chromedriver"]).zip(in_path(&["chromium", "chromium-browser", "google-chrome"]));
        let Some((driver, browser)) = found else {
            assert!(std::env::var_os("CI").is_none(), "CI needs Chromium and its driver: `cargo xtask setup`");
            eprintln!("SKIPPED: no Chromium with a driver is installed; `cargo xtask setup` installs them");
            return None;
        };
        let log = folder.join("chromedriver.log");
        let mut command = Command::new(driver);
        // The driver makes its own folders below this one.
        command.arg("--port=0").env("TMPDIR", folder).env("HOME", folder);
        let driver = Running::start(command, &log);
        let port = until("a browser's driver", || {
            let said = driver.said();
            let (_, after) = said.split_once("started successfully on port ")?;
            after.split_once('.')?.0.parse::<u16>().ok()
        });
        let config =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).http_status_as_error(false);
        let mut started =
            Browser { driver, agent: config.build().into(), session: format!("http://127.0.0.1:{port}/session") };
        let arguments = [
            "--headless=new",
            // For root in a container. It shows one page, which is ours.
            "--no-sandbox",
            "--disable-gpu",
            // Pages compute all the same, on the processor.
            "--enable-unsafe-webgpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--hide-scrollbars",
            // Nothing but this computer can be found, whatever asks.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ];
        let answer = started.post(
            "",
            &json!({ "capabilities": { "alwaysMatch": {
                "browserName": "chrome",
                "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
                "goog:chromeOptions": { "binary": browser, "args": arguments },
            }}}),
        );
        let id = answer["sessionId"].as_str().expect("a session has a name").to_owned();
        started.session = format!("{}/{id}", started.session);
        Some(started)
    }

    /// Goes to an address, and waits until it is loaded.
    pub fn open(&self, address: &str) {
        self.post("/url", &json!({ "url": address }));
    }

    /// Opens another window, which counts as seen beside the first, and goes there; gives back its name for
    /// [`Browser::turn_to`].
    pub fn open_window(&self) -> String {
        let window = self.post("/window/new", &json!({ "type": "window" }));
        let name = window["handle"].as_str().expect("a window has a name").to_owned();
        self.turn_to(&name);
        name
    }

    /// Goes to a window.
    pub fn turn_to(&self, window: &str) {
        self.post("/window", &json!({ "handle": window }));
    }

    /// The name of the window at hand.
    pub fn window(&self) -> String {
        self.ask("/window").as_str().expect("a window has a name").to_owned()
    }

    /// What a script returns; `arguments` are `arguments[0]` and so on in it.
    pub fn script(&self, script: &str, arguments: &[Value]) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// The text of the element that a selector finds; empty where it finds none.
    pub fn text(&self, selector: &str) -> String {
        let found = self.script("return document.querySelector(arguments[0])?.textContent ?? ''", &[selector.into()]);
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks the element that a selector finds, as a mouse does: one that is hidden or covered is a mistake.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Writes into a field in place of what stands there, and leaves it.
    pub fn write(&self, selector: &str, text: &str) {
        const SELECT_ALL: &str = "\u{e009}a\u{e000}";
        const TAB: &str = "\u{e004}";
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), &json!({ "text": format!("{SELECT_ALL}{text}{TAB}") }));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no {selector}: {found}")).to_owned()
    }

    /// Presses keys, as they are named in WebDriver's code points.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }));
    }

    /// Sets the screen's width and the system's theme. Nothing moves by itself.
    pub fn view(&self, view: View, height: u32) {
        let scheme = if view.dark { "dark" } else { "light" };
        let narrow = view.width < 600;
        let metrics = json!({ "width": view.width, "height": height, "deviceScaleFactor": 1, "mobile": narrow });
        self.tool("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.tool("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Draws the whole page into a PNG file.
    pub fn screenshot(&self, view: View, file: &Path) {
        self.view(view, HEIGHT);
        let height = self.script("return document.documentElement.scrollHeight", &[]).as_u64().unwrap_or(HEIGHT.into());
        self.view(view, height as u32);
        self.capture(file);
        self.view(view, HEIGHT);
    }

    /// Draws what is on the screen into a PNG file.
    pub fn capture(&self, file: &Path) {
        // Two frames: the picture of the day is drawn anew for the width.
        self.script_async(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(true)))",
        );
        let drawn = self.tool("Page.captureScreenshot", &json!({ "format": "png" }));
        let png = from_base64(drawn["data"].as_str().expect("a picture is text"));
        std::fs::write(file, png).expect("a picture can be written");
    }

    fn script_async(&self, script: &str) -> Value {
        self.post("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// A command of the browser's own tools.
    pub fn tool(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What was written on the console since the last call: errors, refused requests, broken policies.
    pub fn console(&self) -> Vec<String> {
        self.log("browser").iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The addresses that were asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        let address = |entry: &Value| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let event = &event["message"];
            let is_request = event["method"] == "Network.requestWillBeSent";
            is_request.then(|| event["params"]["request"]["url"].as_str().map(str::to_owned))?
        };
        self.log("performance").iter().filter_map(address).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.post("/se/log", &json!({ "type": kind })).as_array().cloned().unwrap_or_default()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let address = format!("{}{path}", self.session);
        let answer =
            self.agent.post(&address).send_json(body).unwrap_or_else(|e| panic!("the driver at {address}: {e}"));
        value_of(path, answer)
    }

    fn ask(&self, path: &str) -> Value {
        let address = format!("{}{path}", self.session);
        let answer = self.agent.get(&address).call().unwrap_or_else(|e| panic!("the driver at {address}: {e}"));
        value_of(path, answer)
    }
}

fn value_of(path: &str, mut answer: ureq::http::Response<ureq::Body>) -> Value {
    let body: Value = answer.body_mut().with_config().limit(64 << 20).read_json().expect("a driver answers in JSON");
    let value = &body["value"];
    assert!(value["error"].is_null(), "{path}: {}: {}", value["error"], value["message"]);
    value.clone()
}

impl Drop for Browser {
    fn drop(&mut self) {
        let left = process::descendants(self.driver.id());
        // In order first; then whatever is left of it.
        let _ = self.agent.delete(&self.session).call();
        self.driver.kill();
        for id in left.into_iter().filter(|id| process::is_alive(*id)) {
            let pid = rustix::process::Pid::from_raw(id as i32).expect("a process has a number");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn in_path(names: &[&str]) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&paths).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of bytes in base 64 (RFC 4648).
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let gathered = three.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digit = |i: usize| DIGITS[(gathered >> (18 - 6 * i)) as usize & 63] as char;
        text.extend((0..4).map(|i| if i <= three.len() { digit(i) } else { '=' }));
    }
    text
}

/// Bytes from their text in base 64.
pub fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut gathered, mut bits) = (0u32, 0);
    for digit in text.bytes().take_while(|byte| *byte != b'=') {
        let value = DIGITS.iter().position(|d| *d == digit).expect("a digit of base 64");
        gathered = gathered << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((gathered >> bits) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_read_as_the_standard_shows_it() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(from_base64(text), bytes.as_bytes());
            assert_eq!(to_base64(bytes.as_bytes()), text);
        }
    }
}
