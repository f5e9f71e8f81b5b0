//! Writes the JavaScript between a page and its WebAssembly: `nightjar-web-glue MODULE.wasm FOLDER`.

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "nightjar-web-glue MODULE.wasm FOLDER";
    let (module, folder) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let mut bindgen = Bindgen::new();
    // A page names the module's address itself: it may lie in a version's folder.
    bindgen.input_path(module).web(true)?.omit_default_module_path(true).typescript(false);
    // Names and tools are nothing to a page.
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen.generate(folder)
}
