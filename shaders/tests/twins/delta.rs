//! The sparse delta, against `shared::delta`.

use super::common::{draw, same_bits};
use burn::tensor::Device;
use nightjar_shaders::op::delta as op;
use nightjar_shared::{
    delta::{
        self, CodecId, magnitude,
        planes::{self, Planes},
    },
    model_spec::ModelSpec,
    run_spec::DeltaSpec,
};

/// Tensors of one value to several chunks, most of them with a short last chunk; and of the last model more chunks than
/// workgroups stand in a row.
fn models() -> [ModelSpec; 3] {
    let little = ModelSpec {
        vocab_size: 67,
        hidden_size: 62,
        intermediate_size: 83,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        ..ModelSpec::tiny()
    };
    let tiny = ModelSpec { vocab_size: 3, hidden_size: 2, intermediate_size: 1, ..little.clone() };
    [little, tiny.clone(), ModelSpec { num_hidden_layers: 120, ..tiny }]
}

/// What is asked of an encoder, ties aside: planes that this model has, whose values are as large as any left out, and
/// what is left being exactly what was not sent.
fn check_encoded(
    model: &ModelSpec,
    spec: &DeltaSpec,
    g: &[f32],
    before: &[f32],
    after: &[f32],
    planes: &Planes,
) -> Result<(), String> {
    let mut rest = &planes.kept[..];
    for chunk in model.tensors().iter().flat_map(planes::chunks) {
        let (kept, after) = rest.split_at_checked(planes::kept_of(spec.k, chunk.len())).ok_or("too few entries")?;
        let places = kept.iter().map(|entry| entry & planes::PLACE);
        if !places.clone().is_sorted_by(|a, b| a < b)
            || places.max().is_some_and(|place| usize::from(place) >= chunk.len())
        {
            return Err(format!("the places of chunk {chunk:?} do not ascend within it"));
        }
        rest = after;
    }
    let bytes = planes.to_bytes(model);
    if !delta::bytes_allowed(model, spec).contains(&(bytes.len() as u64)) {
        return Err(format!("{} bytes", bytes.len()));
    }
    if Planes::from_bytes(model, &bytes).as_ref() != Ok(planes) {
        return Err("the planes do not survive the entropy coder".into());
    }
    let feedback = spec.feedback as f32;
    let input: Vec<f32> =
        g.iter().zip(before).map(|(g, r)| if feedback == 0.0 { *g } else { feedback * *r + *g }).collect();
    let mut left = input.clone();
    delta::decode(model, &bytes, |at, values| left[at] -= values[0]).map_err(|e| e.to_string())?;
    if feedback == 0.0 {
        left.fill(0.0);
    }
    same_bits("residual", after, &left)?;
    // As many and as large as the twin's, so that none that matters is left out.
    let twin = Planes::select(model, spec, g, &mut before.to_vec());
    let (mut at, mut codes) = (0, planes.magnitudes.iter().zip(&twin.magnitudes));
    for chunk in model.tensors().iter().flat_map(planes::chunks) {
        let kept = at..at + planes::kept_of(spec.k, chunk.len());
        at = kept.end;
        let magnitudes = |planes: &Planes| {
            let place = |entry: &u16| chunk.start + usize::from(entry & planes::PLACE);
            let mut all: Vec<u32> = planes.kept[kept.clone()].iter().map(|e| input[place(e)].abs().to_bits()).collect();
            all.sort_unstable();
            all
        };
        let (ours, theirs) = codes.next().ok_or("too few magnitudes")?;
        if ours != &[0, 0] && theirs != &[0, 0] && magnitudes(planes) != magnitudes(&twin) {
            return Err(format!("chunk {chunk:?} does not send its largest values"));
        }
        // Each code is the nearest to its group's mean on the log scale, whose steps are an eighth of an octave.
        for (code, bit) in ours.iter().zip([0, planes::HIGH]) {
            let group = planes.kept[kept.clone()].iter().filter(|entry| *entry & planes::HIGH == bit);
            let group: Vec<f64> =
                group.map(|e| f64::from(input[chunk.start + usize::from(e & planes::PLACE)].abs())).collect();
            let mean = group.iter().sum::<f64>() / group.len().max(1) as f64;
            let off = 8.0 * (f64::from(magnitude::value(*code)) / mean).log2().abs();
            if ours != &[0, 0] && (1e-8..8.0).contains(&mean) && (off.is_nan() || off > 0.5 + 1e-3) {
                return Err(format!("chunk {chunk:?}: code {code} for a mean of {mean:e}"));
            }
        }
        // Which are high, where the order of the sum cannot matter: far from the mean.
        let entry =
            |planes: &Planes| planes.kept[kept.clone()].iter().map(|e| (e & planes::PLACE, *e)).collect::<Vec<_>>();
        let mean = kept.len().max(1) as f32;
        let mean = planes.kept[kept.clone()]
            .iter()
            .map(|e| input[chunk.start + usize::from(e & planes::PLACE)].abs())
            .sum::<f32>()
            / mean;
        for ((place, ours), (other, theirs)) in entry(planes).into_iter().zip(entry(&twin)) {
            let m = input[chunk.start + usize::from(place)].abs();
            if place == other && ours != theirs && (m - mean).abs() > 1e-3 * mean {
                return Err(format!("chunk {chunk:?}: entry {ours:#x} instead of {theirs:#x}"));
            }
        }
    }
    Ok(())
}

