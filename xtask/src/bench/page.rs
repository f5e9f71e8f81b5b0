//! The figures as tables for people.

use super::{
    claims::{self, Claim},
    codec, coordinator,
    report::{Carried, Codecs, Growth, Guest, Machine, PreparedRow, Preparing, Report, Row},
};
use std::fmt::Write;

const HEAD: &str = "\
# Performance

How fast training is, device by device. This page is written by `cargo xtask bench train --docs` from
[performance.json](performance.json), which keeps the newest figures of each device; do not edit it.

How to read it: a row trains one model on random tokens, in a process of its own: two steps that do not count, then as many
as fit some seconds. *Model FLOP/s* counts what the model needs (six operations a weight and token, and causal attention's
products), not what is computed a second time; its share is of the device's *ceiling*, a large matrix product of the same
type through the same runtime, by Burn or our kernel, whichever is faster. *Memory* is the peak: of a GPU what its runtime holds, of the processor the whole process.
*autodiff* is Burn alone, but for the optimizer's formula: the model in plain tensor operations, its gradients by Burn's automatic
differentiation; *nodes* is the same model made of our operations. *burn* is our own passes forward and backward, of Burn's operations; *ours* takes our kernel
wherever there is one (a start on a new device measures each and takes those that gain). On the processor (`flex`) *ours* is the
CPU twins. Products are in f32 unless a row says f16 or bf16; weights and sums always are. PyTorch's rows are the same model, batch
and optimizer in the same run, where `python3`, or what `--python FILE` names, has it.
";

/// The whole page.
pub fn whole(report: &Report) -> String {
    let mut text = String::from(HEAD);
    for m in &report.machines {
        text.push('\n');
        text.push_str(&machine(m));
    }
    for of_one in &report.codecs {
        text.push('\n');
        text.push_str(&codecs(of_one));
    }
    for of_one in &report.preparing {
        text.push('\n');
        text.push_str(&preparing(of_one));
    }
    for of_one in &report.coordinators {
        text.push('\n');
        text.push_str(&carried(of_one));
    }
    text
}

/// A coordinator with one ledger, on one machine.
pub fn carried(carried: &Carried) -> String {
    let Carried { machine, profile, ledger, devices, .. } = carried;
    let mut text = format!(
        "## Coordinator, ledger in {ledger}, {devices} devices, {machine}\n\nBy `cargo xtask bench coordinator`, {profile} \
         build: the devices, which speak QUIC and train nothing, are on the same cores. A lease is one step of a model of a few hundred parameters: \
         it is asked for, granted, its delta is uploaded, measured, screened and written down.\n\n"
    );
    judged(&mut text, &coordinator::claims(carried));
    text.push_str("| load | leases/s | request p50 / p99 | CPU a lease | syncs a lease | written a lease |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for (name, load) in [("full", &carried.full), ("half", &carried.half)] {
        let syncs = load.syncs_a_lease.map_or("–".into(), |syncs| format!("{syncs:.2}"));
        put(
            &mut text,
            format_args!(
                "| {name} | {:.0} | {:.1} ms / {:.1} ms | {:.2} ms | {syncs} | {:.1} KiB |\n",
                load.leases_a_second,
                load.p50_ms,
                load.p99_ms,
                load.cpu_ms_a_lease,
                load.written_a_lease / 1024.0
            ),
        );
    }
    if carried.bytes_a_connection > 0.0 {
        put(
            &mut text,
            format_args!(
                "\nWith {devices} devices connected, each with a lease, the coordinator takes {:.0} MiB: {:.1} KiB a \
                 connection, so {:.1} GiB with 100,000. While nobody asks, keeping them costs {:.2} cores.\n",
                carried.memory as f64 / f64::from(1 << 20),
                carried.bytes_a_connection / 1024.0,
                carried.memory_of_many / f64::from(1 << 30),
                carried.cores_idle
            ),
        );
    }
    text
}

