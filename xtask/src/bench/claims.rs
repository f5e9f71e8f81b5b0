//! What is asked of a device's figures, and whether they hold it.

use super::report::{Growth, Machine, Row, Trained};

/// Something that is asked.
pub struct Claim {
    pub what: String,
    pub asked: &'static str,
    pub figure: String,
    pub held: bool,
}

/// All that is asked of a device and was measured on it.
pub fn claims(m: &Machine) -> Vec<Claim> {
    let mut all = vec![];
    for (burn, ours) in [("autodiff", "ours"), ("burn", "ours"), ("burn-f16", "ours-f16")] {
        all.extend(["0.8M", "10M", "125M", "1B"].iter().filter_map(|size| beside_burn(m, size, burn, ours)));
    }
    all.extend(["0.8M", "10M"].iter().filter_map(|size| beside_torch(m, size)));
    all.extend(share_of_peak(m));
    all.extend(attention_grows(&m.growth));
    all.extend(loss_grows(&m.growth));
    // Asked of GPUs: on the processor there is nothing to tune, and a program that plays GPU mostly compiles, on the
    // processor too.
    if let Some(starts) = m.starts.as_ref().filter(|_| !m.device.software) {
        let claim = |what: &str, asked, seconds: f64, most| {
            let (what, figure) = (format!("the first step on a machine that {what}"), format!("{seconds:.1} s"));
            Claim { what, asked, figure, held: seconds <= most }
        };
        all.push(claim("has run before", "≤ 20 s", starts.known_s, 20.0));
        all.push(claim("is new", "≤ 60 s", starts.new_s, 60.0));
    }
    all
}

fn row<'a>(
    m: &'a Machine,
    size: &'a str,
    is_way: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = (&'a Row, &'a Trained)> {
    let of_size = m.rows.iter().filter(move |row| row.size == size && is_way(&row.way));
    of_size.filter_map(|row| Some((row, row.outcome.as_ref().ok()?)))
}

/// At 125M our kernels are much faster or take half of the memory; elsewhere they are at least no slower.
fn beside_burn(m: &Machine, size: &str, burn: &'static str, ours: &'static str) -> Option<Claim> {
    let what = match burn {
        "autodiff" => format!("our passes and kernels beside Burn alone, {size}"),
        "burn" => format!("all our kernels beside Burn's operations, {size}"),
        _ => format!("all our kernels beside Burn's operations, {size} in f16"),
    };
    let (_, burn) = row(m, size, move |way| way == burn).next()?;
    let (_, ours) = row(m, size, move |way| way == ours).next()?;
    let speed = ours.tokens_per_s / burn.tokens_per_s;
    let memory = ours.memory_bytes.zip(burn.memory_bytes).map(|(ours, burn)| ours as f64 / burn as f64);
    let in_memory = memory.map_or(String::new(), |times| format!(", {times:.2} × the memory"));
    let figure = format!("{speed:.2} × as fast{in_memory}");
    Some(match size {
        "125M" => Claim {
            what,
            asked: "≥ 1.3 × as fast, or ≤ ½ of the memory",
            figure,
            held: speed >= 1.3 || memory.is_some_and(|times| times <= 0.5),
        },
        _ => Claim { what, asked: "≥ 1 × as fast; one that does not gain is not used", figure, held: speed >= 1.0 },
    })
}

/// On the processor, against the faster of PyTorch's ways.
fn beside_torch(m: &Machine, size: &str) -> Option<Claim> {
    if m.device.api != "flex" {
        return None;
    }
    let (_, ours) = row(m, size, |way| way == "ours").next()?;
    let by_speed = |a: &(&Row, &Trained), b: &(&Row, &Trained)| a.1.tokens_per_s.total_cmp(&b.1.tokens_per_s);
    let (best, torch) = row(m, size, |way| way.starts_with("PyTorch")).max_by(by_speed)?;
    let times = ours.tokens_per_s / torch.tokens_per_s;
    let what = format!("tokens/s beside {}, {size}", best.way);
    Some(Claim { what, asked: "≥ 1 ×", figure: format!("{times:.2} ×"), held: times >= 1.0 })
}

/// What a Hopper GPU does in bf16 by its maker's data sheet, without sparsity.
const HOPPER_BF16: f64 = 989e12;

/// The anchors' path: 1B in bf16, against what the device could do.
fn share_of_peak(m: &Machine) -> Option<Claim> {
    let is_hopper = ["H100", "H200"].iter().any(|name| m.device.name.contains(name));
    let peak = HOPPER_BF16;
    let (row, trained) = row(m, "1B", |way| way == "burn-bf16").next().filter(|_| is_hopper)?;
    let share = trained.flops / peak;
    let what = format!("model FLOP/s of the bf16 peak ({:.0} TFLOP/s), {}", peak / 1e12, row.size);
    Some(Claim { what, asked: "≥ 40 %", figure: format!("{:.0} %", 100.0 * share), held: share >= 0.4 })
}

fn grown<'a>(all: &'a [Growth], what: &'a str) -> impl Iterator<Item = (&'a Growth, f64)> {
    let ours = all.iter().filter(move |g| g.what == what && g.way == "ours");
    ours.filter_map(|g| Some((g, *g.bytes.as_ref().ok()? as f64)))
}

