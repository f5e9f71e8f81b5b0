//! The table of metrics: one row a metric, from which the answer to Prometheus, its page in the documentation and the
//! checks of dashboard and alerts follow. Names end in their unit, and counters in `_total`.

use super::{Scene, Seen, TurnedAway, text::Samples};
use crate::{
    engine::{Reason, record::LeaseOutcome},
    server::{health::Stage, machine, trouble::Who},
};
use nightjar_shared::lease::LeaseKind;
use std::time::Instant;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// As it is at the moment.
    Gauge,
    /// Times, by how long they were.
    Histogram,
}

/// One metric.
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The label by which it is told apart; empty where it is one value.
    pub label: &'static str,
    /// What it says, as one sentence.
    pub help: &'static str,
    pub(super) read: Read,
}

/// How a metric is read.
type Read = fn(&Scene<'_>, &mut Samples<'_>);

const fn gauge(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, kind: Kind::Gauge, label: "", help, read }
}

const fn counter(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, kind: Kind::Counter, label: "", help, read }
}

const fn times(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, kind: Kind::Histogram, label: "", help, read }
}

impl Metric {
    /// Told apart by a label.
    const fn by(self, label: &'static str) -> Self {
        Metric { label, ..self }
    }
}

/// Of what the event loop saw last.
fn seen(scene: &Scene<'_>, samples: &mut Samples<'_>, read: impl FnOnce(&Seen) -> f64) {
    samples.may_be(scene.seen.as_ref().map(read));
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// All of them, by what they are about.
pub static METRICS: [(&str, &[Metric]); 8] = [
    ("The coordinator", &COORDINATOR),
    ("The run", &RUN),
    ("Leases and deltas", &LEASES),
    ("Devices and connections", &DEVICES),
    ("The event loop and the ledger", &LOOP),
    ("Merging", &MERGING),
    ("The disk", &DISK),
    ("The process", &PROCESS),
];

/// All metrics, in the table's order.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().flat_map(|(_, group)| *group)
}

static COORDINATOR: [Metric; 4] = [
    gauge("nightjar_build_info", "1, with the program's version.", |_, o| o.info(env!("CARGO_PKG_VERSION")))
        .by("version"),
    gauge("nightjar_ready", "1 if leases can be granted, as /readyz has it; a pause counts only there.", |s, o| {
        o.is(flag(s.health.not_ready(Instant::now()).is_none()));
    }),
    gauge("nightjar_draining", "1 while the coordinator finishes what is on its way, before it stops.", |s, o| {
        o.is(flag(s.health.has_reached(Stage::Draining)));
    }),
    gauge("nightjar_trouble", "1 while it waits for something, by who waits.", |s, o| {
        o.of("disk", flag(s.context.reserve.is_full()));
        Who::ALL.into_iter().for_each(|who| o.of(who.name(), flag(s.health.has_trouble(who))));
    })
    .by("who"),
];

static RUN: [Metric; 11] = [
    gauge("nightjar_run_info", "1, with the run's name.", |s, o| o.info(s.run)).by("run"),
    gauge("nightjar_run_generation", "The coordinator's generation: it rises with each start.", |s, o| {
        seen(s, o, |seen| seen.run.generation.0 as f64);
    }),
    gauge("nightjar_run_version", "Number of the newest version.", |s, o| {
        o.may_be(s.seen.as_ref().and_then(|seen| Some(seen.run.version?.0 as f64)));
    }),
    counter("nightjar_run_tokens_total", "Tokens merged since the run began.", |s, o| {
        seen(s, o, |seen| seen.run.tokens as f64);
    }),
    gauge("nightjar_run_budget_tokens", "Tokens at which the run is over.", |s, o| {
        seen(s, o, |seen| seen.run.token_budget as f64);
    }),
    gauge("nightjar_run_over", "1 once the token budget is used up.", |s, o| {
        seen(s, o, |seen| flag(seen.run.finished));
    }),
    gauge("nightjar_run_paused", "1 while an operator has paused the run.", |s, o| {
        seen(s, o, |seen| flag(seen.run.paused_at.is_some()));
    }),
    gauge(
        "nightjar_run_speed_tokens_per_second",
        "Measured speeds of all devices that train now, together.",
        |s, o| {
            seen(s, o, |seen| seen.run.tokens_per_s);
        },
    ),
    gauge("nightjar_run_heldout_loss_nats_per_byte", "The newest held-out loss.", |s, o| {
        o.may_be(s.seen.as_ref().and_then(|seen| Some(seen.run.evaluation.as_ref()?.nats_per_byte())));
    }),
    gauge("nightjar_run_heldout_version", "The version that this loss is of.", |s, o| {
        o.may_be(s.seen.as_ref().and_then(|seen| Some(seen.run.evaluation.as_ref()?.version.0 as f64)));
    }),
    gauge("nightjar_run_agreement_ratio", "The share of signal in the newest deltas, 0 to 1.", |s, o| {
        o.may_be(s.seen.as_ref().and_then(|seen| seen.run.agreement));
    }),
];

