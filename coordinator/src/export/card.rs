//! A model's card: README.md with the fields that Hugging Face reads, written from what the ledger says, and a picture of
//! the loss. Nothing in it is of the moment when it is written: the same ledger and version make the same bytes.

use super::Format;
use crate::chart::{self, Curve};
use nightjar_shared::{ids::BlobHash, model_spec::ModelSpec};
use std::fmt::Write;

/// The card.
pub const FILE: &str = "README.md";
/// Its picture.
pub const PICTURE: &str = "loss.svg";

/// Watts that training is assumed to draw above an idle computer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watts {
    /// A volunteer's computer.
    pub volunteer: f64,
    /// An anchor node.
    pub anchor: f64,
}

impl Default for Watts {
    /// A laptop's processor at work, and a GPU of a datacenter at about half of its limit.
    fn default() -> Self {
        Watts { volunteer: 30.0, anchor: 350.0 }
    }
}

/// Devices of one kind, and their part.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// What trains.
    pub device: String,
    /// Whether they are anchor nodes.
    pub are_anchors: bool,
    /// How many.
    pub count: u64,
    /// Tokens of theirs that were merged.
    pub tokens: u64,
    /// Time in inner steps of what was merged, in hours.
    pub train_h: f64,
}

impl Kind {
    fn kwh(&self, watts: Watts) -> f64 {
        self.train_h * if self.are_anchors { watts.anchor } else { watts.volunteer } / 1000.0
    }
}

/// What a ledger says of a model, up to its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// The run's name.
    pub run: String,
    /// What the run is for.
    pub description: String,
    /// Who runs it; empty where nobody is named.
    pub operator: String,
    /// Which versions these weights are, in words.
    pub versions: String,
    /// The licence as its SPDX name, where somebody has chosen one.
    pub licence: Option<String>,
    /// BLAKE3 of the dataset's manifest, which names each of its shards by hash.
    pub data: BlobHash,
    /// Samples to train on, and held out.
    pub samples: [u64; 2],
    /// Tokens merged.
    pub tokens: u64,
    /// Tokens that the run is to merge.
    pub token_budget: u64,
    /// Inner steps in all deltas.
    pub inner_steps: u64,
    /// Deltas merged.
    pub deltas: u64,
    /// Published versions.
    pub published: u64,
    /// The first and the last of them, in UTC.
    pub between: [String; 2],
    /// Bytes up and down, of the run so far.
    pub bytes: [u64; 2],
    /// Devices by kind.
    pub devices: Vec<Kind>,
    /// Measurements of held-out loss: tokens merged, and nats a byte.
    pub losses: Vec<(u64, f64)>,
    /// What energy is reckoned with.
    pub watts: Watts,
}

impl Provenance {
    /// The card of a model in a format.
    pub fn card(&self, spec: &ModelSpec, format: Format) -> String {
        let mut text = self.fields(format);
        let mut line = |words: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{words}");
        };
        line(format_args!("\n# {}\n", plain(&self.run)));
        if !self.description.is_empty() {
            line(format_args!("{}\n", plain(&self.description)));
        }
        let parameters = spec.parameters() as f64 / 1e6;
        line(format_args!(
            "A language model of {parameters:.2} M parameters, trained with Nightjar on {} together. This is {}. The facts below \
             are those of the run's ledger.\n",
            counted(self.devices.iter().map(|kind| kind.count).sum(), "computer"),
            self.versions,
        ));
        line(format_args!("| | |\n|---|---|"));
        let operator = if self.operator.is_empty() { "not named".to_owned() } else { plain(&self.operator) };
        let rows = [
            ("operator", operator),
            ("architecture", architecture(spec)),
            ("context", format!("{} tokens, of a vocabulary of {}", spec.max_position_embeddings, spec.vocab_size)),
            ("trained", format!("from {} to {} UTC", self.between[0], self.between[1])),
            ("tokens", format!("{} merged, of {} planned", self.tokens, self.token_budget)),
            (
                "updates",
                format!("{} deltas of {} inner steps, in {} versions", self.deltas, self.inner_steps, self.published),
            ),
            ("traffic", format!("{} up, {} down, of the whole run so far", mega(self.bytes[0]), mega(self.bytes[1]))),
            ("held-out loss", self.loss_words()),
            ("energy", format!("about {} (estimated, see below)", kwh(self.kwh()))),
        ];
        rows.iter().for_each(|(what, words)| line(format_args!("| {what} | {words} |")));

