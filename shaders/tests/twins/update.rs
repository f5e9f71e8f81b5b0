//! A published update, against `shared::version`.

use super::common::{draw, read, same_bits, upload};
use burn::tensor::Device;
use nightjar_shaders::op;
use nightjar_shared::{
    delta::CodecId,
    ids::Version,
    model_spec::ModelSpec,
    version::{VersionError, Weights, update},
};

/// Tensors of several blocks; and more blocks than workgroups stand in a row.
fn models() -> [ModelSpec; 2] {
    let little = ModelSpec {
        vocab_size: 37,
        hidden_size: 30,
        intermediate_size: 43,
        num_hidden_layers: 1,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        ..ModelSpec::tiny()
    };
    let deep = ModelSpec { vocab_size: 3, hidden_size: 6, intermediate_size: 2, num_hidden_layers: 160, ..little.clone() };
    [little, deep]
}

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    models().iter().try_for_each(|model| check_model(device, seed, model))
}

fn check_model(device: &Device, seed: u64, model: &ModelSpec) -> Result<(), String> {
    let n = model.parameters();
    let mut drawn = draw(seed, 1, n);
    // Tensors with other steps.
    drawn[..500].iter_mut().for_each(|w| *w *= 40.0);
    let start = Weights::start(model, &drawn);
    let steps: Vec<i32> = start.tensors.iter().map(|t| t.step_exponent).collect();
    for codec in [CodecId::Blocks8, CodecId::Blocks4, CodecId::Blocks2] {
        // Changes dense and sparse, one-sided, small and large, and some blocks without any, over three versions.
        let mut feedback: Vec<f32> = draw(seed, 2, n);
        for (b, block) in feedback.chunks_mut(256).enumerate() {
            match b % 5 {
                0 => block.iter_mut().for_each(|v| *v *= 1e-4),
                1 => block.fill(0.0),
                2 => block.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 9 == 0 { v.abs() } else { 0.0 }),
                3 => block.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 9 == 0 { -v.abs() } else { 0.0 }),
                _ => {}
            }
        }
        let mut weights = start.clone();
        let mut on_device = upload(&start.flat(), [n], device);
        for _ in 0..3 {
            let version = weights.version;
            let bytes = update::publish(model, codec, &mut weights, &mut feedback);
            let on_host = upload(&read(on_device.clone())?, [n], &Device::flex());
            let apply = |tensor, version| op::update::update_apply(tensor, model, &steps, version, &bytes);
            let failed = |e: VersionError| format!("{codec:?}: {e}");
            if apply(on_device.clone(), Version(version.0 + 1)).is_ok() {
                return Err(format!("{codec:?}: an update of another version is taken"));
            }
            on_device = apply(on_device, version).map_err(failed)?;
            same_bits(&format!("{codec:?} to {}", weights.version), &read(on_device.clone())?, &weights.flat())?;
            same_bits("on the host", &read(apply(on_host, version).map_err(failed)?)?, &weights.flat())?;
        }
        refusals(device, model, &start, &steps, codec)?;
    }
    Ok(())
}

/// Bytes that the twin refuses are refused, and so is a value that leaves its range.
fn refusals(device: &Device, model: &ModelSpec, start: &Weights, steps: &[i32], codec: CodecId) -> Result<(), String> {
    let n = model.parameters();
    let mut feedback = vec![0.1; n];
    let mut weights = start.clone();
    let bytes = update::publish(model, codec, &mut weights, &mut feedback);
    let twin = |bytes: &[u8], from: &Weights| update::apply(model, &mut from.clone(), bytes).err();
    let ours = |bytes: &[u8], from: &Weights| {
        op::update::update_apply(upload(&from.flat(), [n], device), model, steps, from.version, bytes).err()
    };
    let last = bytes.len() - 1;
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        bytes
    };
    let damaged = [
        bytes[..last].to_vec(),
        [&bytes[..], &[0]].concat(),
        changed(0, 0),
        changed(4, 9),
        changed(6, 1),
        changed(32, 0x3f),
        vec![],
    ];
    for bytes in damaged {
        let (want, got) = (twin(&bytes, start), ours(&bytes, start));
        if want.is_none() || want != got {
            return Err(format!("{codec:?}: refused as {got:?} instead of {want:?}"));
        }
    }
    // As far out as weights can be, and then the change.
    let mut far = start.clone();
    far.tensors.iter_mut().for_each(|t| t.integers.fill((1 << 24) - 1));
    let (want, got) = (twin(&bytes, &far), ours(&bytes, &far));
    if want != Some(VersionError::OutOfRange) || got != want {
        return Err(format!("{codec:?}: a weight out of range: {got:?} instead of {want:?}"));
    }
    // Weights that are no numbers, which no twin can hold.
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for device in [device, &Device::flex()] {
            let mut sick = start.flat();
            sick[300] = bad;
            let got = op::update::update_apply(upload(&sick, [n], device), model, steps, start.version, &bytes).err();
            if got != Some(VersionError::OutOfRange) {
                return Err(format!("{codec:?}: a weight of {bad} is taken: {got:?}"));
            }
        }
    }
    Ok(())
}

pub const MUTANTS: &[(&str, &str, &str)] = &[
    ("update_apply", "lane / block.bytes * shape.bits", "lane / block.bytes"),
    ("update_apply", "2 * i32(code) - 3", "2 * i32(code) - 2"),
    ("update_apply", "1 - i32(code)", "i32(code) - 1"),
    ("update_apply", "i32(code << unused) >> unused", "i32(code)"),
    ("update_apply", "& 0x1fu) - 1u", "& 0x1fu)"),
    ("update_apply", "* block.step;\n    weights", ";\n    weights"),
    ("update_apply", "(16777216.0", "(33554432.0"),
    (
        "update_apply",
        "(bitcast<u32>(w) & 0x7fffffffu) >= bitcast<u32>(16777216.0 * block.step)",
        "abs(w) >= 16777216.0 * block.step",
    ),
    ("update_apply", "at % 4u * 8u", "at % 2u * 8u"),
    ("update_apply", "group.y * groups.x + group.x", "group.x"),
];
