//! `serve`: the coordinator itself.

use super::{
    Failure,
    blobs::BlobsFlag,
    init, invite,
    ledger::LedgerFlag,
    log,
    places::Places,
    run_file,
    serve_file::Invited,
    signals::{self, Reread},
    traces::Delivery,
};
use clap::Args;
use nightjar_coordinator::{
    dataset::Dataset,
    engine,
    run_file::{Known, RunFile, on_dataset},
    server::{
        Say, Server, Setup,
        doors::{self, Began, Door, Pages},
        limits::Limit,
        machine::Machine,
        public::{self, PageFiles},
        state::{StateError, StateFolder},
        wishes,
    },
    store::DatabaseUrl,
};
use nightjar_shared::model_spec::ModelSpec;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

const EXAMPLES: &str = "\
Examples:
  nightjar-coordinator serve myrun
  nightjar-coordinator serve --run run.toml --data data --state state
  nightjar-coordinator serve --run run.toml --data data --state state --listen [::]:443
  nightjar-coordinator serve --run run.toml --data data --state state --init model
  nightjar-coordinator serve --run run.toml --data data --state state --ledger postgres://nightjar@db.lab/run
  nightjar-coordinator serve --run run.toml --data data --state state --blobs s3://nightjar/run

run.toml (name and token_budget are needed; the others show their defaults, and `nightjar-coordinator keys` explains
every key):
  name = \"my first run\"
  description = \"what this is for\" # volunteers read it, and who the operator is
  token_budget = 2000000

  [operator]
  name = \"the Evening School\"
  contact = \"https://school.example\"

  [model]                        # these keys of a Hugging Face config.json, all of them and no others
  vocab_size = 256
  hidden_size = 128
  intermediate_size = 344
  num_hidden_layers = 4
  num_attention_heads = 4
  num_key_value_heads = 4
  max_position_embeddings = 128  # the dataset's --context
  rope_theta = 10000.0
  rms_norm_eps = 1e-5
  tie_word_embeddings = true

  [inner]
  batch_samples = 4
  learning_rate = 2e-3

  [lease]
  pacing = \"rounds\"              # leases end together, so none is stale; free: each by itself
  wall_s = 60.0                  # how long a round, or a free lease, takes at most (ten times that over thin lines)
  wall_s_min = 5.0               # rounds are shorter, down to this, the more deltas agree
  ahead = true                   # devices train on while their deltas travel
  warm_tokens = 0                # so many are trained by anchor nodes alone, as long as there are any

  [delta]
  codec = \"blocks4\"              # or blocks8, blocks2, sparse2 (k of each 4096), f32
  feedback = 1.0                 # what rounding took is added to the next delta

  [merge]
  rule = \"mean\"                  # or nesterov, delayed_nesterov
  average = \"rda\"                # lengths and directions apart; mean: the default without rounds
  quorum = 1                     # deltas that make a version; without rounds 4
  grace_s = 5.0                  # latecomers are waited for so long; at most a sixth of wall_s, without rounds 0
  learning_rate = 1.0
  staleness = { rule = \"polynomial\", power = 0.5 }

  [publish]
  codec = \"blocks2\"              # or blocks4, blocks8
  keyframe_every = 64            # versions

Then let devices in:
  nightjar-coordinator invite --state state --address HOST:4433";

/// Serve a run to devices
///
/// Serves a run to devices until Ctrl-C or SIGTERM, which let uploads that are on their way end; once more stops at
/// once. All state is in the state folder: end it in any way and start the same command again, and the run goes on
/// where it was. Ready when it prints a line that starts with `ready:`.
///
/// What a run trains on and how is fixed once it has begun. In run.toml what people read may be changed, some limits,
/// and a larger token_budget: start it again, or send it SIGHUP to have the file read again. `nightjar-coordinator keys`
/// says of each key whether it may.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// The folder that `new` made: it says what the flags below do not
    #[arg(value_name = "RUN")]
    pub(super) folder: Option<PathBuf>,
    /// The run spec
    #[arg(long, value_name = "FILE", required_unless_present = "folder")]
    pub(super) run: Option<PathBuf>,
    /// The dataset, as `dataset prepare` wrote it
    #[arg(long, value_name = "DIR", required_unless_present = "folder")]
    pub(super) data: Option<PathBuf>,
    /// Where the run's state is kept; created for a new run
    #[arg(long, value_name = "DIR", required_unless_present = "folder")]
    pub(super) state: Option<PathBuf>,
    #[command(flatten)]
    pub(super) ledger: LedgerFlag,
    #[command(flatten)]
    pub(super) blobs: BlobsFlag,
    /// Where devices connect (UDP) [default: 0.0.0.0:4433]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<SocketAddr>,
    /// Let browsers take part, too: they connect to the same UDP port, by WebTransport
    #[arg(long)]
    pub(super) web: bool,
    /// Serve the page that makes a browser a device under /join/ of the public page: the folder that `cargo xtask web`
    /// wrote
    #[arg(long, value_name = "DIR", requires = "web")]
    web_page: Option<PathBuf>,
    /// Where the status page is (TCP, this machine only) [default: 127.0.0.1:8433]
    #[arg(long, value_name = "ADDR")]
    pub(super) http: Option<SocketAddr>,
    /// A name that the status page answers to, besides addresses and `localhost`: that of a proxy in front of it, say
    #[arg(long, value_name = "NAME")]
    http_name: Vec<String>,
    /// Let one device, one address or one invite take more or less, as in enrolments-per-address=500/100: so many at once,
    /// and so many an hour; `none` lifts a limit. docs/labs/admin-api.md lists all
    #[arg(long, value_name = "NAME=AT_ONCE/AN_HOUR")]
    limit: Vec<Limit>,
    /// Show strangers a page of the run there (TCP): what it trains, its progress, how to join; off unless it is given
    #[arg(long, value_name = "ADDR")]
    pub(super) public: Option<SocketAddr>,
    /// Start a new run from a model that `export` or `transformers` wrote, instead of random weights
    #[arg(long, value_name = "DIR")]
    pub(super) init: Option<PathBuf>,
    /// Look whether all this can be served, say what is wrong, and stop: nothing is started, and nothing written
    #[arg(long)]
    check: bool,
}

