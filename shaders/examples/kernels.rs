//! Times every kernel against the other way on the device at hand, beside a copy in the same run:
//! `cargo build --workspace --example kernels`, then `target/debug/examples/kernels [--kind
//! discrete|integrated|software] [--half] [--json FILE]`. With `--half`, what stands between two products is f16.
//!
//! Effective GB/s are the bytes that the operation must move at the least, each value once, by the time it takes; a
//! kernel at the copy's speed cannot be made faster. On a software adapter the figures say nothing about GPUs.

use burn::tensor::{Device, DeviceKind, FloatDType};
use burn_wgpu::wgpu;
use nightjar_shaders::{
    choice::{self, Op},
    kernel::MatrixUnits,
    table,
    tuning::{
        self, Tuning,
        trials::{TOKENS, Trial},
    },
};
use serde::Serialize;
use std::{error::Error, path::PathBuf};

#[derive(Serialize)]
struct Report {
    device: String,
    kernels: String,
    copy_gb_per_s: f64,
    operations: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    operation: &'static str,
    bytes: usize,
    ours_ms: f64,
    other_ms: f64,
    speedup: f64,
    ours_gb_per_s: f64,
    other_gb_per_s: f64,
}

/// `--json FILE`, `--kind KIND` and the type of products from the command line.
fn arguments() -> Result<(Option<PathBuf>, DeviceKind, FloatDType), Box<dyn Error>> {
    let (mut json, mut kind, mut products) = (None, DeviceKind::DiscreteGpu(0), FloatDType::F32);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--json" => json = Some(value()?.into()),
            "--half" => products = FloatDType::F16,
            "--kind" => {
                kind = match value()?.as_str() {
                    "discrete" => DeviceKind::DiscreteGpu(0),
                    "integrated" => DeviceKind::IntegratedGpu(0),
                    "software" => DeviceKind::Cpu,
                    other => return Err(format!("'{other}' is no kind; use discrete, integrated or software").into()),
                }
            }
            _ => return Err(format!("'{argument}' is unknown; use --kind KIND, --half and --json FILE").into()),
        }
    }
    Ok((json, kind, products))
}

/// The name of the first adapter of a kind, as its driver has it.
fn name(kind: &DeviceKind) -> String {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = cubecl::future::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let is_wanted = |info: &wgpu::AdapterInfo| match kind {
        DeviceKind::DiscreteGpu(_) => info.device_type == wgpu::DeviceType::DiscreteGpu,
        DeviceKind::IntegratedGpu(_) => info.device_type == wgpu::DeviceType::IntegratedGpu,
        _ => info.device_type == wgpu::DeviceType::Cpu,
    };
    let info = adapters.iter().map(|adapter| adapter.get_info()).find(is_wanted);
    info.map_or("unknown".into(), |info| {
        format!("{} ({}, {} {})", info.name, info.backend, info.driver, info.driver_info)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let (json, kind, products) = arguments()?;
    let is_software = matches!(kind, DeviceKind::Cpu);
    let effort = if is_software { Tuning::Minimal } else { Tuning::Normal };
    tuning::configure(effort, None);
    let name = name(&kind);
    let (device, setup) = Device::wgpu_options().device_kind(kind).init_with_setup()?;
    MatrixUnits::set(MatrixUnits::of(&setup.adapter));
    if !device.supports_dtype(products) {
        return Err(format!("{name} has no f16: leave --half out").into());
    }
    let copy = tuning::copy_speed(&device);
    println!("{name}, copy {:.1} GB/s", copy / 1e9);
    println!(
        "{:18} {:>9} {:>10} {:>10} {:>8} {:>10} {:>10} {:>8}",
        "operation", "MB", "ours ms", "other ms", "faster", "ours GB/s", "other", "of copy"
    );
    let mut operations = vec![];
    for op in Op::ALL.iter().filter(|op| op.has_two_ways()) {
        let mut trial = Trial::of(*op, &device, if is_software { 128 } else { TOKENS }, products);
        let timing = tuning::measure(&mut trial, &device);
        if timing.ours_ms >= tuning::NEVER_MS {
            println!("{:18} is WRONG on this device: it is never used", op.name());
        }
        // What comes after goes the way that proved faster.
        choice::set(choice::current().with(*op, timing.ours_ms < timing.other_ms));
        let speed = |ms: f64| trial.bytes as f64 / ms / 1e6;
        let row = Row {
            operation: op.name(),
            bytes: trial.bytes,
            ours_ms: timing.ours_ms,
            other_ms: timing.other_ms,
            speedup: timing.other_ms / timing.ours_ms,
            ours_gb_per_s: speed(timing.ours_ms),
            other_gb_per_s: speed(timing.other_ms),
        };
        println!(
            "{:18} {:9.1} {:10.3} {:10.3} {:7.2}x {:10.2} {:10.2} {:7.0}%",
            row.operation,
            row.bytes as f64 / 1e6,
            row.ours_ms,
            row.other_ms,
            row.speedup,
            row.ours_gb_per_s,
            row.other_gb_per_s,
            100.0 * row.ours_gb_per_s * 1e9 / copy
        );
        operations.push(row);
    }
    if let Some(file) = json {
        let report = Report { device: name, kernels: table::version(), copy_gb_per_s: copy / 1e9, operations };
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}
