//! `serve --check`: whether a run can be served, looked at without starting or writing anything.

use super::{Failure, init, ledger::LedgerFlag, places::Places, run_file, say, serve::unfit};
use nightjar_coordinator::{
    dataset::Dataset,
    engine,
    run_file::{Known, RunFile, on_dataset},
    server::{self, Found, machine::Machine, run_identity, state::StateFolder},
    store::{LedgerError, OpenLedger, look::Depth},
};
use nightjar_shared::{disk::FolderDisk, run_spec::RunSpec};
use std::fmt::Display;

/// What was found.
#[derive(Default)]
struct Findings {
    faults: usize,
}

impl Findings {
    fn good(&self, what: impl Display) {
        say(&format!("ok        {what}"));
    }

    fn note(&self, what: impl Display) {
        say(&format!("note      {what}"));
    }

    fn fault(&mut self, why: impl Display) {
        self.faults += 1;
        eprintln!("error: {why}");
    }

    /// The value; where there is none, the reason is a fault.
    fn take<T>(&mut self, outcome: Result<T, impl Display>) -> Option<T> {
        outcome.map_err(|why| self.fault(why)).ok()
    }
}

impl Places {
    /// Looks at all that a start needs.
    pub(super) async fn look(&self, ledger: &LedgerFlag) -> Result<(), Failure> {
        let mut found = Findings::default();
        let spec = self.look_at_run_file(&self.known(ledger).await, &mut found);
        let dataset = self.look_at_dataset(spec.as_ref(), &mut found);
        let state = self.look_at_state(&mut found);
        self.look_at_ledger(ledger, state, spec.as_ref(), dataset.as_ref(), &mut found).await;
        if StateFolder::is_taken(&self.state) {
            found.note("a coordinator is running on this state folder, so its addresses are taken");
        } else {
            for outcome in server::addresses(self.listen, self.http) {
                if let Some(address) = found.take(outcome) {
                    found.good(format!("address   {address} is free"));
                }
            }
        }
        match found.faults {
            0 => Ok(()),
            1 => Err(Failure::input("one thing is to be mended before this run can be served; nothing was changed")),
            n => Err(Failure::input(format!(
                "{n} things are to be mended before this run can be served; nothing was changed"
            ))),
        }
    }

    fn look_at_run_file(&self, known: &Known, found: &mut Findings) -> Option<RunSpec> {
        match run_file::read_whole(&self.run, known) {
            Ok(RunFile { spec, notes }) => {
                found.good(format!("run file  {}", self.run.display()));
                notes.iter().for_each(|note| found.note(note));
                let is_new = !StateFolder::has_ledger(&self.state);
                found.take(Machine::look(&self.state).can_serve(&spec, is_new));
                Some(spec)
            }
            Err(faults) => {
                faults.iter().for_each(|fault| found.fault(fault));
                None
            }
        }
    }

    fn look_at_dataset(&self, spec: Option<&RunSpec>, found: &mut Findings) -> Option<Dataset> {
        let dataset = found.take(Dataset::open(&self.data))?;
        unfit(&dataset).iter().for_each(|note| found.note(note));
        if let Some(spec) = spec {
            found.take(engine::check(spec, dataset.manifest()))?;
            on_dataset(spec, dataset.manifest()).iter().for_each(|note| found.note(note));
        }
        found.good(format!("dataset   {}", self.data.display()));
        Some(dataset)
    }

    fn look_at_state(&self, found: &mut Findings) -> Option<Found> {
        let state = found.take(StateFolder::look(&self.state))?;
        match state {
            Found::New => found.good(format!("state     {} is for a new run", self.state.display())),
            Found::Run => found.good(format!("state     {} holds a run", self.state.display())),
        }
        Some(state)
    }

    /// The ledger that is there: whether it is whole, of this run, and takes over what the run file has otherwise.
    async fn look_at_ledger(
        &self,
        ledger: &LedgerFlag,
        state: Option<Found>,
        spec: Option<&RunSpec>,
        dataset: Option<&Dataset>,
        found: &mut Findings,
    ) {
        let Some(given) = found.take(ledger.database().map_err(Failure::why)) else { return };
        let Some(place) = found.take(StateFolder::place(&self.state, given.as_ref())) else { return };
        let is_new = place.database().is_none() && !StateFolder::has_ledger(&self.state);
        let looked = if is_new { None } else { found.take(place.look().await) };
        let has_run = looked.as_ref().is_some_and(|look| look.has_run);
        if looked.is_some() {
            found.good(format!("ledger    {place} can be reached"));
        }
        if let Some(folder) = self.init.as_ref().filter(|_| looked.as_ref().is_none_or(|look| look.versions == 0)) {
            if let Some(spec) = spec {
                found.take(run_file::read_start(folder, &spec.model).map_err(Failure::why));
            }
            if let Some(dataset) = dataset {
                found.take(init::check_tokenizer(folder, dataset).map_err(Failure::why));
            }
        }
        if !has_run {
            return;
        }
        if state == Some(Found::New) {
            return found.fault(LedgerError::Taken(place.to_string()));
        }
        if let Some(key) = FolderDisk::open(&self.state).ok().and_then(|disk| server::key_of(&disk))
            && let Some(known) = looked.and_then(|look| look.key).filter(|known| *known != key.0)
        {
            found.fault(LedgerError::OtherKey(nightjar_shared::ids::DeviceId(known).short()));
        }
        found.take(place.check(Depth::Quick).await);
        let Some(OpenLedger { ledger, identity, .. }) = found.take(place.open_to_read().await) else { return };
        ledger.close().await;
        if let (Some(spec), Some(dataset)) = (spec, dataset) {
            if run_identity(spec, dataset.manifest()).manifest_hash != identity.manifest_hash {
                found.fault(LedgerError::OtherData);
            }
            let stored = serde_json::from_str::<RunSpec>(&identity.spec_json).map_err(|error| error.to_string());
            let changes = stored.and_then(|stored| stored.changed_to(spec).map_err(|fixed| fixed.to_string()));
            match changes {
                Ok(changes) => changes.iter().for_each(|change| found.note(format!("{change}"))),
                Err(why) => found.fault(LedgerError::OtherSpec(why)),
            }
        }
    }
}