/// Shards that are named, of those that are not as they should be.
const UNFIT_NAMED: usize = 3;

/// What is to be said of shards that are not as they should be.
pub(super) fn unfit(dataset: &Dataset) -> Option<String> {
    let unfit = dataset.unfit();
    if unfit.is_empty() {
        return None;
    }
    let (named, more) = (unfit[..unfit.len().min(UNFIT_NAMED)].join("; "), unfit.len().saturating_sub(UNFIT_NAMED));
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    Some(format!(
        "the dataset is not whole: {named}{more}. What needs them waits or is passed over; put them back, or run the same \
         `dataset prepare` again, which makes them anew"
    ))
}

/// What is to be said of a model that run.toml leaves open.
fn taken(model: &ModelSpec) -> String {
    format!(
        "run.toml leaves [model] open, so it is as the data and the start have it: {} layers of {}, a vocabulary of {} and a \
         context of {} tokens",
        model.num_hidden_layers, model.hidden_size, model.vocab_size, model.max_position_embeddings
    )
}

impl Serve {
    pub async fn run(self, format: log::Format) -> Result<(), Failure> {
        let places = Places::of(&self)?;
        if self.check {
            return places.look(&self.ledger).await;
        }
        let say: Say = Arc::new(move |line: &str| log::say(format, line));
        let known = places.known(&self.ledger).await;
        let RunFile { spec, mut notes } = run_file::read(&places.run, &known)?;
        if known != Known::default() {
            notes.push(taken(&spec.model));
        }
        let is_new = !StateFolder::has_ledger(&places.state);
        Machine::look(&places.state).can_serve(&spec, is_new).map_err(Failure::input)?;
        let dataset = Dataset::open(&places.data).map_err(Failure::input)?;
        engine::check(&spec, dataset.manifest()).map_err(Failure::input)?;
        notes.extend(on_dataset(&spec, dataset.manifest()));
        notes.extend(unfit(&dataset));
        // A run that has begun has its weights; the folder may be gone by now.
        let ledger = self.ledger.database()?;
        let init = match &places.init {
            Some(folder) if !StateFolder::has_begun(&places.state, ledger.as_ref()).await => Some(folder),
            _ => None,
        };
        let is_init_told = init.is_some() || self.init.is_some();
        let start = init.map(|folder| run_file::read_start(folder, &spec.model)).transpose()?;
        let unknown = init.map(|folder| init::check_tokenizer(folder, &dataset)).transpose()?.flatten();
        let start = start.map(|start| {
            notes.extend(start.notes);
            start.model
        });
        let rounded = start.as_ref().and_then(|start| init::rounding(&spec.model, &start.weights));
        let (name, parameters, manifest) = (spec.name.clone(), spec.model.parameters(), dataset.manifest());
        let data = format!("{} samples in {} shards", manifest.train_samples(), manifest.train.len());
        let traces = Delivery::begin(&spec.name)?;
        let track = places.track(&spec.track);
        let setup = Setup {
            spec,
            dataset,
            state: places.state.clone(),
            ledger: ledger.clone(),
            blobs: self.blobs.bucket()?,
            listen: places.listen,
            web: self.web,
            page: self.web_page.as_deref().map(PageFiles::open).transpose().map_err(Failure::input)?.map(Arc::new),
            http: places.http,
            start,
            say: say.clone(),
            limits: self.limit,
            spans: traces.spans(),
            track,
        };
        if self.web_page.is_some() && places.public.is_none() {
            return Err(Failure::input(
                "--web-page is served with the public page: name its address with --public, too",
            ));
        }
        let public = places.public.map(public::listen).transpose().map_err(Failure::input)?;
        // From here on a signal stops it in order.
        let (wish, mut wishes) = wishes();
        let known = Known::of_model(&setup.spec.model);
        let reread = Reread { file: places.run, known, dataset: setup.dataset.clone(), say: say.clone() };
        signals::hear(wish, reread).map_err(Failure::midway)?;
        let strangers = public.as_ref().map(|listener| listener.local_addr()).transpose().map_err(Failure::midway)?;
        let introduced = Introduced {
            name,
            parameters,
            data,
            state: places.state,
            notes,
            of_init: is_init_told.then(|| unknown.into_iter().chain(rounded).collect()),
            strangers,
            invites: places.invites,
            say: say.clone(),
        };
        let pages = Pages { names: self.http_name, public };
        if let Some(url) = shared(&setup).map_err(Failure::input)? {
            let tell = |began: Began<'_>| match began {
                Began::Leads(server) => introduced.server(server),
                Began::Door(door) => introduced.door(door),
            };
            doors::processes::serve(setup, pages, url, tell, &mut wishes).await.map_err(Failure::midway)?;
        } else {
            let server = tokio::select! {
                server = Server::open(setup) => pages.of(server.map_err(Failure::input)?),
                () = wishes.end() => {
                    say("stopped before it was ready: the same command begins again");
                    return Ok(());
                }
            };
            let ready = introduced.server(&server);
            if server.is_new() {
                introduced.invite(ledger.as_ref()).await;
            }
            server.run(ready, &mut wishes).await.map_err(Failure::midway)?;
        }
        say("stopped: everything is stored; the same command goes on from here");
        Ok(())
    }
}