/// How text is prepared on one processor.
pub fn preparing(preparing: &Preparing) -> String {
    let Preparing { processor, cores, rows } = preparing;
    let mut text = format!(
        "## Preparing text, {processor}\n\nBy `cargo xtask bench prepare`: made text, a vocabulary of 32,768 tokens that is there, {cores} \
         cores. *A core* divides by all of them, whatever else they did.\n\n\
         | text | time | a core | memory at its peak |\n|---|---|---|---|\n"
    );
    for PreparedRow { megabytes, seconds, peak_bytes } in rows {
        let a_core = *megabytes as f64 / seconds / *cores as f64;
        let peak = *peak_bytes as f64 / f64::from(1 << 20);
        put(&mut text, format_args!("| {megabytes} MB | {seconds:.0} s | {a_core:.1} MB/s | {peak:.0} MiB |\n"));
    }
    text
}

/// The delta codecs on one processor.
pub fn codecs(codecs: &Codecs) -> String {
    let mut text = format!(
        "## Delta codecs, {}\n\nOne core, by `cargo xtask bench codec`; GB/s of dense f32 covered, beside a plain copy of {:.2} \
         GB/s in the same run.\n\n",
        codecs.processor,
        codecs.copy / 1e9
    );
    judged(&mut text, &codec::claims(codecs));
    text.push_str("| codec | encoded | decoded and accumulated |\n|---|---|---|\n");
    for row in &codecs.rows {
        let cell = |speed: f64| format!("{:.2} GB/s ({:.0} % of the copy)", speed / 1e9, 100.0 * speed / codecs.copy);
        put(&mut text, format_args!("| {} | {} | {} |\n", row.name, cell(row.encode), cell(row.decode)));
    }
    text
}

/// One device's part of it.
pub fn machine(m: &Machine) -> String {
    let mut text = format!("## {}", m.device.name);
    let driver = [m.device.api.as_str(), m.device.driver.as_str()].join(" ");
    put(&mut text, format_args!(" ({})\n\n", driver.trim()));
    if m.device.software && m.device.device != "flex" {
        text.push_str(
            "A program that plays GPU on the processor: it shows that things work, not how fast they are.\n\n",
        );
    }
    if m.device.gives_way {
        text.push_str("Its driver gives queues of low global priority, and ours is one.\n\n");
    }
    if !m.note.is_empty() {
        put(&mut text, format_args!("{}\n\n", m.note));
    }
    if let Some(c) = &m.ceiling {
        let side = c.matmul_side;
        put(&mut text, format_args!("Ceiling: {}FLOP/s in a product of {side}×{side}, ", si(c.matmul_flops)));
        if let Some(half) = c.matmul_flops_half {
            put(&mut text, format_args!("{}FLOP/s in one of half the width, ", si(half)));
        }
        put(&mut text, format_args!("{}B/s copied (read and written).\n\n", si(c.copy_bytes_per_s)));
    }
    judged(&mut text, &claims::claims(m));
    if !m.rows.is_empty() {
        text.push_str(
            "| model | batch | way | tokens/s (worst–best step) | model FLOP/s | of the ceiling | memory | first step \
            |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        let peak = |r: &Row| {
            m.ceiling.as_ref().and_then(|c| if r.is_half() { c.matmul_flops_half } else { Some(c.matmul_flops) })
        };
        m.rows.iter().for_each(|r| row(&mut text, r, peak(r)));
        text.push('\n');
    }
    if let Some(s) = &m.starts {
        put(
            &mut text,
            format_args!("From a worker's start to the end of its first step (0.8M, 2×128): {:.1} s", s.new_s),
        );
        put(&mut text, format_args!(" on a new device, {:.1} s on one that is known.\n\n", s.known_s));
    }
    guests(&mut text, &m.guests);
    grown(&mut text, &m.growth);
    text
}

