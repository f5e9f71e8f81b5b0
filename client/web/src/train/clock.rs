//! A page's clock, and waiting.

use js_sys::{Function, Promise};
use std::time::Duration;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(then: &Function, milliseconds: f64) -> JsValue;
}

/// Time since the page or the worker began.
pub fn now() -> Duration {
    Duration::from_secs_f64(milliseconds().max(0.0) / 1000.0)
}

/// Waits.
pub async fn sleep(duration: Duration) {
    let promise: Promise<JsValue> = Promise::new(&mut |kept: Function, _| {
        set_timeout(&kept, duration.as_secs_f64() * 1000.0);
    });
    // It is never broken.
    let _ = promise.await;
}