/// What the person at the terminal is told once a process serves.
struct Introduced {
    name: String,
    parameters: usize,
    data: String,
    state: PathBuf,
    notes: Vec<String>,
    /// What is to be said of the model that `--init` names.
    of_init: Option<Vec<String>>,
    /// Where they are shown the run.
    strangers: Option<SocketAddr>,
    /// What a first start prints.
    invites: Vec<Invited>,
    say: Say,
}

impl Introduced {
    /// Gives the line that says that it is ready.
    fn server(&self, server: &Server) -> String {
        let say = &self.say;
        say(&format!("run       {}{}", self.name, if server.is_new() { "" } else { ", taken up again" }));
        say(&format!("model     {:.2} M parameters", self.parameters as f64 / 1e6));
        say(&format!("data      {}", self.data));
        say(&format!("key       {}", server.fingerprint()));
        let ready = self.addresses(server.address(), server.http_address());
        self.strangers.iter().for_each(|at| say(&format!("public    http://{at}/")));
        self.notes.iter().chain(server.changes()).for_each(|note| say(&format!("note      {note}")));
        match &self.of_init {
            Some(_) if !server.is_new() => say("note      the run has begun already, so --init is not used"),
            notes => notes.iter().flatten().for_each(|note| say(&format!("note      {note}"))),
        }
        ready
    }

    /// Prints the invites that the run's folder asks for. Whatever becomes of them, the run is served.
    async fn invite(&self, ledger: Option<&DatabaseUrl>) {
        for invited in &self.invites {
            match invite::link(&self.state, ledger, &invited.terms()).await {
                Ok(link) => (self.say)(&format!("invite    {}: {link}", invited.words())),
                Err(failure) => (self.say)(&format!("note      no invite was made: {}", failure.why())),
            }
        }
    }

    fn door(&self, door: &Door) -> String {
        (self.say)(&format!("run       {}, led by another process: this one is a door", self.name));
        self.addresses(door.address(), door.http_address())
    }

    fn addresses(&self, devices: std::io::Result<SocketAddr>, page: std::io::Result<SocketAddr>) -> String {
        let say = &self.say;
        // A socket that is bound has an address.
        let (Ok(devices), Ok(page)) = (devices, page) else { return "ready".to_owned() };
        let reached = self.invites.first().map(|invited| invited.address.iter().map(ToString::to_string).collect());
        let reached: Vec<String> = reached.unwrap_or_else(|| vec![format!("HOST:{}", devices.port())]);
        say(&format!("devices   {devices} (UDP); invite them with:"));
        say(&format!(
            "          nightjar-coordinator invite --state {} --address {}",
            self.state.display(),
            reached.join(" ")
        ));
        say(&format!("page      http://{page}/"));
        format!("ready: {devices}")
    }
}

/// The database that says who leads, where a run's state is in places that several processes can reach.
fn shared(setup: &Setup) -> Result<Option<DatabaseUrl>, StateError> {
    let blobs = setup.blobs.is_some() || StateFolder::has_bucket(&setup.state);
    let ledger = StateFolder::place(&setup.state, setup.ledger.as_ref())?;
    Ok(ledger.database().filter(|_| blobs).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::run_spec::RunSpec;

    #[test]
    fn the_example_in_the_help_shows_the_defaults() {
        let (_, after) = EXAMPLES.split_once("every key):\n").unwrap();
        let (example, _) = after.split_once("Then let devices in").unwrap();
        let RunFile { spec, notes } = nightjar_coordinator::run_file::parse(example.as_bytes()).unwrap();
        assert_eq!(notes, [""; 0]);
        let mut said = RunSpec::new(&spec.name, spec.token_budget);
        (said.description, said.operator) = (spec.description.clone(), spec.operator.clone());
        assert_eq!(said.changed_to(&spec), Ok(vec![]));
    }
}