static LEASES: [Metric; 5] = [
    counter("nightjar_leases_granted_total", "Leases granted, by kind.", |s, o| {
        LeaseKind::ALL.iter().zip(&s.metrics.granted).for_each(|(kind, count)| o.of(kind.name(), count.get()));
    })
    .by("kind"),
    counter("nightjar_leases_settled_total", "Leases that ended, by outcome.", |s, o| {
        LeaseOutcome::ALL.iter().zip(&s.metrics.settled).for_each(|(end, count)| o.of(end.name(), count.get()));
    })
    .by("outcome"),
    gauge("nightjar_leases_open", "Leases that have not ended.", |s, o| seen(s, o, |seen| seen.run.leases_open as f64)),
    counter("nightjar_deltas_merged_total", "Deltas merged since the run began.", |s, o| {
        seen(s, o, |seen| seen.run.merged as f64);
    }),
    counter("nightjar_deltas_refused_total", "Deltas that were not merged, by reason.", |s, o| {
        let Some(seen) = &s.seen else { return };
        Reason::ALL.into_iter().for_each(|reason| o.of(reason.name(), seen.run.refused.of(reason) as f64));
    })
    .by("reason"),
];

static DEVICES: [Metric; 10] = [
    gauge("nightjar_devices_enrolled", "Devices of the run that have not left.", |s, o| {
        o.is(s.context.members.len() as f64);
    }),
    gauge("nightjar_devices_online", "Devices that are connected.", |s, o| o.is(s.context.present.len() as f64)),
    gauge("nightjar_strangers", "Connections without a valid hello yet.", |s, o| {
        o.is(s.context.strangers.len() as f64);
    }),
    counter(
        "nightjar_strangers_turned_away_total",
        "Connections that ended before a valid hello, by reason.",
        |s, o| {
            let counts = TurnedAway::ALL.iter().zip(&s.metrics.turned_away);
            counts.for_each(|(why, count)| o.of(why.name(), count.get()));
        },
    )
    .by("reason"),
    counter(
        "nightjar_limit_refusals_total",
        "Times that a limit by device, address or invite turned a device away, by limit.",
        |s, o| s.context.rates.refused().into_iter().for_each(|(limit, times)| o.of(limit, times as f64)),
    )
    .by("limit"),
    counter("nightjar_received_bytes_total", "Bytes of messages and blobs from devices.", |s, o| {
        o.is(s.context.traffic.total().0 as f64);
    }),
    counter("nightjar_sent_bytes_total", "Bytes of messages and blobs to devices.", |s, o| {
        o.is(s.context.traffic.total().1 as f64);
    }),
    gauge("nightjar_uploads", "Uploads under way.", |s, o| o.is(s.context.uploads.under_way() as f64)),
    gauge("nightjar_buffer_used_bytes", "Memory taken by what travels.", |s, o| {
        o.is(s.context.budget.used_bytes() as f64);
    }),
    gauge("nightjar_buffer_limit_bytes", "Memory that all that travels may take together.", |s, o| {
        o.is(s.context.budget.limit_bytes() as f64);
    }),
];

static LOOP: [Metric; 6] = [
    gauge("nightjar_queue_length", "Questions that wait for the event loop.", |s, o| {
        o.is(s.context.handle.queue().0 as f64);
    }),
    gauge("nightjar_queue_limit", "Questions that may wait; further ones are told to come again.", |s, o| {
        o.is(s.context.handle.queue().1 as f64);
    }),
    times(
        "nightjar_lease_request_duration_seconds",
        "Time from a request for a lease to its answer, without those that wait for the next round.",
        |s, o| o.histogram(&s.metrics.requests),
    ),
    times("nightjar_ledger_commit_duration_seconds", "Time of a commit to the ledger, retries included.", |s, o| {
        o.histogram(&s.metrics.commits);
    }),
    counter("nightjar_ledger_records_total", "Records written to the ledger.", |s, o| o.is(s.metrics.records.get())),
    counter("nightjar_ledger_retries_total", "Commits that failed and were tried again.", |s, o| {
        o.is(s.metrics.retries.get());
    }),
];

static MERGING: [Metric; 2] = [
    times("nightjar_merge_duration_seconds", "Time to add a delta to the buffer.", |s, o| {
        o.histogram(&s.metrics.merges);
    }),
    times("nightjar_publish_duration_seconds", "Time to make and store a version.", |s, o| {
        o.histogram(&s.metrics.publications);
    }),
];

