//! Every kernel in the table: its text is valid WGSL whose layout is what Rust takes it for, all compilers take it, it
//! computes what its twin and Burn's own operations do, and that comparison can tell it from mutants of it.

mod adamw;
mod attention;
mod common;
mod compilers;
mod cross_entropy;
mod delta;
mod layouts;
mod mutants;
mod nodes;
mod plain;
mod product;
mod rms_norm;
mod rope;
mod swiglu;
mod table;

use nightjar_shaders::choice::{self, Choices};

#[test]
fn kernels_and_twins_agree() {
    let Some(device) = common::device() else { return };
    let _choosing = common::choosing();
    let seed = common::seed();
    choice::set(Choices::all());
    let mut wrong = vec![];
    for case in table::selected(&device) {
        let start = std::time::Instant::now();
        if let Err(e) = (case.check)(&device, seed) {
            wrong.push(format!("{:?}: {e}", case.kernels));
        }
        println!("{:?}: {:.1} s", case.kernels, start.elapsed().as_secs_f64());
    }
    assert!(wrong.is_empty(), "SEED={seed}\n{}", wrong.join("\n"));
}