/// What must hold, and whether it does.
fn judged(text: &mut String, all: &[Claim]) {
    if all.is_empty() {
        return;
    }
    text.push_str("| must hold | asked | figure | |\n|---|---|---|---|\n");
    for claim in all {
        let verdict = if claim.held { "met" } else { "**missed**" };
        put(text, format_args!("| {} | {} | {} | {verdict} |\n", claim.what, claim.asked, claim.figure));
    }
    text.push('\n');
}

/// What another program's small work waits, sixty times a second.
fn guests(text: &mut String, all: &[(String, Guest)]) {
    if all.is_empty() {
        return;
    }
    text.push_str("Milliseconds until a copy of 4 MiB is done that another program asks for sixty times a second:\n\n");
    text.push_str("| meanwhile the GPU | median | 95 of 100 | worst |\n|---|---|---|---|\n");
    for (what, g) in all {
        let told = if what == "idle" { "does nothing else".into() } else { format!("trains 10M at {what} priority") };
        put(text, format_args!("| {told} | {:.2} | {:.2} | {:.2} |\n", g.median_ms, g.p95_ms, g.worst_ms));
    }
    text.push('\n');
}

fn row(text: &mut String, r: &Row, ceiling: Option<f64>) {
    put(text, format_args!("| {} | {} | {} | ", r.size, r.shape, r.way));
    match &r.outcome {
        Err(e) => put(text, format_args!("not measured: {} | | | | |\n", e.replace('|', "/"))),
        Ok(t) => {
            let share = ceiling.map_or("–".into(), |c| format!("{:.0} %", 100.0 * t.flops / c));
            let memory = t.memory_bytes.map_or("–".into(), |b| format!("{}B", binary(b)));
            let all = [t.tokens_per_s, t.tokens_per_s_worst, t.tokens_per_s_best, t.flops].map(si);
            let [mean, worst, best, flops] = all.each_ref().map(|x| x.trim_end());
            put(
                text,
                format_args!("{mean} ({worst}–{best}) | {flops} | {share} | {memory} | {:.1} s |\n", t.first_step_s),
            );
        }
    }
}

