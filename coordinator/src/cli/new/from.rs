//! A run that begins where another was: from one of its versions, with its data and settings. The other run stays as it
//! is: its ledger names every delta of every version, and taking versions back would make that untrue.

use super::Material;
use crate::cli::{Failure, export, opened::RunFolders, places::Places, say};
use nightjar_coordinator::export::{Companions, Form};
use nightjar_shared::run_spec::RunSpec;
use std::{fs, path::Path};

/// See the module.
pub struct Earlier<'a> {
    /// The other run's folder.
    pub run: &'a Path,
    /// The newest where it is `None`.
    pub version: Option<u64>,
}

impl Earlier<'_> {
    /// Writes the version into a folder, for the new run to start from.
    pub async fn material(&self, start: &Path) -> Result<Material, Failure> {
        let places = Places::of_folder(self.run)?;
        let run = RunFolders::of(places.state, places.data).open().await?;
        fs::create_dir_all(start.parent().unwrap_or(start))
            .map_err(|error| Failure::input(format!("{}: {error}", start.display())))?;
        let wanted = export::Wanted { version: self.version, ..export::Wanted::default() };
        let companions = Companions::kept(run.state.folder()).map_err(Failure::input)?;
        let version = export::write(&run, start, &wanted, companions, Form::default(), None).await?.last();
        say(&format!(
            "start     version {version} of {}; the schedule of the learning rate and all counts begin anew",
            self.run.display()
        ));
        let spec = RunSpec { name: String::new(), ..run.spec };
        Ok(Material { spec, dataset: run.dataset, init: Some(start.to_owned()) })
    }
}
