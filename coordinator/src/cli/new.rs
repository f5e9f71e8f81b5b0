//! `new`: a run from nothing. It prepares the data, chooses the model's shape, writes a run.toml that explains itself,
//! and says what the run will cost before anything starts.

mod ask;
mod bill;
mod from;
mod shape;

use super::{
    Failure,
    dataset::{Prepare, failure},
    invite::InvitedRole,
    say,
    serve_file::{Invited, RUN_FILE, SERVE_FILE, STATE_FOLDER, ServeFile},
};
use ask::Asker;
use clap::{Args, Parser};
use from::Earlier;
use nightjar_coordinator::{
    cost::{self, Cost},
    dataset::{self, Dataset, Notes},
    engine,
    run_file::commented,
    server::issue::{DAYS_MAX, Reachable},
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    mark::{self, EntryKind},
    model_spec::Size,
    run_spec::{OperatorSpec, RunSpec},
};
use shape::Shape;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The dataset in the folder of a run.
const DATA: &str = "data";
/// The weights of another run's version, there too.
const START: &str = "start";

/// Make a run: from a folder of text to one command that serves it
///
/// Makes a folder with all that a run needs: the dataset, a run.toml that explains every key where it stands, and what
/// `serve RUN` starts with. It looks at the data first, and says what the run will cost before anything starts. On a
/// terminal it asks for what no flag says; elsewhere it never waits for an answer. Nothing is overwritten.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator new myrun --data texts/ --model 10M --address my.host.org:4433
  nightjar-coordinator new myrun --data wiki.parquet --model 125M --tokenizer bpe:16384 -- --column body
  nightjar-coordinator new myrun --data texts/ --model SmolLM-135M/ --context 512 --tokens 2B
  nightjar-coordinator new again --from myrun --version 40

Then:
  nightjar-coordinator serve myrun")]
pub struct New {
    /// The folder to make
    #[arg(value_name = "RUN")]
    folder: PathBuf,
    /// The text: files and folders as `dataset prepare` takes them, or a dataset that it has made
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// The model: a size (1M, 3M, 10M, 30M, 125M, 350M, 1B), a config.json, or a Hugging Face folder to start from
    #[arg(long, value_name = "SIZE|PATH")]
    model: Option<String>,
    /// Tokens to train on in all, as in 500M or 2B [default: 20 a parameter]
    #[arg(long, value_name = "N", value_parser = ask::tokens)]
    tokens: Option<u64>,
    /// Tokens that the model sees at once [default: what goes with the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    context: Option<u32>,
    /// As `dataset prepare` takes it: bytes, bpe:SIZE, or a tokenizer.json [default: what goes with the model]
    #[arg(long, value_name = "TOKENIZER")]
    tokenizer: Option<String>,
    /// The run's name, which volunteers see [default: the folder's]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What the project is, in a sentence or two, for volunteers
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Who runs it, for volunteers
    #[arg(long, value_name = "TEXT")]
    operator: Option<String>,
    /// Where volunteers can turn: a web page or an e-mail address
    #[arg(long, value_name = "TEXT", requires = "operator")]
    contact: Option<String>,
    /// Where devices reach this computer: invites for there are printed at the first start
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_parser = Reachable::parse)]
    address: Vec<Reachable>,
    /// Invites for volunteers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    invites: u32,
    /// Invites for anchor nodes, which are your own: they measure the loss
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    anchors: u32,
    /// Days until nobody can join with these invites any more [default: they never end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
    days: Option<u64>,
    /// Devices that may join with each of the volunteers' invites [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    devices: Option<u64>,
    /// Show strangers a page of the run there (TCP), as in 0.0.0.0:8080
    #[arg(long, value_name = "ADDR")]
    public: Option<SocketAddr>,
    /// Begin from a version of another run that `new` made, with its data and settings
    #[arg(long, value_name = "RUN", conflicts_with_all = ["data", "model", "context", "tokenizer"])]
    from: Option<PathBuf>,
    /// Which version [default: the newest]
    #[arg(long, value_name = "N", requires = "from")]
    version: Option<u64>,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    /// What else `dataset prepare` takes, as in -- --column body --include '*.txt'
    #[arg(last = true, value_name = "FLAGS", conflicts_with = "from")]
    prepare: Vec<String>,
}

