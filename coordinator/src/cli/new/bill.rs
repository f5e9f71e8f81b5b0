//! What a run will cost, in words.

use nightjar_coordinator::{
    cost::{ASSUMED, Assumed, Cost, HOURS_A_DAY},
    server::words::{bytes, si, span},
};
use nightjar_shared::{run_spec::RunSpec, shard::Manifest};

/// Pools of devices that are told.
const POOLS: [u32; 3] = [10, 100, 1000];

/// The lines that a person reads before anything starts.
pub fn lines(cost: &Cost, spec: &RunSpec, manifest: &Manifest) -> Vec<String> {
    let held = manifest.train_samples() * u64::from(manifest.context);
    let times = cost.tokens as f64 / held.max(1) as f64;
    let minutes = span(cost.lease_s);
    let mut lines = vec![
        format!("model     {} parameters", si(cost.parameters as f64)),
        format!(
            "data      {} tokens; the budget of {}, {} a parameter, goes {times:.1} times over them",
            si(held as f64),
            si(cost.tokens as f64),
            si(cost.tokens as f64 / cost.parameters as f64)
        ),
        format!(
            "a device  needs {} of memory, and fetches {} when it joins",
            mib(cost.device_bytes),
            bytes(cost.join_bytes)
        ),
        format!(
            "          sends {} an hour, with leases of {minutes} (`lease.wall_s`); shorter ones, which the coordinator \
             chooses",
            bytes(cost.up_bytes_an_hour() as u64)
        ),
        "          where deltas agree, send more".to_owned(),
        format!(
            "this one  needs {} of memory and {} of disk to serve it",
            mib(cost.server_bytes),
            bytes(cost.server_disk_bytes)
        ),
    ];
    lines.extend(ASSUMED.iter().map(|device| of_device(cost, device)));
    let usual = &ASSUMED[1];
    if cost.fits(usual) {
        let days: Vec<String> =
            POOLS.iter().map(|pool| format!("{pool}: {}", days(cost.days(usual, *pool, HOURS_A_DAY)))).collect();
        lines.push(format!("in all    so many laptops, {HOURS_A_DAY:.0} hours a night: {}", days.join("; ")));
    }
    lines.extend([
        "          many devices see the tokens sooner than one; how much sooner the loss falls: docs/results.md"
            .to_owned(),
        "          small models reach less of a large GPU's speed".to_owned(),
    ]);
    lines.extend(ASSUMED.iter().map(|device| {
        let speed = format!("{}FLOP/s", si(device.flops));
        format!("assumed   {}: {speed}, {} of memory; {}", device.name, mib(device.memory_bytes), device.source)
    }));
    if times > 4.0 {
        lines.push(format!(
            "note      the data is gone over {times:.0} times: after four times, more text would help more (arXiv 2305.16264), \
             or --tokens {}",
            held * 4
        ));
    }
    if spec.token_budget < spec.tokens_per_step() {
        lines.push("note      the budget is less than one step".to_owned());
    }
    lines
}

fn of_device(cost: &Cost, device: &Assumed) -> String {
    if !cost.fits(device) {
        return format!(
            "{:<9} cannot take part: it is taken to have {} of memory",
            device.name,
            mib(device.memory_bytes)
        );
    }
    format!(
        "{:<9} {} tokens a second, {} an hour down, {} of its time for all of it",
        device.name,
        si(cost.tokens_per_s(device)),
        bytes(cost.down_bytes_an_hour(device) as u64),
        span(3600.0 * cost.device_hours(device))
    )
}

fn days(days: f64) -> String {
    if days < 1.0 { "a night".to_owned() } else { format!("{} nights", si(days.ceil())) }
}

/// Memory, as owners are told of it.
fn mib(bytes: u64) -> String {
    match bytes.div_ceil(1 << 20) {
        mib @ 0..1024 => format!("{mib} MiB"),
        mib => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::model_spec::Size;
    use serde_json::json;

    fn told(size: &str, tokens: u64) -> String {
        let size = Size::find(size).unwrap();
        let spec = RunSpec { model: size.model(32_000, size.context), ..RunSpec::new("x", tokens) };
        let shard = json!({"hash": "0".repeat(64), "bytes": 9, "samples": 1000, "text_bytes": 12});
        let manifest = serde_json::from_value(json!({"format": 1, "context": size.context, "vocab_size": 32000,
            "tokenizer": null, "train": [shard], "heldout": [shard]}));
        lines(&Cost::of(&spec), &spec, &manifest.unwrap()).join("\n")
    }

    #[test]
    fn a_person_reads_what_it_will_take() {
        let bill = told("125M", 2_048_000);
        assert!(bill.contains("model     110 M parameters"), "{bill}");
        assert!(
            bill.contains("1.02 M tokens; the budget of 2.05 M, 0.02 a parameter, goes 2.0 times over them"),
            "{bill}"
        );
        assert!(bill.contains("a device  needs 5.3 GiB of memory, and fetches 219 MB when it joins"), "{bill}");
        assert!(bill.contains("a phone   cannot take part: it is taken to have 2.0 GiB"), "{bill}");
        assert!(bill.contains("an H100   42.2 k tokens a second"), "{bill}");
        assert!(!bill.contains("note"), "{bill}");
        assert!(
            told("125M", 8_192_000).contains("gone over 8 times")
                && told("125M", 8_192_000).contains("--tokens 4096000")
        );
        assert!(told("1B", 1 << 40).contains("a laptop  cannot take part"));
        assert!(!told("1B", 1 << 40).contains("so many laptops"));
    }
}
