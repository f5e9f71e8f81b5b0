//! RAPL: the processor's own energy counters, in /sys/class/powercap. Most systems let only root read them (a side
//! channel, CVE-2020-8694); then there are none.

use crate::sensor::{names, number};
use std::path::{Path, PathBuf};

/// The counters of all packages.
pub(super) struct Counters(Vec<Counter>);

struct Counter {
    file: PathBuf,
    last_uj: u64,
    /// It starts over at zero after this.
    range_uj: u64,
}

impl Counters {
    /// `None` where there is none, or none that may be read.
    pub fn open(root: &Path) -> Option<Self> {
        let folder = root.join("sys/class/powercap");
        let names = names(&folder).ok()?;
        // `intel-rapl:0` is a package (on AMD too); `intel-rapl:0:0` is a part of it, `intel-rapl-mmio:0` is it once
        // more.
        let packages = names.into_iter().filter(|name| {
            name.strip_prefix("intel-rapl:").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let counters: Vec<Counter> = packages
            .filter_map(|name| {
                let file = folder.join(&name).join("energy_uj");
                let range_uj = microjoules(&folder.join(&name).join("max_energy_range_uj"))?;
                Some(Counter { last_uj: microjoules(&file)?, file, range_uj })
            })
            .collect();
        (!counters.is_empty()).then_some(Counters(counters))
    }

    /// Energy since the last call, in joules.
    pub fn joules(&mut self) -> Option<f64> {
        let mut sum_uj = 0;
        for counter in &mut self.0 {
            let now_uj = microjoules(&counter.file)?;
            sum_uj += match now_uj.checked_sub(counter.last_uj) {
                Some(step) => step,
                None => counter.range_uj.saturating_sub(counter.last_uj).saturating_add(now_uj),
            };
            counter.last_uj = now_uj;
        }
        Some(sum_uj as f64 * 1e-6)
    }
}

fn microjoules(file: &Path) -> Option<u64> {
    number(file)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn packages_are_counted_once_and_over_their_end() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, uj: u64| {
            let folder = root.path().join("sys/class/powercap").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("energy_uj"), format!("{uj}\n")).unwrap();
            fs::write(folder.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        assert!(Counters::open(root.path()).is_none());
        put("intel-rapl:0", 1_000_000);
        put("intel-rapl:0:0", 500_000);
        put("intel-rapl:1", 9_000_000);
        let mut counters = Counters::open(root.path()).unwrap();
        put("intel-rapl:0", 3_000_000);
        put("intel-rapl:0:0", 2_500_000);
        put("intel-rapl:1", 1_000_000);
        assert_eq!(counters.joules(), Some(4.0));
        assert_eq!(counters.joules(), Some(0.0));
    }
}