/// `dataset prepare` by itself, to read its flags.
#[derive(Parser)]
struct Preparation {
    #[command(flatten)]
    prepare: Prepare,
}

/// What a run begins with: its data, and where its weights are from.
struct Material {
    spec: RunSpec,
    dataset: Dataset,
    init: Option<PathBuf>,
}

impl New {
    pub async fn run(mut self) -> Result<(), Failure> {
        refuse_taken(&self.folder)?;
        let mut asker = if self.yes { None } else { Asker::of_terminal() };
        let material = match &self.from {
            Some(from) => Earlier { run: from, version: self.version }.material(&self.folder.join(START)).await?,
            None => {
                let shape = self.choose(asker.as_mut())?;
                self.material(&shape)?
            }
        };
        if let Some(asker) = &mut asker {
            self.ask_who(asker)?;
        }
        let (spec, manifest) = (self.spec(material.spec)?, material.dataset.manifest());
        engine::check(&spec, manifest).map_err(Failure::input)?;
        bill::lines(&Cost::of(&spec), &spec, manifest).iter().for_each(|line| say(line));
        if let Some(asker) = &mut asker
            && !asker.yes("Make this run?")?
        {
            return Err(Failure::input("no run was made; the data that was prepared is kept for the next try"));
        }
        self.write(&spec, material.dataset.folder(), material.init)?;
        self.next_steps().iter().for_each(|line| say(line));
        Ok(())
    }

    /// Data and model: what the flags leave open is asked, and refused where nobody can be asked.
    fn choose(&mut self, mut asker: Option<&mut Asker>) -> Result<Shape, Failure> {
        if self.data.is_empty() {
            let asker = asker.as_mut().ok_or_else(|| {
                Failure::input("name the text with --data: a file, a folder, or a dataset that `dataset prepare` made")
            })?;
            let path = asker.ask("Where is the text? A file, a folder, or a prepared dataset", None, |text| {
                let path = PathBuf::from(text);
                if path.exists() || text.contains("://") || text.contains('*') {
                    Ok(path)
                } else {
                    Err(format!("there is no {text}"))
                }
            })?;
            self.data.push(path);
        }
        let shape = match (&self.model, asker.as_mut()) {
            (Some(model), _) => Shape::parse(model).map_err(Failure::input)?,
            (None, None) => {
                let sizes = Size::names();
                return Err(Failure::input(format!(
                    "name the model with --model: a size ({sizes}), a config.json, or a Hugging Face folder"
                )));
            }
            (None, Some(asker)) => {
                let question =
                    format!("Which model? A size ({}), a config.json, or a Hugging Face folder", Size::names());
                asker.ask(&question, Some("10M"), Shape::parse)?
            }
        };
        if self.tokens.is_none()
            && let Some(asker) = asker.as_mut()
        {
            let question =
                "How many tokens is it to be trained on, as in 500M or 2B? Without an answer, 20 a parameter";
            self.tokens = asker.ask_or_not(question, ask::tokens)?;
        }
        Ok(shape)
    }

    /// Who may join.
    fn ask_who(&mut self, asker: &mut Asker) -> Result<(), Failure> {
        if self.address.is_empty() {
            let question =
                "Where do devices reach this computer, as HOST:PORT? Without an answer, you invite them later";
            self.address = asker.ask_or_not(question, Reachable::parse)?.into_iter().collect();
        }
        if !self.address.is_empty() && self.days.is_none() {
            let days = |text: &str| match text.parse() {
                Ok(days @ 1..=DAYS_MAX) => Ok(days),
                _ => Err(format!("a number of days is needed, 1 to {DAYS_MAX}")),
            };
            self.days = asker.ask_or_not("For how many days may devices join? Without an answer, for ever", days)?;
        }
        if self.public.is_none() {
            let question = "Where may strangers see how it goes, as in 0.0.0.0:8080? Without an answer, nowhere";
            let address = |text: &str| text.parse().map_err(|_| "write it as ADDRESS:PORT".to_owned());
            self.public = asker.ask_or_not(question, address)?;
        }
        Ok(())
    }