pub fn encode(device: &Device, seed: u64) -> Result<(), String> {
    for (m, model) in models().into_iter().enumerate() {
        let n = model.parameters();
        for (k, feedback) in [(64, 1.0), (1, 0.9), (300, 0.0), (4096, 0.37)] {
            let spec = DeltaSpec { codec: CodecId::Sparse2, k, feedback, ..DeltaSpec::default() };
            let normal = draw(seed, m as u64, n);
            // Chunks with sizes far apart, with many equal values, all zero, mostly zero; the first has some of each.
            let tensors = model.tensors();
            let kind = |i: usize| match tensors.iter().position(|t| t.range().contains(&i)) {
                Some(0) | None => i / 700 % 6,
                Some(tensor) => tensor % 6,
            };
            let g: Vec<f32> = (0..n)
                .map(|i| match kind(i) {
                    0 => normal[i],
                    1 => normal[i] * 1e-5,
                    2 => (normal[i] * 2.0).round() * 1e-3,
                    3 => normal[i].powi(5),
                    4 => normal[i] * f32::from(u8::from(i % 40 == 0)),
                    _ => 0.0,
                })
                .collect();
            let before: Vec<f32> = draw(seed, 7, n).iter().map(|r| r * 1e-4).collect();
            let mut after = before.clone();
            let what = |e: String| format!("k {k}, feedback {feedback}, {n} values: {e}");
            let planes = op::select_planes(&model, &spec, &g, &mut after, device)
                .ok_or_else(|| what("it did not run".into()))?;
            check_encoded(&model, &spec, &g, &before, &after, &planes).map_err(what)?;
            // Through the door that ships: the same, and what is no number goes the twin's way.
            let mut again = before.clone();
            let bytes = op::encode(&model, &spec, &g, &mut again, device);
            if bytes != planes.to_bytes(&model) {
                return Err(what("a second time it is other bytes".into()));
            }
            same_bits("residual the second time", &again, &after)?;
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut g = g.clone();
                g[seed as usize % n] = bad;
                let mut untouched = before.clone();
                if op::select_planes(&model, &spec, &g, &mut untouched, device).is_some() {
                    return Err(what(format!("{bad} is not noticed")));
                }
                same_bits("residual after a refusal", &untouched, &before)?;
            }
        }
    }
    Ok(())
}

pub const ENCODE_MUTANTS: &[(&str, &str, &str)] = &[
    ("delta_encode", "apart(shape.feedback * residual[at]) + v", "residual[at] + v"),
    ("delta_encode", "v = select(v - m, v + m, is_negative)", "v = select(v - m, v - m, is_negative)"),
    (
        "delta_encode",
        "let is_high = (bits & MAGNITUDE) >= split",
        "let is_high = (bits & MAGNITUDE) > split + 0x800000u",
    ),
    ("delta_encode", "let threshold = found;", "let threshold = found + 1u;"),
    ("delta_encode", "equals_before < ties", "equals_before + 1u < ties"),
    ("delta_encode", "u32(mantissa >= 1.3542555)", "u32(mantissa >= 1.9542555)"),
    ("delta_encode", "+ 231", "+ 234"),
    ("delta_encode", "select(0.0, v, shape.feedback != 0.0)", "v"),
    ("delta_encode", "u32((bitcast<u32>(v) & EXPONENT) == EXPONENT)", "0u"),
    ("delta_encode", "select(bitcast<u32>(mean), 1u, all.y > 0.0)", "bitcast<u32>(mean)"),
    ("delta_encode", "group.y * groups.x + group.x", "group.x"),
];