static DISK: [Metric; 4] = [
    gauge("nightjar_disk_free_bytes", "Bytes free on the state folder's disk.", |s, o| {
        o.may_be(s.seen.as_ref().and_then(|seen| Some(seen.disk.free_bytes? as f64)));
    }),
    gauge("nightjar_disk_needed_bytes", "Bytes that have to be free for leases to be granted.", |s, o| {
        seen(s, o, |seen| seen.disk.needed_bytes as f64);
    }),
    gauge("nightjar_disk_full", "1 while no lease is granted for want of room.", |s, o| {
        o.is(flag(s.context.reserve.is_full()));
    }),
    gauge("nightjar_disk_reserve_bytes", "Bytes kept for the ledger, to be given up on a full disk.", |s, o| {
        seen(s, o, |seen| seen.disk.reserve_bytes as f64);
    }),
];

static PROCESS: [Metric; 3] = [
    gauge("process_resident_memory_bytes", "Memory of the process.", |_, o| {
        o.may_be(machine::process().map(|process| process.memory_bytes as f64));
    }),
    counter("process_cpu_seconds_total", "Processor time of the process.", |_, o| {
        o.may_be(machine::process().map(|process| process.cpu.as_secs_f64()));
    }),
    gauge("process_start_time_seconds", "When the process started, as Unix time.", |_, o| {
        o.may_be(machine::process().map(|process| process.started_unix_s as f64));
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fmt::Write, fs};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

    fn read(path: &str) -> String {
        fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Metrics that a text names.
    fn named(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let ours = words.filter(|word| word.starts_with("nightjar_") || word.starts_with("process_"));
        let whole = |word: &str| {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            of_histogram.unwrap_or(word).to_owned()
        };
        ours.map(whole).collect()
    }

    fn known() -> BTreeSet<String> {
        all().map(|metric| metric.name.to_owned()).collect()
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for metric in all() {
            let Metric { name, kind, help, .. } = metric;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(!name.contains("_ms") && (*kind != Kind::Histogram || name.ends_with("_seconds")), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
        assert_eq!(known().len(), all().count(), "two have one name");
    }

    #[test]
    fn dashboard_and_alerts_name_no_metric_that_there_is_not() {
        let (dashboard, alerts) =
            (read("coordinator/operating/grafana.json"), read("coordinator/operating/alerts.yml"));
        let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        assert!(parsed["panels"].as_array().unwrap().len() > 10);
        for (file, text) in [("grafana.json", dashboard), ("alerts.yml", alerts)] {
            let (named, known) = (named(&text), known());
            assert!(named.len() > 10, "{file} names hardly any: {named:?}");
            let unknown: Vec<_> = named.difference(&known).collect();
            assert!(unknown.is_empty(), "{file} names {unknown:?}");
        }
    }

    #[test]
    fn each_alert_has_its_entry_in_the_guide() {
        let (alerts, guide) = (read("coordinator/operating/alerts.yml"), read("docs/labs/alerts.md"));
        let lines = alerts.lines().map(str::trim);
        let names: BTreeSet<&str> = lines.filter_map(|line| line.strip_prefix("- alert: ")).collect();
        let told: BTreeSet<&str> = guide.lines().filter_map(|line| line.strip_prefix("## Nightjar")).collect();
        let names: BTreeSet<&str> = names.into_iter().filter_map(|name| name.strip_prefix("Nightjar")).collect();
        assert!(names.len() > 5 && names == told, "alerts {names:?}, entries {told:?}");
    }

    /// The page about metrics.
    fn page() -> String {
        let mut page = "# Metrics\n\nThis page is for the person who watches a coordinator with Prometheus. After reading it you know \
             each figure that the coordinator gives. It is made from the program's own table: change that, not this \
             page.\n\nThe figures are at `/metrics`, on the same address as the status page. None is kept per device, so their number \
             does not grow with the run. Counters begin at 0 with each start, except for tokens and merged deltas, \
             which are the run's. [Alerts](alerts.md) says which of them to be woken by.\n"
            .to_owned();
        for (group, metrics) in &METRICS {
            let _ = write!(page, "\n## {group}\n\n| metric | kind | label | what it says |\n|---|---|---|---|\n");
            for Metric { name, kind, label, help, .. } in *metrics {
                let kind = format!("{kind:?}").to_lowercase();
                let label = if label.is_empty() { String::new() } else { format!("`{label}`") };
                let _ = writeln!(page, "| `{name}` | {kind} | {label} | {help} |");
            }
        }
        page
    }

    #[test]
    fn the_table_is_one_page_of_the_documentation() {
        let path = format!("{ROOT}/docs/labs/metrics.md");
        if std::env::var_os("NIGHTJAR_WRITE_DOCS").is_some() {
            fs::write(&path, page()).unwrap();
        }
        let told = fs::read_to_string(path).unwrap_or_default();
        assert!(
            told == page(),
            "docs/labs/metrics.md is not what the table says; run this test with NIGHTJAR_WRITE_DOCS=1"
        );
    }
}
