//! Mutants: a comparison that cannot fail proves nothing, so every kernel is also run with a changed operator or
//! constant, which its check must notice. All in one child process: whatever a mutant does to the driver stays there.

use super::{
    common, layouts,
    table::{CASES, selected},
};
use burn::tensor::FloatDType;
use nightjar_shaders::{
    choice::{self, Choices, Op},
    kernel::substitute,
    table::KERNELS,
    tuning::{self, trials::Trial},
};
use std::{process::Command, sync::Arc};

#[test]
fn every_kernel_has_a_check_and_a_mutant() {
    for kernel in KERNELS {
        let case = CASES.iter().find(|case| case.kernels.contains(&kernel.name));
        let mutants = case.map_or(0, |case| case.mutants.iter().filter(|(name, ..)| *name == kernel.name).count());
        assert!(mutants > 0, "{} has no mutant in tests/twins/table.rs", kernel.name);
    }
}

#[test]
fn the_checks_catch_every_mutant() {
    let Some(device) = common::device() else { return };
    let seed = common::seed();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "mutants::child", "--nocapture"]).env("SEED", seed.to_string());
    let output = child.output().unwrap();
    let output = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    let wanted: usize = selected(&device).map(|case| case.mutants.len()).sum();
    assert!(output.contains(&format!("all {wanted} mutants are caught")), "SEED={seed}\n{output}");
}

/// What the child process runs.
#[test]
#[ignore = "started by the_checks_catch_every_mutant"]
fn child() {
    let Some(device) = common::device() else { return };
    let seed = common::seed();
    choice::set(Choices::all());
    let mut missed = vec![];
    let mut caught = 0;
    for case in selected(&device) {
        for (name, from, to) in case.mutants {
            let kernel = KERNELS.iter().find(|k| k.name == *name).unwrap_or_else(|| panic!("no kernel {name}"));
            assert_eq!(kernel.source.matches(from).count(), 1, "not once in {name}.wgsl: {from}");
            let mutant = kernel.source.replace(from, to);
            if let Err(e) = layouts::module(&mutant) {
                panic!("this mutant of {name} is no valid text: '{from}' -> '{to}': {e}");
            }
            println!("{name}: '{from}' -> '{to}'");
            substitute(kernel.name, Some(mutant.into()));
            let start = std::time::Instant::now();
            match (case.check)(&device, seed) {
                Err(e) => {
                    println!("    {e} ({:.1} s)", start.elapsed().as_secs_f64());
                    caught += 1;
                }
                Ok(()) => missed.push(format!("{name}: '{from}' -> '{to}'")),
            }
            substitute(kernel.name, None);
        }
    }
    // A device that computes a kernel wrongly is found out before the kernel is used.
    let swiglu = |source: Option<Arc<str>>, products| {
        substitute("swiglu", source);
        tuning::measure(&mut Trial::of(Op::Swiglu, &device, 4, products), &device)
    };
    let source = KERNELS.iter().find(|k| k.name == "swiglu").unwrap().source;
    for products in [FloatDType::F32, FloatDType::F16].into_iter().filter(|dtype| device.supports_dtype(*dtype)) {
        assert_eq!(swiglu(Some(source.replace(" * up);", ");").into()), products).ours_ms, tuning::NEVER_MS);
        assert!(swiglu(None, products).ours_ms < tuning::NEVER_MS);
    }
    // So is an encoder that sends the smallest values, though what it sends and what it leaves make up a whole.
    let encode = |source: Option<Arc<str>>| {
        substitute("delta_encode", source);
        tuning::measure(&mut Trial::of(Op::DeltaEncode, &device, 4, FloatDType::F32), &device).ours_ms
    };
    let source = KERNELS.iter().find(|k| k.name == "delta_encode").unwrap().source;
    let turned = source
        .replace(
            "let key = bitcast<u32>(values[j]) & MAGNITUDE;",
            "let key = MAGNITUDE - (bitcast<u32>(values[j]) & MAGNITUDE);",
        )
        .replace("bitcast<f32>(key)", "bitcast<f32>(MAGNITUDE - key)");
    assert_eq!(encode(Some(turned.into())), tuning::NEVER_MS);
    assert!(encode(None) < tuning::NEVER_MS);
    // And so is a device that computes wrongly, in whatever way its driver does: nobody trains on it.
    assert_eq!(tuning::wrong(&device), None);
    let known = [
        ("rms_norm", Op::RmsNorm, "* r * gain[i]", "* r * gain[0]"),
        ("swiglu", Op::Swiglu, " * up);", ");"),
        ("cross_entropy", Op::CrossEntropy, "- hit + wrong", "+ wrong"),
        ("adamw", Op::AdamW, "second[at] = v;", ""),
        ("grad_norm", Op::GradNorm, "v * v, SQUARE", "abs(v), SQUARE"),
    ];
    for (name, op, from, to) in known {
        let source = KERNELS.iter().find(|k| k.name == name).unwrap().source;
        substitute(name, Some(source.replace(from, to).into()));
        assert_eq!(tuning::wrong(&device), Some(op), "{name}: '{from}' -> '{to}'");
        substitute(name, None);
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
    println!("all {caught} mutants are caught");
}