        line(format_args!("\n## Held-out loss\n"));
        if self.losses.is_empty() {
            line(format_args!("It was not measured: the run had no anchor node.\n"));
        } else {
            line(format_args!("![Held-out loss over tokens]({PICTURE})\n"));
            line(format_args!(
                "In nats a byte of text that was held out of training. Divide by 0.693 for bits a byte.\n"
            ));
        }
        line(format_args!("## Data\n"));
        line(format_args!(
            "{} samples of {} tokens, and {} held out. BLAKE3 of the manifest, which names every shard by its own hash:\n\n`{}`\n",
            self.samples[0], spec.max_position_embeddings, self.samples[1], self.data,
        ));
        line(format_args!(
            "Each volunteer saw the shards that it trained on. Nothing here says what the text is, whose it is, or what its \
             licence allows: add that.\n"
        ));
        line(format_args!("## Devices\n"));
        line(format_args!("| what trained | role | how many | tokens | hours in inner steps |\n|---|---|---|---|---|"));
        for kind in &self.devices {
            let role = if kind.are_anchors { "anchor" } else { "volunteer" };
            let (device, count, tokens, hours) = (cell(&kind.device), kind.count, kind.tokens, kind.train_h);
            line(format_args!("| {device} | {role} | {count} | {tokens} | {hours:.2} |"));
        }
        line(format_args!("\n## Energy\n"));
        line(format_args!(
            "About {}. This is an estimate: hours in inner steps, as the devices told them, times an assumed draw above an idle \
             computer, of {} W for a volunteer's and {} W for an anchor node. No device measured its power. Screens, networks, \
             the coordinator, and work that was not merged are left out.\n",
            kwh(self.kwh()),
            self.watts.volunteer,
            self.watts.anchor,
        ));
        line(format_args!("## How to load it\n"));
        line(format_args!("{}", loading(format)));
        line(format_args!("## What is not known\n"));
        line(format_args!(
            "Nobody has tested here what this model says about people, or whether it is true. It repeats what its text holds. \
             Test it for your own use before you rely on it."
        ));
        text
    }

    /// The picture; `None` where nothing was measured.
    pub fn picture(&self) -> Option<String> {
        let points: Vec<(f64, f64)> = self.losses.iter().map(|(tokens, loss)| (*tokens as f64, *loss)).collect();
        let curve = Curve { name: "held-out loss", points };
        (!self.losses.is_empty()).then(|| chart::draw("tokens", "held-out loss, nats a byte", &[curve]).into_string())
    }

    /// The fields that Hugging Face reads.
    fn fields(&self, format: Format) -> String {
        let licence = self.licence.as_ref().map(|licence| format!("license: {}\n", quoted(licence)));
        let library = match format {
            Format::Hf => "transformers",
            Format::Gguf => "gguf",
        };
        format!(
            "---\n{}library_name: {library}\npipeline_tag: text-generation\ntags:\n- nightjar\n- volunteer-computing\n---\n",
            licence.unwrap_or_default()
        )
    }

    fn kwh(&self) -> f64 {
        self.devices.iter().map(|kind| kind.kwh(self.watts)).sum()
    }

    fn loss_words(&self) -> String {
        match (self.losses.first(), self.losses.last()) {
            (Some((_, first)), Some((tokens, last))) => {
                format!("{first:.4} at first, {last:.4} nats a byte after {tokens} tokens")
            }
            _ => "not measured".to_owned(),
        }
    }
}

