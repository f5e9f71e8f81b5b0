//! The head's projection and the loss, a chunk of tokens at a time, and the kernel that works on a chunk's logits.

use super::common::{close, draw, read, recording, same_bits, upload, upload_half};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::log_softmax};
use nightjar_shaders::{
    choice::{self, Choices},
    cpu, op,
};

fn targets(seed: u64, n: usize, vocabulary: usize) -> Vec<u32> {
    (0..n).map(|i| nightjar_shared::rng::below(seed, 9, i as u64, vocabulary as u64) as u32).collect()
}

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    for (n, vocabulary) in [(1, 1), (3, 2), (5, 255), (2, 256), (3, 257), (7, 1031), (66_000, 3)] {
        let (mut x, targets) = (draw(seed, 1, n * vocabulary), targets(seed, n, vocabulary));
        // Large numbers, so that a sum without its maximum overflows, and a maximum that rises on the way.
        x.iter_mut().enumerate().for_each(|(i, x)| *x = 20.0 * *x + 100.0 * (i / vocabulary % 3) as f32);
        let (mut want_back, mut want) = (x.clone(), vec![0.0; n]);
        cpu::cross_entropy::forward(&mut want_back, &targets, Some(3.0), &mut want);
        let logits = upload(&x, [n, vocabulary], device);
        let (nats, gradient) = op::cross_entropy(logits.clone(), &targets, Some(3.0));
        close(&format!("nats {n}x{vocabulary}"), nats, &want, 2e-5)?;
        close(&format!("gradient {n}x{vocabulary}"), gradient.ok_or("no gradient")?, &want_back, 2e-5)?;
        same_bits("what was replaced, held by another", &read(logits.clone())?, &x)?;
        if let Some((half, mut want_back)) = upload_half(&x, [n, vocabulary], device) {
            let mut want = vec![0.0; n];
            cpu::cross_entropy::forward(&mut want_back, &targets, Some(3.0), &mut want);
            let (nats, gradient) = op::cross_entropy(half, &targets, Some(3.0));
            close(&format!("nats of f16 {n}x{vocabulary}"), nats, &want, 2e-5)?;
            let gradient = gradient.filter(|g| g.dtype() == DType::F16).ok_or("no gradient in f16")?;
            close(&format!("gradient of f16 {n}x{vocabulary}"), gradient, &want_back, 1e-3)?;
        }
        let (nats, gradient) = op::cross_entropy(logits, &targets, None);
        close(&format!("nats alone {n}x{vocabulary}"), nats, &want, 2e-5)?;
        if gradient.is_some() {
            return Err("a gradient that nobody asked for".into());
        }
    }
    sick_rows_stay_apart(device, seed)
}

