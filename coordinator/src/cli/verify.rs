//! `verify`: the ledger's invariants, its chain of checkpoints, and its replay from what is kept on.

use super::{Failure, opened::RunFolders, say};
use clap::Args;
use nightjar_coordinator::replay::{self, Check, Report};

/// Prove from the ledger that nothing was lost, merged twice, or changed
///
/// Goes through the ledger again, checks that no acknowledged delta was lost or merged twice and that every sample is
/// accounted for, and compares every version bit for bit: from version 0 on, or where the rule [keep] has removed deltas,
/// from the oldest checkpoint that is kept. What is before it is proved by the chain of checkpoints, whose last link it
/// prints: note that elsewhere, and nobody can change an old row unnoticed. Prints a line for each check; the exit code is
/// 0 if all hold and 1 if one does not. A run that is being served can be verified too.
#[derive(Args)]
#[command(after_help = "Example:\n  nightjar-coordinator verify --state state --data data")]
pub struct Verify {
    #[command(flatten)]
    folders: RunFolders,
}

impl Verify {
    pub async fn run(self) -> Result<(), Failure> {
        let mut checks = vec![self.folders.check_ledger().await?];
        tell(&checks[0]);
        // A damaged ledger may still be read, in part or as a whole.
        match self.replayed().await {
            Ok(report) => {
                report.checks.iter().for_each(tell);
                checks.extend(report.checks);
            }
            Err(why) if checks[0].passed => return Err(why),
            Err(Failure::Input(why) | Failure::Midway(why)) => {
                say(&format!("FAILED nothing more can be checked: {why}"))
            }
            Err(Failure::Said) => {}
        }
        if checks.iter().all(|check| check.passed) { Ok(()) } else { Err(Failure::Said) }
    }

    async fn replayed(&self) -> Result<Report, Failure> {
        let mut run = self.folders.open().await?;
        loop {
            let report = replay::verify(&run.spec, run.dataset.manifest(), &run.facts, &run.blobs);
            let kept = run.facts.lineage.kept;
            // What a coordinator that serves has removed meanwhile, by the rule, is missing by no fault.
            if report.passed() {
                return Ok(report);
            }
            run = self.folders.open().await?;
            if run.facts.lineage.kept == kept {
                return Ok(report);
            }
        }
    }
}

fn tell(check: &Check) {
    say(&format!("{:<6} {}: {}", if check.passed { "ok" } else { "FAILED" }, check.name, check.detail));
}
