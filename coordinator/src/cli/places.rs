//! Where what `serve` needs is: as its flags say, else as the folder of the run does.

use super::{
    Failure,
    ledger::LedgerFlag,
    run_file,
    serve::Serve,
    serve_file::{Invited, RUN_FILE, STATE_FOLDER, ServeFile},
};
use nightjar_coordinator::{
    dataset::Dataset,
    run_file::Known,
    server::{state::StateFolder, track},
};
use nightjar_shared::{
    model_folder::ModelFolder,
    model_spec::ModelSpec,
    run_spec::{RunSpec, TrackSpec},
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where devices connect.
const LISTEN: ([u8; 4], u16) = ([0, 0, 0, 0], 4433);
/// Where the dashboard is.
const HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 8433);

/// See the module.
#[derive(Debug, PartialEq)]
pub struct Places {
    /// The run file.
    pub run: PathBuf,
    /// The dataset.
    pub data: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// The model that a new run starts from.
    pub init: Option<PathBuf>,
    /// Where devices connect.
    pub listen: SocketAddr,
    /// Where the dashboard is.
    pub http: SocketAddr,
    /// Where strangers see the run.
    pub public: Option<SocketAddr>,
    /// Invites that the first start prints.
    pub invites: Vec<Invited>,
}

impl Places {
    /// Those of a command line. Without a folder, it names what must be there.
    pub fn of(serve: &Serve) -> Result<Self, Failure> {
        let folder = serve.folder.as_deref();
        let mut places = folder.map_or_else(|| Ok(Self::said(Path::new(""), ServeFile::default())), Self::of_folder)?;
        for (given, place) in
            [(&serve.run, &mut places.run), (&serve.data, &mut places.data), (&serve.state, &mut places.state)]
        {
            given.iter().for_each(|given| place.clone_from(given));
        }
        places.init = serve.init.clone().or(places.init);
        places.listen = serve.listen.unwrap_or(places.listen);
        places.http = serve.http.unwrap_or(places.http);
        places.public = serve.public.or(places.public);
        Ok(places)
    }

    /// Those of a run in a folder that `new` made.
    pub fn of_folder(folder: &Path) -> Result<Self, Failure> {
        Ok(Self::said(folder, ServeFile::read(folder)?))
    }

    /// Where it is written down how the run goes: beside the run file, where that does not say otherwise.
    pub fn track(&self, spec: &TrackSpec) -> track::Places {
        let beside = self.run.parent().unwrap_or(Path::new(""));
        let place = |path: &Option<String>| path.as_ref().map(|path| beside.join(path));
        track::Places { tensorboard: place(&spec.tensorboard), csv: place(&spec.csv) }
    }

    /// What is known of the model where the run file leaves it open: a run that has begun has one, else the start does,
    /// else the data says the least. What cannot be read is told by whoever needs it.
    pub async fn known(&self, ledger: &LedgerFlag) -> Known {
        if !run_file::wants_to_know(&self.run) {
            return Known::default();
        }
        let Ok(dataset) = Dataset::open(&self.data) else { return Known::default() };
        if let Some(model) = self.model_of_run(ledger).await {
            return Known::of_model(&model);
        }
        let start = self.init.as_deref().and_then(|folder| ModelFolder::open(folder).ok());
        start.map_or_else(
            || Known::of_data(dataset.manifest()),
            |start| Known::of_start(start.spec(), dataset.manifest()),
        )
    }

    /// The model of the run that the state folder has.
    async fn model_of_run(&self, ledger: &LedgerFlag) -> Option<ModelSpec> {
        let place = StateFolder::place(&self.state, ledger.database().ok()?.as_ref()).ok()?;
        if place.database().is_none() && !StateFolder::has_ledger(&self.state) {
            return None;
        }
        let opened = place.open_to_read().await.ok()?;
        opened.ledger.close().await;
        serde_json::from_str::<RunSpec>(&opened.identity.spec_json).ok().map(|spec| spec.model)
    }

    fn said(folder: &Path, said: ServeFile) -> Self {
        Places {
            run: folder.join(RUN_FILE),
            data: said.data,
            state: folder.join(STATE_FOLDER),
            init: said.init,
            listen: said.listen.unwrap_or_else(|| LISTEN.into()),
            http: said.http.unwrap_or_else(|| HTTP.into()),
            public: said.public,
            invites: said.invite,
        }
    }
}
