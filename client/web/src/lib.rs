//! A browser as a device: what a native client's agent and worker are, for a page. Built by `cargo xtask web`.
//!
//! Everything runs in one dedicated worker, by one event loop ([`event_loop`]). What decides is pure and is tested on
//! any machine: the session, the owner's [`consent`], the [`heat`], and how files are kept ([`disk`]). What touches the
//! browser is in [`browser`] and is built for WebAssembly alone.

#[cfg(target_family = "wasm")]
pub mod browser;
pub mod consent;
pub mod disk;
#[cfg(target_family = "wasm")]
pub mod event_loop;
pub mod heat;
#[cfg(target_family = "wasm")]
pub mod link;
pub mod membership;
#[cfg(target_family = "wasm")]
pub mod origin;
pub mod page;
#[cfg(all(feature = "probe", target_family = "wasm"))]
mod probe;
pub mod today;
pub mod train;
#[cfg(target_family = "wasm")]
pub mod transfer;
pub mod wishes;

#[cfg(target_family = "wasm")]
mod entrance {
    //! What the page's few lines of JavaScript call.

    use crate::{
        event_loop::{self, Event, Queue},
        page::Told,
    };
    use std::cell::RefCell;
    use wasm_bindgen::prelude::*;

    thread_local! {
        static QUEUE: RefCell<Option<Queue>> = const { RefCell::new(None) };
    }

    /// Runs the device until the page ends; `ready` is called once it hears what it is told.
    #[wasm_bindgen]
    pub async fn run(ready: js_sys::Function) -> Result<(), JsError> {
        let opened = |queue| {
            QUEUE.replace(Some(queue));
            // What it throws is the page's own affair.
            let _ = ready.call0(&JsValue::NULL);
        };
        event_loop::run(opened).await.map_err(|error| JsError::new(&error.to_string()))
    }

    /// Tells the device something, as JSON; what is not understood is refused.
    #[wasm_bindgen]
    pub fn tell(text: &str) -> Result<(), JsError> {
        let told: Told = serde_json::from_str(text).map_err(|error| JsError::new(&error.to_string()))?;
        QUEUE.with_borrow(|queue| queue.iter().for_each(|queue| queue.send(Event::Page(told.clone()))));
        Ok(())
    }
}
