//! Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/), and histograms. It is a
//! page of code, so no library is asked for it.

use super::table::{Kind, Metric};
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What the text is served as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Times, by how long they were.
pub struct Histogram {
    /// Seconds, rising.
    bounds: &'static [f64],
    /// One for each bound, and one beyond the last.
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// With nothing in it.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum_us: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let at = self.bounds.partition_point(|bound| *bound < took.as_secs_f64());
        self.sum_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// The whole answer.
#[derive(Default)]
pub struct Text(String);

/// Where a metric's values go.
pub struct Samples<'a> {
    text: &'a mut String,
    metric: &'static Metric,
}

impl Text {
    /// A metric's head, and what `fill` has of it.
    pub fn metric(&mut self, metric: &'static Metric, fill: impl FnOnce(&mut Samples<'_>)) {
        let Metric { name, kind, help, .. } = metric;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a text cannot fail; here and below.
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}", help.replace('\\', "\\\\"));
        fill(&mut Samples { text: &mut self.0, metric });
    }

    /// It is all.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "{}{suffix}", self.metric.name);
        for (i, (label, of)) in labels.iter().enumerate() {
            let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{of}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The value of a metric without labels.
    pub fn is(&mut self, value: f64) {
        self.sample("", &[], value);
    }

    /// The same, if it is known.
    pub fn may_be(&mut self, value: Option<f64>) {
        value.into_iter().for_each(|value| self.is(value));
    }

    /// The value for one of a label's words.
    pub fn of(&mut self, word: &str, value: f64) {
        self.sample("", &[(self.metric.label, word)], value);
    }

    /// That something is so, in words.
    pub fn info(&mut self, words: &str) {
        self.of(words, 1.0);
    }

    /// All of a histogram.
    pub fn histogram(&mut self, histogram: &Histogram) {
        let mut so_far = 0;
        for (at, count) in histogram.counts.iter().enumerate() {
            so_far += count.load(Ordering::Relaxed);
            let bound = histogram.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.sample("_bucket", &[("le", &bound)], so_far as f64);
        }
        self.sample("_sum", &[], histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
        self.sample("_count", &[], so_far as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LABELLED: Metric =
        Metric { name: "x_total", kind: Kind::Counter, label: "why", help: "A \\ B.", read: |_, _| {} };
    static TIMED: Metric = Metric { name: "x_seconds", kind: Kind::Histogram, label: "", help: "C.", read: |_, _| {} };

    #[test]
    fn the_text_is_as_prometheus_has_it() {
        let (mut text, histogram) = (Text::default(), Histogram::new(&[0.1, 1.0]));
        text.metric(&LABELLED, |samples| samples.of("a \"b\"\n\\", 3.0));
        for ms in [100, 50, 2500, 101] {
            histogram.observe(Duration::from_millis(ms));
        }
        text.metric(&TIMED, |samples| samples.histogram(&histogram));
        let wanted = "# HELP x_total A \\\\ B.\n# TYPE x_total counter\nx_total{why=\"a \\\"b\\\"\\n\\\\\"} 3\n\
                      # HELP x_seconds C.\n# TYPE x_seconds histogram\nx_seconds_bucket{le=\"0.1\"} 2\n\
                      x_seconds_bucket{le=\"1\"} 3\nx_seconds_bucket{le=\"+Inf\"} 4\nx_seconds_sum 2.751\nx_seconds_count 4\n";
        assert_eq!(text.into_string(), wanted);
    }
}
