//! Plots of a made-up run: whole, bounded, and with nothing left out.

use super::*;
use crate::results::{Agreement, BytesByKind, Timelines};

/// Sixteen devices that fetch, train and upload, and learn on the way.
fn example() -> RunResult {
    let mut timelines = Timelines::new((0..16).map(|n| (format!("device {n}"), [2000.0, 1000.0, 500.0, 250.0][n % 4])));
    for device in 0..16 {
        let lease_s = 40.0 + 3.0 * device as f64;
        let mut at = device as f64 * 10.0;
        while at < 3600.0 {
            timelines.becomes(device, at, Activity::Fetching);
            timelines.becomes(device, at + 3.0, Activity::Training);
            timelines.becomes(device, at + lease_s, Activity::Uploading);
            timelines.becomes(device, at + lease_s + 4.0, Activity::Waiting);
            at += lease_s + 5.0;
            if device % 5 == 4 && at > 1500.0 && at < 2200.0 {
                timelines.becomes(device, at, Activity::Held);
                at += 400.0;
                timelines.becomes(device, at, Activity::Offline);
                at += 200.0;
            }
        }
    }
    let (devices, time) = timelines.finish(3600.0);
    let point = |i: u32| Point {
        virtual_s: f64::from(i) * 60.0 + 20.0,
        tokens: u64::from(i) * 65_536,
        bytes_up: u64::from(i) * 400_000,
        bytes_down: u64::from(i) * 3_000_000,
        loss: Some(1.8 + 3.7 / (1.0 + f64::from(i) / 4.0)),
        loss_ood: Some(2.0 + 3.5 / (1.0 + f64::from(i) / 4.0)),
        version: u64::from(i),
    };
    RunResult {
        name: "example".into(),
        virtual_s: 3600.0,
        curve: (0..60).map(point).collect(),
        devices,
        time,
        utilisation: 0.8731,
        staleness: (0..40).map(|tau| (tau, 4000 >> tau.min(11))).collect(),
        bytes: BytesByKind { deltas: 24_000_000, ..BytesByKind::default() },
        agreement: (0..60).map(|version| Agreement { version, share: 0.9 / (1.0 + version as f64 / 9.0) }).collect(),
        ..RunResult::default()
    }
}

#[test]
fn every_plot_is_written_whole_and_of_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&example(), folder.path()).unwrap();
    assert_eq!(files.len(), 7);
    for file in &files {
        let svg = std::fs::read_to_string(file).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{}", file.display());
        assert!(svg.len() < 3_000_000, "{} has {} bytes", file.display(), svg.len());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", file.display());
    }
    let timeline = std::fs::read_to_string(folder.path().join("timeline.svg")).unwrap();
    assert!(Activity::ALL.iter().all(|what| timeline.contains(what.name())));
    assert!(timeline.contains("device 15"));
}

#[test]
fn a_run_without_losses_or_deltas_is_drawn_too() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(write(&RunResult::default(), folder.path()).unwrap().len(), 3);
}

#[test]
fn what_is_very_stale_is_counted_in_the_last_bar() {
    let chart = staleness(&example());
    assert_eq!(chart.bars.len(), STALENESS_MAX as usize + 1);
    let sum: f64 = chart.bars.iter().map(|bar| bar.value).sum();
    assert!((sum - 100.0).abs() < 1e-9, "{sum}");
    assert_eq!(chart.bars.last().unwrap().name, "≥ 24");
}