/// How memory grows, one table an operation.
fn grown(text: &mut String, all: &[Growth]) {
    for (what, sentence) in [
        (
            "attention",
            "Memory of attention, forward and backward, one sequence of 4 heads of 32, beyond an idle process:",
        ),
        ("loss", "Memory of the head and the loss, forward and backward, 64 wide, beyond an idle process:"),
    ] {
        let of: Vec<&Growth> = all.iter().filter(|g| g.what == what).collect();
        let mut columns: Vec<(u32, u32)> = of.iter().map(|g| (g.vocabulary, g.tokens)).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut ways: Vec<&str> = of.iter().map(|g| g.way.as_str()).collect();
        ways.dedup();
        if columns.is_empty() {
            continue;
        }
        put(text, format_args!("{sentence}\n\n| tokens | vocabulary |"));
        ways.iter().for_each(|way| put(text, format_args!(" {way} |")));
        put(text, format_args!("\n|---|---|{}\n", "---|".repeat(ways.len())));
        for (vocabulary, tokens) in columns {
            let told = if vocabulary == 0 { "–".into() } else { vocabulary.to_string() };
            put(text, format_args!("| {tokens} | {told} |"));
            for way in &ways {
                let cell = of.iter().find(|g| (g.vocabulary, g.tokens, g.way.as_str()) == (vocabulary, tokens, *way));
                let cell = cell.map_or("–".into(), |g| match &g.bytes {
                    Ok(bytes) => format!("{}B", binary(*bytes)),
                    Err(e) => e.replace('|', "/"),
                });
                put(text, format_args!(" {cell} |"));
            }
            text.push('\n');
        }
        text.push('\n');
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(what);
}

/// Three digits and a decimal prefix, with a space behind: `12.3 G`.
fn si(x: f64) -> String {
    scaled(x, 1000.0, ["", "k", "M", "G", "T", "P"])
}

/// The same with binary prefixes.
fn binary(x: u64) -> String {
    scaled(x as f64, 1024.0, ["", "Ki", "Mi", "Gi", "Ti", "Pi"])
}

fn scaled(x: f64, base: f64, prefixes: [&str; 6]) -> String {
    let power = if x < 1.0 { 0 } else { (x.log(base).floor() as usize).min(5) };
    let x = x / base.powi(power as i32);
    let digits = if x < 10.0 { 2 } else { usize::from(x < 100.0) };
    format!("{x:.digits$} {}", prefixes[power])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Ceiling, Device, Starts, Trained};

    #[test]
    fn numbers_have_three_digits_and_a_prefix() {
        assert_eq!(
            [0.0, 1.0, 12.34, 999.0, 1000.0, 6.7e13].map(si),
            ["0.00 ", "1.00 ", "12.3 ", "999 ", "1.00 k", "67.0 T"]
        );
        assert_eq!([0, 1024, 3 << 29].map(binary), ["0.00 ", "1.00 Ki", "1.50 Gi"]);
    }

    #[test]
    fn a_device_has_its_ceiling_its_rows_and_its_growth() {
        let trained = Trained {
            steps: 3,
            first_step_s: 2.0,
            loss_first: 5.5,
            tokens_per_s: 1000.0,
            tokens_per_s_best: 1100.0,
            tokens_per_s_worst: 900.0,
            flops: 5e9,
            memory_bytes: Some(1 << 20),
        };
        let row = |way: &str, outcome| Row { size: "10M".into(), way: way.into(), shape: "8×128".into(), outcome };
        let growth =
            |way: &str, bytes| Growth { what: "loss".into(), way: way.into(), tokens: 64, vocabulary: 256, bytes };
        let [device, name, api, driver] = ["wgpu:0", "A", "vulkan", "B 1"].map(String::from);
        let device = Device { device, name, api, driver, software: false, gives_way: true };
        let ceiling =
            Some(Ceiling { matmul_side: 64, matmul_flops: 1e10, matmul_flops_half: Some(2e10), copy_bytes_per_s: 1e9 });
        let rows = vec![row("ours", Ok(trained)), row("ours-f16", Ok(trained)), row("burn", Err("no | room".into()))];
        let starts = Some(Starts { new_s: 30.0, known_s: 4.0 });
        let growth = vec![growth("burn", Ok(2048)), growth("ours", Err("x".into()))];
        let guests = vec![("low".into(), Guest { median_ms: 0.5, p95_ms: 1.25, worst_ms: 9.0 })];
        let machine = Machine { device, note: "Of a Tuesday.".into(), ceiling, rows, starts, growth, guests };
        let kept: Machine = serde_json::from_str(&serde_json::to_string(&machine).unwrap()).unwrap();
        for part in [
            "## A (vulkan B 1)",
            "queues of low global priority",
            "\nOf a Tuesday.\n",
            "| 10M | 8×128 | ours | 1.00 k (900–1.10 k) | 5.00 G | 50 % | 1.00 MiB | 2.0 s |",
            "| 10M | 8×128 | ours-f16 | 1.00 k (900–1.10 k) | 5.00 G | 25 % | 1.00 MiB | 2.0 s |",
            "| 10M | 8×128 | burn | not measured: no / room |",
            "first step (0.8M, 2×128): 30.0 s on a new device, 4.0 s on one that is known.",
            "| tokens | vocabulary | burn | ours |",
            "| 64 | 256 | 2.00 KiB | x |",
            "| trains 10M at low priority | 0.50 | 1.25 | 9.00 |",
            "| the first step on a machine that is new | ≤ 60 s | 30.0 s | met |",
        ] {
            assert!(super::machine(&kept).contains(part), "{part}\n{}", super::machine(&kept));
        }
        let page = whole(&Report { machines: vec![kept], ..Report::default() });
        assert!(page.starts_with("# Performance"));
    }
}