fn architecture(spec: &ModelSpec) -> String {
    format!(
        "{}: {} layers of {}, {} heads ({} for keys and values)",
        spec.model_type.architecture(),
        spec.num_hidden_layers,
        spec.hidden_size,
        spec.num_attention_heads,
        spec.num_key_value_heads
    )
}

fn loading(format: Format) -> String {
    match format {
        Format::Hf => "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
            model = AutoModelForCausalLM.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n\
            prompt = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n\
            print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))\n```\n"
            .to_owned(),
        Format::Gguf => {
            let file = super::gguf::FILE;
            format!("```sh\nllama-cli --model {file} --prompt 'Once upon a time' --no-conversation\n```\n")
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn mega(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn kwh(kwh: f64) -> String {
    if kwh < 0.1 { format!("{:.2} Wh", 1000.0 * kwh) } else { format!("{kwh:.2} kWh") }
}

/// A text from outside, where it can begin no line of its own, nor any markup.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace('&', "&amp;").replace('<', "&lt;")
}

/// The same, in a table.
fn cell(text: &str) -> String {
    if text.is_empty() { "unknown".to_owned() } else { plain(text).replace('|', "\\|") }
}

/// A text as YAML has it, which takes JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        let kind = |device: &str, are_anchors, count, train_h| Kind {
            device: device.into(),
            are_anchors,
            count,
            tokens: 500_000,
            train_h,
        };
        Provenance {
            run: "evening <b> | stories".into(),
            description: "for the\n# school".into(),
            operator: String::new(),
            versions: "version 12".into(),
            licence: Some("apache-2.0".into()),
            data: BlobHash([7; 32]),
            samples: [1000, 20],
            tokens: 1_500_000,
            token_budget: 2_000_000,
            inner_steps: 300,
            deltas: 40,
            published: 13,
            between: ["2026-11-30 20:00".into(), "2026-12-01 06:00".into()],
            bytes: [12_000_000, 34_500_000],
            devices: vec![kind("flex", false, 2, 10.0), kind("wgpu: a | b", true, 1, 2.0)],
            losses: vec![(0, 5.545), (1_500_000, 2.25)],
            watts: Watts::default(),
        }
    }

    #[test]
    fn the_card_says_what_the_ledger_says_and_no_text_breaks_out() {
        let card = provenance().card(&ModelSpec::tiny(), Format::Hf);
        let told = [
            "---\nlicense: \"apache-2.0\"\nlibrary_name: transformers\n",
            "\n# evening &lt;b> | stories\n\nfor the # school\n",
            "0.82 M parameters, trained with Nightjar on 3 computers together. This is version 12.",
            "| tokens | 1500000 merged, of 2000000 planned |",
            "| held-out loss | 5.5450 at first, 2.2500 nats a byte after 1500000 tokens |",
            "| wgpu: a \\| b | anchor | 1 | 500000 | 2.00 |",
            // 10 h of 30 W and 2 h of 350 W.
            "| energy | about 1.00 kWh (estimated, see below) |",
            &format!("`{}`", "07".repeat(32)),
        ];
        for words in told {
            assert!(card.contains(words), "{words}\nin\n{card}");
        }
        assert_eq!(card, provenance().card(&ModelSpec::tiny(), Format::Hf));
        assert!(provenance().picture().unwrap().starts_with("<svg xmlns"));
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let bare = Provenance { losses: vec![], licence: None, devices: vec![], ..provenance() };
        let card = bare.card(&ModelSpec::tiny(), Format::Gguf);
        assert!(card.starts_with("---\nlibrary_name: gguf\n") && !card.contains(PICTURE), "{card}");
        assert!(card.contains("the run had no anchor node") && card.contains("llama-cli --model model.gguf"), "{card}");
        assert_eq!(bare.picture(), None);
    }
}
