//! What a worker has of its browser: time, sleep, and words for what it refuses.

pub mod clock;
pub mod key;
pub mod transport;

use js_sys::{Error, Promise};
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::DedicatedWorkerGlobalScope;

/// The worker that this runs in.
pub fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// What a browser refuses: the kind of error, and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As browsers call it: "QuotaExceededError".
    pub name: String,
    /// What it says.
    pub words: String,
}

impl Refused {
    /// Of whatever was thrown.
    pub fn of(thrown: &JsValue) -> Self {
        match thrown.dyn_ref::<Error>() {
            Some(error) => Refused { name: error.name().into(), words: error.message().into() },
            None => Refused { name: String::new(), words: format!("{thrown:?}") },
        }
    }
}

/// What was thrown, in words.
pub fn words(thrown: &JsValue) -> String {
    let Refused { name, words } = Refused::of(thrown);
    if words.is_empty() { name } else { words }
}

/// Waits. A browser may make it longer, a hidden page much longer.
pub async fn sleep(time: Duration) {
    let ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    let waited = Promise::new(&mut |done, _| {
        // Without timers there is no waiting; then nothing ever comes.
        let _ = scope().set_timeout_with_callback_and_timeout_and_arguments_0(&done, ms);
    });
    let _ = JsFuture::from(waited).await; // a timer is never refused
}

/// Tells the page. One that is gone hears nothing.
pub fn post(text: &str) {
    let _ = scope().post_message(&text.into());
}
