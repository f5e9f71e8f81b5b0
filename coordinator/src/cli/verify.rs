//! `verify`: the ledger's invariants, its chain of checkpoints, and its replay from what is kept on.

use super::{Failure, opened::RunFolders, say};
use clap::Args;
use nightjar_coordinator::replay::{self, Check, Rows};
use nightjar_shared::ids::Version;

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
        match self.replayed(&mut checks).await {
            Ok(()) => {}
            Err(why) if checks[0].passed => return Err(why),
            Err(Failure::Input(why) | Failure::Midway(why)) => {
                say(&format!("FAILED nothing more can be checked: {why}"))
            }
            Err(Failure::Said) => {}
        }
        if checks.iter().all(|check| check.passed) { Ok(()) } else { Err(Failure::Said) }
    }

    async fn replayed(&self, checks: &mut Vec<Check>) -> Result<(), Failure> {
        let run = self.folders.open().await?;
        let mut add = |check: Check| {
            tell(&check);
            checks.push(check);
        };
        let mut rows = Rows::new(&run.spec, run.dataset.manifest());
        run.ledger.go_through(&mut |piece| rows.take(&piece)).await.map_err(Failure::midway)?;
        let set_aside = rows.set_aside();
        rows.checks().into_iter().for_each(&mut add);
        let sums = run.ledger.check_sums().await.map_err(Failure::midway)?;
        add(Check::of("what a start goes by is the sum of the rows", sums));
        run.ledger.close().await;
        self.of_blobs().await?.into_iter().for_each(&mut add);
        add(set_aside);
        Ok(())
    }

    async fn of_blobs(&self) -> Result<[Check; 4], Failure> {
        loop {
            // Anew: a file at rest is read as it was when it was opened.
            let run = self.folders.open().await?;
            // Before the rows: a link that is made meanwhile is one of rows that are not read.
            let links = run.ledger.links(Version(0), usize::MAX).await.map_err(Failure::midway)?;
            let lineage = run.ledger.lineage(Version(0)).await.map_err(Failure::midway)?;
            let checks = replay::verify_blobs(&run.spec, &lineage, &links, &run.blobs);
            // What a coordinator that serves has removed meanwhile, by the rule, is missing by no fault.
            let is_same = run.ledger.kept().await.map_err(Failure::midway)? == lineage.kept;
            run.ledger.close().await;
            if is_same || checks.iter().all(|check| check.passed) {
                return Ok(checks);
            }
        }
    }
}

fn tell(check: &Check) {
    say(&format!("{:<6} {}: {}", if check.passed { "ok" } else { "FAILED" }, check.name, check.detail));
}