fn sick_rows_stay_apart(device: &Device, seed: u64) -> Result<(), String> {
    let (n, vocabulary) = (6, 300);
    let (x, targets) = (draw(seed, 1, n * vocabulary), vec![7; n]);
    let run = |x: &[f32]| {
        let (nats, gradient) = op::cross_entropy(upload(x, [n, vocabulary], device), &targets, Some(1.0));
        Ok::<_, String>((read(nats)?, read(gradient.ok_or("no gradient")?)?))
    };
    let (clean, clean_back) = run(&x)?;
    let mut sick = x.clone();
    (sick[vocabulary + 299], sick[2 * vocabulary + 1], sick[4 * vocabulary + 2]) =
        (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let (mut nats, mut back) = run(&sick)?;
    if !nats[1].is_nan() || !nats[2].is_nan() || !nats[4].is_finite() {
        return Err(format!("NaN, infinity and -infinity give {}, {} and {}", nats[1], nats[2], nats[4]));
    }
    if back[vocabulary..3 * vocabulary].iter().any(|x| x.is_finite())
        || back[4 * vocabulary..][..300].iter().any(|x| !x.is_finite())
    {
        return Err("gradients of NaN and infinity must not be finite, of -infinity must be".into());
    }
    let (none, nowhere) = op::cross_entropy(upload(&[], [0, 300], device), &[], Some(1.0));
    if (none.dims(), nowhere.map(|g| g.dims())) != ([0], Some([0, 300])) {
        return Err("nothing does not stay nothing".into());
    }
    for row in [1, 2, 4] {
        nats[row] = clean[row];
        back[row * vocabulary..][..vocabulary].copy_from_slice(&clean_back[row * vocabulary..][..vocabulary]);
    }
    same_bits("losses beside sick rows", &nats, &clean)?;
    same_bits("gradients beside sick rows", &back, &clean_back)
}

/// The whole operation against Burn's logits, log-softmax and automatic gradients; in chunks of so many tokens, or of
/// as many as it takes by itself.
fn with_head(
    device: &Device,
    [n, width, vocabulary]: [usize; 3],
    chunk: Option<usize>,
    seed: u64,
) -> Result<(), String> {
    let (h, head, targets) =
        (draw(seed, 3, n * width), draw(seed, 4, vocabulary * width), targets(seed, n, vocabulary));
    let scale = 1.0 / n as f32;
    let recording = recording();
    let on_h = upload(&h, [n, width], &recording).require_grad();
    let on_head = upload(&head, [vocabulary, width], &recording).require_grad();
    let index = TensorData::new(targets.iter().map(|t| *t as i32).collect(), [n, 1]);
    let log_p = log_softmax(on_h.clone().matmul(on_head.clone().transpose()), 1);
    let nats = log_p.gather(1, Tensor::<2, Int>::from_data(index, &recording)).neg();
    let want = read(nats.clone())?;
    let gradients = nats.sum().mul_scalar(scale).backward();
    let want_dh = read(on_h.grad(&gradients).ok_or("no gradient")?)?;
    let want_dhead = read(on_head.grad(&gradients).ok_or("no gradient")?)?;

    let (h, head) = (upload(&h, [n, width], device), upload(&head, [vocabulary, width], device));
    let run = |scale| match chunk {
        Some(chunk) => op::linear_cross_entropy_in_chunks(&h, &head, &targets, scale, chunk),
        None => op::linear_cross_entropy(&h, &head, &targets, scale),
    };
    let (nats, got) = run(Some(scale));
    let [dh, dhead] = got.ok_or("no gradient")?;
    let what = format!("{n} tokens of {width} against {vocabulary}");
    close(&format!("{what}: nats"), nats, &want, 2e-5)?;
    // The one is summed over the vocabulary: each order of adding has errors of its own.
    let of_sums = 1e-4 * (vocabulary as f32 / 1e4).sqrt().max(1.0);
    for (name, got, want, tolerance) in [("dh", dh, want_dh, of_sums), ("dhead", dhead, want_dhead, 1e-4)] {
        let want: Vec<f32> = want.iter().map(|x| x * n as f32).collect();
        close(&format!("{what}: {name}"), got.mul_scalar(n as f32), &want, tolerance)?;
    }
    let (nats, none) = run(None);
    close(&format!("{what}: nats alone"), nats, &want, 2e-5)?;
    if none.is_some() { Err("gradients that nobody asked for".into()) } else { Ok(()) }
}

#[test]
fn chunks_of_tokens_agree_with_burns_logits() {
    let seed = super::common::seed();
    // The last two are more tokens than a chunk: of 64, which so large vocabularies leave room for.
    for sizes in [[1, 1, 1], [37, 12, 1000], [200, 3, 70_001], [150, 5, 300_000]] {
        with_head(&Device::flex(), sizes, None, seed).unwrap();
    }
    with_head(&recording(), [150, 3, 300_000], None, seed).unwrap();
    let (h, head) = (Tensor::zeros([0, 4], &Device::flex()), Tensor::ones([9, 4], &Device::flex()));
    let (nats, gradients) = op::linear_cross_entropy(&h, &head, &[], Some(1.0));
    let [dh, dhead] = gradients.unwrap();
    assert_eq!((nats.dims(), dh.dims(), dhead.dims()), ([0], [0, 4], [9, 4]));
    assert_eq!(read(dhead).unwrap(), [0.0; 36]);
}

/// On a GPU a chunk is so large that no test would fill a second: with few tokens in each, by the kernel and without.
#[test]
fn several_chunks_on_wgpu_agree_with_burns_logits() {
    let Some(device) = super::common::device() else { return };
    let _choosing = super::common::choosing();
    let seed = super::common::seed();
    for choices in [Choices::NONE, Choices::all()] {
        choice::set(choices);
        for chunk in [1, 16, 37, 64] {
            with_head(&device, [37, 12, 300], Some(chunk), seed).unwrap();
        }
    }
}

pub const MUTANTS: &[(&str, &str, &str)] = &[
    ("cross_entropy", "l *= exp(m - x);", "l *= 1.0;"),
    ("cross_entropy", "log(total) -", "total -"),
    ("cross_entropy", "- hit + wrong", "+ wrong"),
    ("cross_entropy", "half = SIZE / 2u", "half = SIZE / 4u"),
    ("cross_entropy", "group.y * groups.x + group.x", "group.x"),
    ("cross_entropy", "&& bits != 0xff800000u", ""),
    ("cross_entropy", "shape.scale / sum[0]", "1.0 / sum[0]"),
    ("cross_entropy", "i == goal", "i == goal + 1u"),
];