    /// The dataset, made of texts where it is none yet, and the model over it.
    fn material(&self, shape: &Shape) -> Result<Material, Failure> {
        let prepared = match self.data.as_slice() {
            [folder] if folder.join("manifest.json").is_file() => Some(folder),
            _ => None,
        };
        let dataset = match prepared {
            Some(folder) => self.prepared(folder)?,
            None => self.prepare(shape)?,
        };
        let manifest = dataset.manifest();
        let model = shape.model(manifest.vocab_size, manifest.context).map_err(Failure::input)?;
        shape.notes().iter().for_each(|note| say(&format!("note      {note}")));
        let mut spec = RunSpec::new("", 1);
        spec.inner.learning_rate = cost::learning_rate(model.parameters() as u64);
        spec.model = model;
        spec.lease.wall_s = cost::lease_s(&spec);
        spec.token_budget = cost::TOKENS_A_PARAMETER * spec.model.parameters() as u64;
        Ok(Material { spec, dataset, init: shape.init().map(Path::to_owned) })
    }

    /// A dataset that is there: it says what tokens and contexts are.
    fn prepared(&self, folder: &Path) -> Result<Dataset, Failure> {
        let dataset = Dataset::open(folder).map_err(Failure::input)?;
        let has = dataset.manifest().context;
        if let Some(context) = self.context.filter(|context| *context != has) {
            return Err(Failure::input(format!(
                "{} was prepared for contexts of {has} tokens, and --context is {context}: leave --context out, or name \
                 the text itself with --data",
                folder.display()
            )));
        }
        if self.tokenizer.is_some() || !self.prepare.is_empty() {
            return Err(Failure::input(format!(
                "{} is prepared already, with its tokens: leave --tokenizer and what follows -- out",
                folder.display()
            )));
        }
        match super::serve::unfit(&dataset) {
            Some(unfit) => Err(Failure::input(unfit)),
            None => Ok(dataset),
        }
    }

    /// Has a dataset made of texts, or goes on doing so.
    fn prepare(&self, shape: &Shape) -> Result<Dataset, Failure> {
        let out = self.folder.join(DATA);
        let context = self.context.unwrap_or_else(|| shape.context());
        shape.takes_context(context).map_err(Failure::input)?;
        let tokenizer = self.tokenizer.clone().unwrap_or_else(|| shape.tokenizer());
        let words = ["prepare".into(), "--context".into(), context.to_string().into(), "--tokenizer".into()];
        let words = words.into_iter().chain([tokenizer.into(), "--out".into(), out.clone().into_os_string()]);
        let words = words.chain(self.prepare.iter().map(Into::into)).chain(["--".into()]);
        let words = words.chain(self.data.iter().map(|path| path.clone().into_os_string()));
        let Preparation { prepare } = Preparation::try_parse_from(words).map_err(|error| {
            let said = error.to_string();
            let first = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Failure::input(format!("of what follows --: {first}; `dataset prepare --help` has all that may follow"))
        })?;
        if prepare.is_dry() {
            return Err(Failure::input(
                "`new` makes a run, so --dry-run has no place here: try it with `dataset prepare`",
            ));
        }
        let mut notes = Notes::default();
        let prepared = dataset::prepare(&prepare.options(), &mut notes).map_err(|error| {
            // Why it failed may be among what was left out.
            notes.lines().iter().for_each(|line| eprintln!("{line}"));
            failure(error)
        })?;
        if prepared.already_done {
            say("note      the data was prepared before");
        }
        notes.lines().iter().for_each(|line| say(&format!("note      {line}")));
        Dataset::open(&out).map_err(Failure::midway)
    }

