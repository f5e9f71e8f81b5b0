//! `study`: runs what is missing of docs/study.json, within a budget, and writes docs/study.md.

use super::bar;
use anyhow::{Result, ensure};
use nightjar_sim::study::{
    Row, Study,
    cache::Cache,
    document, plan,
    runner::{self, Means, Progress, Task},
    texts::Texts,
    work::Work,
};
use std::{io::IsTerminal, path::PathBuf, time::Instant};

/// Which rows, and how much they may take.
#[derive(clap::Args)]
pub struct Options {
    /// Most CPU hours to take; rows that are known cost nothing.
    #[arg(long, default_value_t = 1.0)]
    budget: f64,
    /// Only these studies.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds of every variant.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Rows at a time, one thread each.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The folder with the texts: train.txt, valid.txt, ood.txt, and for some studies ood_latin.txt and public-domain/.
    #[arg(long, env = "NIGHTJAR_TEXTS", default_value = "../shared/data")]
    data: PathBuf,
    /// Where rows are kept.
    #[arg(long, default_value = "target/study")]
    cache: PathBuf,
    /// Where study.md, study.json and the plots go.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Runs rows even if study.json or the cache has them.
    #[arg(long)]
    fresh: bool,
    /// Only writes study.md again, from study.json.
    #[arg(long)]
    render: bool,
    /// Only lists studies and variants, with what each still lacks.
    #[arg(long)]
    list: bool,
}

/// Runs and writes.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.budget.is_finite() && options.budget >= 0.0, "--budget takes CPU hours");
    ensure!(options.seeds > 0, "--seeds takes a number above 0");
    let studies = plan::studies();
    let keys: Vec<&str> = studies.iter().map(|study| study.key).collect();
    for key in &options.only {
        ensure!(keys.contains(&key.as_str()), "there is no study {key}; there are {}", keys.join(", "));
    }
    let known = document::read_json(&options.docs)?;
    if options.render {
        let rows: Vec<Row> = known.into_iter().filter(|row| is_planned(&studies, row)).collect();
        return document::write(&options.docs, &studies, &rows, options.seeds);
    }
    let texts = Texts::new(options.data.clone());
    let cache = Cache::open(options.cache.clone(), if options.fresh { vec![] } else { known.clone() })?;
    let asked = |study: &Study| options.only.is_empty() || options.only.iter().any(|key| key == study.key);
    let tasks = tasks(&studies, options.seeds, &texts, &asked)?;
    if options.list {
        list(&studies, &tasks, &cache);
        return Ok(());
    }
    let cache = if options.fresh { Cache::open(fresh_folder(options), [])? } else { cache };
    let ran = carry_out(options, &tasks, &cache, &texts)?;
    for (row, why) in &ran.failed {
        eprintln!("failed: {row}: {why}");
    }
    // Rows of studies that were not asked for stay as they are, as long as the plan has them.
    let mut rows: Vec<Row> =
        known.into_iter().filter(|row| !studies.iter().any(|s| asked(s) && s.key == row.study)).collect();
    rows.retain(|row| is_planned(&studies, row));
    rows.extend(ran.rows);
    rows.sort_by_cached_key(|row| place(&studies, row));
    document::write_json(&options.docs, &rows)?;
    // What is read back is what anyone else will render from.
    document::write(&options.docs, &studies, &document::read_json(&options.docs)?, options.seeds)?;
    println!(
        "{} rows, {} not run, {} failed: {}",
        rows.len(),
        ran.not_run,
        ran.failed.len(),
        options.docs.join("study.md").display()
    );
    ensure!(ran.failed.is_empty(), "{} rows failed; see above", ran.failed.len());
    Ok(())
}

/// A folder of its own a fresh start, so that it too can be broken off and nothing old is found.
fn fresh_folder(options: &Options) -> PathBuf {
    options.cache.join(format!("fresh-{}", std::process::id()))
}

fn carry_out(options: &Options, tasks: &[Task<Work>], cache: &Cache, texts: &Texts) -> Result<runner::Ran> {
    let (since, began) = (Instant::now(), cpu_s(Instant::now(), 0.0));
    let bar = bar(tasks.len() as u64);
    bar.set_message("rows");
    let means = Means {
        jobs: options.jobs,
        goes_on: &|| (cpu_s(since, options.jobs as f64) - began) / 3600.0 < options.budget,
        run: &|task: &Task<Work>| task.work.run(task.seed, texts),
        watch: &|progress: &Progress| {
            let minutes = progress.left_s / 60.0;
            bar.set_position(progress.done as u64);
            bar.set_message(format!(
                "{} of {} rows, about {minutes:.0} min left; {}",
                progress.done, progress.of, progress.last
            ));
            if !std::io::stderr().is_terminal() {
                eprintln!("{} of {} rows, about {minutes:.0} min left: {}", progress.done, progress.of, progress.last);
            }
        },
    };
    let ran = runner::run(tasks, cache, &means)?;
    bar.finish_and_clear();
    println!("{:.2} CPU hours taken", (cpu_s(since, options.jobs as f64) - began) / 3600.0);
    Ok(ran)
}

/// All rows that are asked for: seed by seed, so that every variant has its first before any has its second.
fn tasks(studies: &[Study], seeds: u64, texts: &Texts, asked: &dyn Fn(&Study) -> bool) -> Result<Vec<Task<Work>>> {
    let mut tasks = vec![];
    for seed in 1..=seeds {
        for study in studies.iter().filter(|study| asked(study)) {
            for variant in study.variants.iter().filter(|v| seed <= v.seeds_of(seeds)) {
                tasks.push(Task {
                    study: study.key.into(),
                    variant: variant.name.clone(),
                    seed,
                    config: variant.work.name(seed, texts)?,
                    work: variant.work.clone(),
                });
            }
        }
    }
    Ok(tasks)
}

fn list(studies: &[Study], tasks: &[Task<Work>], cache: &Cache) {
    for study in studies {
        for variant in &study.variants {
            let of: Vec<_> = tasks.iter().filter(|t| t.study == study.key && t.variant == variant.name).collect();
            if of.is_empty() {
                continue;
            }
            let there: Vec<Row> = of.iter().filter_map(|task| cache.get(&task.config)).collect();
            let host_s = there.iter().fold(0.0, |sum, row| sum + row.host_s);
            println!("{:<8} {:<44} {} of {} seeds, {host_s:.0} s", study.key, variant.name, there.len(), of.len());
        }
    }
}

fn place(studies: &[Study], row: &Row) -> Option<(usize, usize, u64)> {
    let study = studies.iter().position(|study| study.key == row.study)?;
    let variant = studies[study].variants.iter().position(|variant| variant.name == row.variant)?;
    Some((study, variant, row.seed))
}

fn is_planned(studies: &[Study], row: &Row) -> bool {
    place(studies, row).is_some()
}

/// CPU seconds of this process; where the system does not tell, time by the clock on every job.
fn cpu_s(since: Instant, jobs: f64) -> f64 {
    #[cfg(target_os = "linux")]
    {
        let _ = (since, jobs);
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
    }
    #[cfg(not(target_os = "linux"))]
    {
        since.elapsed().as_secs_f64() * jobs
    }
}
