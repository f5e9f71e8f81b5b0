//! Runs rows: several at a time, the cached ones not at all, until the budget is used up. All variants get their first
//! seed before any gets its second, so that a study that is broken off says something about each.

use super::{Row, cache::Cache};
use anyhow::{Result, anyhow};
use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// A row to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Task<W> {
    /// The study's key.
    pub study: String,
    /// The variant's name.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// The hash of all that decides it.
    pub config: String,
    /// What is run.
    pub work: W,
}

/// How a study stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Rows that are there, cached or run.
    pub done: usize,
    /// All rows.
    pub of: usize,
    /// The row that was finished last.
    pub last: String,
    /// Seconds left, if it goes on as it went.
    pub left_s: f64,
}

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ran {
    /// Rows that are there.
    pub rows: Vec<Row>,
    /// Rows that failed, with the reason.
    pub failed: Vec<(String, String)>,
    /// Rows that the budget did not suffice for.
    pub not_run: usize,
}

/// How rows are run.
pub struct Means<'m, W> {
    /// Rows at a time.
    pub jobs: usize,
    /// Whether the budget still suffices for another row.
    pub goes_on: &'m (dyn Fn() -> bool + Sync),
    /// Carries a row out.
    pub run: &'m (dyn Fn(&Task<W>) -> Result<Row> + Sync),
    /// Told after every row.
    pub watch: &'m (dyn Fn(&Progress) + Sync),
}

/// What was run so far, and how long it took.
#[derive(Default)]
struct Finished {
    ran: Ran,
    host_s: BTreeMap<String, (f64, u32)>,
}

/// Runs the tasks in their order.
pub fn run<W: Sync>(tasks: &[Task<W>], cache: &Cache, means: &Means<'_, W>) -> Result<Ran> {
    let mut finished = Finished::default();
    let mut open = VecDeque::new();
    for task in tasks {
        match cache.get(&task.config) {
            Some(row) => finished.keep(task.named(row)),
            None => open.push_back(task),
        }
    }
    let (finished, open) = (Mutex::new(finished), Mutex::new(open));
    let lock = || finished.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || -> Result<()> {
        while (means.goes_on)() {
            let Some(task) = open.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { break };
            let since = Instant::now();
            let ran = catch_unwind(AssertUnwindSafe(|| (means.run)(task))).unwrap_or_else(|why| Err(panicked(&*why)));
            let ran = ran.map(|row| task.named(Row { host_s: since.elapsed().as_secs_f64(), ..row }));
            if let Ok(row) = &ran {
                cache.put(row)?;
            }
            let waiting: Vec<&str> = {
                let open = open.lock().unwrap_or_else(PoisonError::into_inner);
                open.iter().map(|task| task.variant.as_str()).collect()
            };
            let mut finished = lock();
            match ran {
                Ok(row) => finished.keep(row),
                Err(error) => finished.ran.failed.push((task.words(), format!("{error:#}"))),
            }
            let progress = Progress {
                done: finished.ran.rows.len(),
                of: tasks.len(),
                last: task.words(),
                left_s: finished.expected_s(&waiting) / means.jobs.max(1) as f64,
            };
            drop(finished);
            (means.watch)(&progress);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..means.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|why| panicked(&*why))?)
    })?;
    let mut ran = finished.into_inner().unwrap_or_else(PoisonError::into_inner).ran;
    ran.not_run = tasks.len() - ran.rows.len() - ran.failed.len();
    // In the plan's order, whoever was faster.
    let place =
        |row: &Row| tasks.iter().position(|t| t.study == row.study && t.variant == row.variant && t.seed == row.seed);
    ran.rows.sort_by_cached_key(place);
    Ok(ran)
}

impl<W> Task<W> {
    /// A row under this task's name: two studies may share what is run.
    fn named(&self, row: Row) -> Row {
        let (study, variant, config) = (self.study.clone(), self.variant.clone(), self.config.clone());
        Row { study, variant, seed: self.seed, config, ..row }
    }

    fn words(&self) -> String {
        format!("{} / {} / seed {}", self.study, self.variant, self.seed)
    }
}

impl Finished {
    fn keep(&mut self, row: Row) {
        let (sum, n) = self.host_s.entry(row.variant.clone()).or_default();
        (*sum, *n) = (*sum + row.host_s, *n + 1);
        self.ran.rows.push(row);
    }

    /// What rows of these variants will take: as long as their other seeds did, or else as long as a row does.
    fn expected_s(&self, variants: &[&str]) -> f64 {
        let (sum, n) = self.host_s.values().fold((0.0, 0), |(sum, n), (s, k)| (sum + s, n + k));
        let usual = sum / f64::from(n.max(1));
        variants.iter().map(|v| self.host_s.get(*v).map_or(usual, |(sum, n)| sum / f64::from(*n))).sum()
    }
}

fn panicked(why: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
    anyhow!("it panicked: {}", text.unwrap_or("no word why"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn tasks() -> Vec<Task<f64>> {
        let task = |seed: u64, loss: f64| Task {
            study: "one".into(),
            variant: format!("loss {loss}"),
            seed,
            config: super::super::cache::name(&loss, seed).unwrap(),
            work: loss,
        };
        (1..=3).flat_map(|seed| [1.0, 2.0].map(|loss| task(seed, loss))).collect()
    }

    fn means<'m>(
        goes_on: &'m (dyn Fn() -> bool + Sync),
        run: &'m (dyn Fn(&Task<f64>) -> Result<Row> + Sync),
    ) -> Means<'m, f64> {
        Means { jobs: 2, goes_on, run, watch: &|_| {} }
    }

    #[test]
    fn what_was_run_is_not_run_again_and_the_budget_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), []).unwrap();
        let ran = AtomicUsize::new(0);
        let row = |task: &Task<f64>| {
            ran.fetch_add(1, Ordering::SeqCst);
            Ok(Row { loss: Some(task.work), ..Row::default() })
        };
        // One job at a time, so that the budget ends it exactly.
        let for_four = || ran.load(Ordering::SeqCst) < 4;
        let first = Means { jobs: 1, ..means(&for_four, &row) };
        let first = run(&tasks(), &cache, &first).unwrap();
        assert_eq!((first.rows.len(), first.not_run), (4, 2));
        let second = run(&tasks(), &cache, &means(&|| true, &row)).unwrap();
        assert_eq!((second.rows.len(), second.not_run, ran.load(Ordering::SeqCst)), (6, 0, 6));
        // In the plan's order: seed by seed.
        let order: Vec<_> = second.rows.iter().map(|r| (r.seed, r.loss)).collect();
        assert_eq!(order, [(1, 1.0), (1, 2.0), (2, 1.0), (2, 2.0), (3, 1.0), (3, 2.0)].map(|(s, l)| (s, Some(l))));
    }

    #[test]
    fn a_row_that_fails_does_not_end_the_others_and_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), []).unwrap();
        let row = |task: &Task<f64>| match (task.seed, task.work) {
            (1, 1.0) => bail!("no such file"),
            (2, 1.0) => panic!("a broken promise"),
            _ => Ok(Row::default()),
        };
        let ran = run(&tasks(), &cache, &means(&|| true, &row)).unwrap();
        assert_eq!((ran.rows.len(), ran.failed.len(), ran.not_run), (4, 2, 0));
        let words = format!("{:?}", ran.failed);
        assert!(words.contains("no such file") && words.contains("a broken promise"), "{words}");
        assert!(cache.get(&tasks()[0].config).is_none());
    }
}