    /// What the flags say over what the material brings.
    fn spec(&self, spec: RunSpec) -> Result<RunSpec, Failure> {
        let folder = || self.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let named = self.name.clone().or_else(|| Some(spec.name.clone()).filter(|name| !name.is_empty()));
        let said = |name: &String| {
            let contact = self.contact.clone().unwrap_or_default();
            OperatorSpec { name: name.clone(), contact }
        };
        let spec = RunSpec {
            name: named.or_else(folder).unwrap_or_else(|| "my first run".to_owned()),
            description: self.description.clone().unwrap_or(spec.description),
            operator: self.operator.as_ref().map(said).or(spec.operator),
            token_budget: self.tokens.unwrap_or(spec.token_budget),
            ..spec
        };
        spec.validate().map_err(Failure::input)?;
        Ok(spec)
    }

    fn write(&self, spec: &RunSpec, data: &Path, init: Option<PathBuf>) -> Result<(), Failure> {
        let failed = |error| Failure::midway(format!("{}: {error}", self.folder.display()));
        let disk = FolderDisk::open(&self.folder).map_err(failed)?;
        // Again, since a person may have taken their time.
        refuse_taken(&self.folder)?;
        let here = fs::canonicalize(&self.folder).map_err(failed)?;
        // What lies in the folder moves with it.
        let from_here = |path: &Path| {
            let whole = fs::canonicalize(path).map_err(failed)?;
            Ok(whole.strip_prefix(&here).map_or_else(|_| whole.clone(), Path::to_owned))
        };
        let invited = |role, count: u32, devices| {
            let invited = Invited { role, address: self.address.clone(), expires_days: self.days, devices };
            std::iter::repeat_n(invited, if self.address.is_empty() { 0 } else { count as usize })
        };
        let file = ServeFile {
            data: from_here(data)?,
            init: init.as_deref().map(from_here).transpose()?,
            listen: None,
            http: None,
            public: self.public,
            invite: invited(InvitedRole::Volunteer, self.invites, self.devices)
                .chain(invited(InvitedRole::Anchor, self.anchors, Some(1)))
                .collect(),
        };
        disk.write(RUN_FILE, commented(spec).as_bytes()).map_err(failed)?;
        // With this one the folder is a run's.
        disk.write(SERVE_FILE, file.text().as_bytes()).map_err(failed)
    }

    fn next_steps(&self) -> Vec<String> {
        let folder = self.folder.display();
        let mut lines = vec![
            format!("made      {folder}/{RUN_FILE} explains every key; {folder}/{SERVE_FILE} says what it starts with"),
            format!("next      nightjar-coordinator serve {folder}"),
        ];
        if self.address.is_empty() {
            lines.push(format!(
                "          nightjar-coordinator invite --state {folder}/{STATE_FOLDER} --address HOST:4433"
            ));
        }
        lines
    }
}

/// Refuses a folder that holds anything but what an unfinished `new` left.
fn refuse_taken(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    if fs::symlink_metadata(folder).is_ok_and(|about| !about.is_dir()) {
        return Err(Failure::input(format!(
            "{shown} is there already, and no folder: choose another name for the run"
        )));
    }
    if folder.join(SERVE_FILE).exists() {
        return Err(Failure::input(format!(
            "{shown} is a run already: serve it with `nightjar-coordinator serve {shown}`, or choose another name"
        )));
    }
    let ours =
        |name: &str, kind| (name, kind) == (DATA, EntryKind::Folder) || (name, kind) == (START, EntryKind::Folder);
    let unfinished = |name: &str, kind| ours(name, kind) || (name, kind) == (RUN_FILE, EntryKind::File);
    match mark::entries(folder).map_err(|error| Failure::input(format!("{shown}: {error}")))? {
        entries if entries.iter().all(|(name, kind)| ours(name, *kind)) => Ok(()),
        entries if entries.iter().all(|(name, kind)| unfinished(name, *kind)) => Err(Failure::input(format!(
            "{shown} has a {RUN_FILE} already, which is not overwritten: move it away, or choose another \
             name for the run"
        ))),
        entries => {
            let foreign = entries.iter().find(|(name, kind)| !unfinished(name, *kind)).map(|(name, _)| name.clone());
            Err(Failure::input(format!(
                "{shown} holds {}, which is not of a run: choose another name for the run",
                foreign.unwrap_or_default()
            )))
        }
    }
}

#[cfg(test)]
mod tests;