/// Of twice the context attention takes twice the memory, not four times.
fn attention_grows(all: &[Growth]) -> Option<Claim> {
    let (short, few) = grown(all, "attention").min_by_key(|(g, _)| g.tokens)?;
    let (long, many) = grown(all, "attention").max_by_key(|(g, _)| g.tokens)?;
    if short.tokens == long.tokens || few == 0.0 {
        return None;
    }
    let (tokens, memory) = (f64::from(long.tokens) / f64::from(short.tokens), many / few);
    Some(Claim {
        what: "attention's memory grows as the context does".into(),
        asked: "≤ 1.25 × as much",
        figure: format!("{memory:.1} × with {tokens:.0} × the tokens"),
        held: memory <= 1.25 * tokens,
    })
}

/// More tokens take more rows, but not more rows of logits: of the largest vocabulary, between the fewest tokens and
/// the most.
fn loss_grows(all: &[Growth]) -> Option<Claim> {
    let vocabulary = grown(all, "loss").map(|(g, _)| g.vocabulary).max()?;
    let of_it = || grown(all, "loss").filter(|(g, _)| g.vocabulary == vocabulary);
    let (few, least) = of_it().min_by_key(|(g, _)| g.tokens)?;
    let (many, most) = of_it().max_by_key(|(g, _)| g.tokens)?;
    if few.tokens == many.tokens {
        return None;
    }
    let share = (most - least) / (4.0 * f64::from(many.tokens - few.tokens) * f64::from(vocabulary));
    Some(Claim {
        what: format!(
            "the loss's memory of {} tokens beyond that of {}, of their logits' (vocabulary {vocabulary})",
            many.tokens, few.tokens
        ),
        asked: "≤ 10 %",
        figure: format!("{:.1} %", 100.0 * share),
        held: share <= 0.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Ceiling, Device, Starts};

    fn row(size: &str, way: &str, tokens_per_s: f64, memory_bytes: u64) -> Row {
        let trained = Trained {
            steps: 3,
            first_step_s: 2.0,
            loss_first: 5.5,
            tokens_per_s,
            tokens_per_s_best: tokens_per_s,
            tokens_per_s_worst: tokens_per_s,
            flops: tokens_per_s,
            memory_bytes: Some(memory_bytes),
        };
        Row { size: size.into(), way: way.into(), shape: "1×1".into(), outcome: Ok(trained) }
    }

    fn growth(what: &str, tokens: u32, vocabulary: u32, bytes: u64) -> Growth {
        Growth { what: what.into(), way: "ours".into(), tokens, vocabulary, bytes: Ok(bytes) }
    }

    /// A device that just does what is asked; or, with a little less speed and a little more of all else, does not.
    fn machine(less: f64, more: u64) -> Machine {
        let [device, name, api, driver] = ["flex", "an H100", "flex", ""].map(String::from);
        Machine {
            device: Device { device, name, api, driver, software: true, gives_way: false },
            note: String::new(),
            ceiling: Some(Ceiling {
                matmul_side: 1,
                matmul_flops: 1.0,
                matmul_flops_half: Some(100.0),
                copy_bytes_per_s: 1.0,
            }),
            rows: vec![
                row("0.8M", "autodiff", 100.0, 1),
                row("0.8M", "ours", 100.0 * less, 1),
                row("125M", "burn", 100.0, 2000),
                row("125M", "ours", 100.0, 1000 + more),
                row("10M", "PyTorch 2 eager", 90.0, 1),
                row("10M", "PyTorch 2 compiled", 100.0, 1),
                row("10M", "ours", 100.0 * less, 1),
                row("1B", "burn-bf16", 0.4 * HOPPER_BF16 * less, 1),
            ],
            starts: Some(Starts { new_s: 60.0 + more as f64, known_s: 20.0 + more as f64 }),
            growth: vec![
                growth("attention", 512, 0, 1000),
                growth("attention", 1024, 0, 2500 + more),
                // 100 rows more, of 100 logits each.
                growth("loss", 100, 100, 9000),
                growth("loss", 200, 100, 9000 + 4000 + more),
            ],
            guests: vec![],
        }
    }

    #[test]
    fn what_is_asked_is_held_just_so_and_missed_by_a_little() {
        let held = |m: &Machine| claims(m).iter().map(|claim| claim.held).collect::<Vec<_>>();
        assert_eq!(held(&machine(1.0, 0)), [true; 6]);
        assert_eq!(held(&machine(0.99, 1)), [false; 6]);
        let starts = |more, software| {
            let mut gpu = machine(1.0, more);
            (gpu.device.api, gpu.device.software) = ("vulkan".into(), software);
            claims(&gpu)
                .into_iter()
                .filter(|claim| claim.what.contains("first step"))
                .map(|claim| claim.held)
                .collect::<Vec<_>>()
        };
        assert_eq!((starts(0, false), starts(1, false), starts(0, true)), (vec![true; 2], vec![false; 2], vec![]));
        let mut fast = machine(1.0, 1);
        fast.rows[3] = row("125M", "ours", 130.0, 1900);
        assert!(claims(&fast)[1].held, "speed makes up for memory");
        let mut bare = machine(1.0, 0);
        (bare.rows, bare.starts, bare.growth) = (vec![], None, vec![]);
        assert!(claims(&bare).is_empty(), "what was not measured is not judged");
    }
}
