//! What must last, in the browser's storage (OPFS). [`pool`] keeps the promises of [`Disk`]; [`opfs`] has the files
//! that it keeps them with.

mod header;
#[cfg(target_family = "wasm")]
mod opfs;
mod pool;

#[cfg(target_family = "wasm")]
pub use opfs::OpfsDisk;
