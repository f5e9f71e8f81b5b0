//! What the place that the page came from knows: the coordinator's statement of its certificates, in a file beside the
//! page. It is believed as far as the coordinator's key has signed it, so it does not matter who serves it.

use crate::browser;
use js_sys::Uint8Array;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{RequestCache, RequestInit, Response};

/// The file.
const FILE: &str = "certificates";
/// Longest that is looked at, in bytes.
const BYTES_MAX: usize = 16 << 10;

/// The statement; `None` where there is none.
pub async fn certificates() -> Option<Vec<u8>> {
    let request = RequestInit::new();
    request.set_cache(RequestCache::NoStore);
    let fetched = JsFuture::from(browser::scope().fetch_with_str_and_init(FILE, &request)).await.ok()?;
    let response: Response = fetched.unchecked_into();
    let body = JsFuture::from(response.ok().then(|| response.array_buffer().ok())??).await.ok()?;
    let bytes = Uint8Array::new(&body);
    (bytes.length() as usize <= BYTES_MAX).then(|| bytes.to_vec())
}
