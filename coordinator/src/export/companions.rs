//! What a model folder says besides its shape and weights: what its special tokens are called, how a conversation is
//! written down, how it likes to be sampled. A run that starts from a folder keeps it, and an export gives it back.

use nightjar_shared::disk::Disk;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Longest file that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;
/// The file of a state folder that keeps them.
pub const KEPT: &str = "companions.json";
/// How a conversation is written down, where that is a file of its own.
const TEMPLATE: &str = "chat_template.jinja";
/// What is kept of tokenizer_config.json besides single tokens.
const OF_TOKENIZER: [&str; 5] =
    ["additional_special_tokens", "extra_special_tokens", "chat_template", "padding_side", "truncation_side"];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Companions {
    /// The token that begins a text.
    pub bos: Option<String>,
    /// The token that ends one.
    pub eos: Option<String>,
    /// The token that fills a batch up.
    pub pad: Option<String>,
    /// The token of what no other token stands for.
    pub unk: Option<String>,
    /// More of tokenizer_config.json: further special tokens, the chat template, sides.
    pub tokenizer: Map<String, Value>,
    /// generation_config.json.
    pub generation: Map<String, Value>,
}

/// A file beside a model that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CompanionsError {
    /// By the file system.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Companions {
    /// Of a model's folder; a file that is not there says nothing.
    pub fn read(folder: &Path) -> Result<Self, CompanionsError> {
        let (map, tokenizer) = (object(folder, "special_tokens_map.json")?, object(folder, "tokenizer_config.json")?);
        let token = |key: &str| tokenizer.get(key).or(map.get(key)).and_then(name_of);
        let mut companions = Companions {
            bos: token("bos_token"),
            eos: token("eos_token"),
            pad: token("pad_token"),
            unk: token("unk_token"),
            generation: object(folder, "generation_config.json")?,
            ..Companions::default()
        };
        for key in OF_TOKENIZER {
            let value = tokenizer.get(key).or(map.get(key)).filter(|value| !value.is_null());
            value.into_iter().for_each(|value| drop(companions.tokenizer.insert(key.to_owned(), value.clone())));
        }
        // Newer folders have it in a file, which counts for more.
        if let Some(template) = text(folder, TEMPLATE)? {
            companions.tokenizer.insert("chat_template".to_owned(), template.into());
        }
        Ok(companions)
    }

    /// What a state folder keeps; nothing where its run had no folder to start from.
    pub fn kept(state: &Path) -> Result<Self, CompanionsError> {
        let Some(json) = text(state, KEPT)? else { return Ok(Companions::default()) };
        serde_json::from_str(&json)
            .map_err(|error| CompanionsError::Unreadable { path: state.join(KEPT), reason: error.to_string() })
    }

    /// Keeps them in a state folder.
    pub fn keep(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.write(KEPT, &serde_json::to_vec_pretty(self)?)
    }
}

/// A token is written as its name, or as an object that holds its name.
fn name_of(value: &Value) -> Option<String> {
    let name = value.as_str().or_else(|| value.get("content")?.as_str())?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn object(folder: &Path, name: &str) -> Result<Map<String, Value>, CompanionsError> {
    let Some(json) = text(folder, name)? else { return Ok(Map::new()) };
    let wrong = |reason: String| CompanionsError::Unreadable { path: folder.join(name), reason };
    match serde_json::from_str(json.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong("it holds no JSON object".to_owned())),
        Err(error) => Err(wrong(format!("it is no JSON ({error})"))),
    }
}

/// A file's text; `None` where there is none of this name.
fn text(folder: &Path, name: &str) -> Result<Option<String>, CompanionsError> {
    let path = folder.join(name);
    let failed = |source| CompanionsError::Read { path: path.clone(), source };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(about) if !about.is_file() || about.len() > BYTES_MAX => {
            let reason = format!("it is no file of at most {BYTES_MAX} bytes");
            return Err(CompanionsError::Unreadable { path, reason });
        }
        Ok(_) => {}
    }
    let mut text = String::new();
    File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)).map_err(failed)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    #[test]
    fn what_a_folder_says_is_read_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Companions::read(folder.path()).unwrap(), Companions::default());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("special_tokens_map.json", r#"{"pad_token": "<pad>", "bos_token": "<other>"}"#);
        write(
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "<s>", "special": true}, "eos_token": "<|im_end|>", "chat_template": "old",
                "tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "padding_side": "left"}"#,
        );
        write(TEMPLATE, "{% for message in messages %}…{% endfor %}\n");
        write("generation_config.json", r#"{"eos_token_id": [1, 2], "temperature": 0.6}"#);
        let read = Companions::read(folder.path()).unwrap();
        let words = |text: &str| Some(text.to_owned());
        assert_eq!(
            (&read.bos, &read.eos, &read.pad, &read.unk),
            (&words("<s>"), &words("<|im_end|>"), &words("<pad>"), &None)
        );
        assert!(read.tokenizer["chat_template"].as_str().unwrap().starts_with("{% for"));
        assert_eq!(read.tokenizer.keys().collect::<Vec<_>>(), ["chat_template", "padding_side"]);
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Companions::kept(state.path()).unwrap(), Companions::default());
        read.keep(&FolderDisk::open(state.path()).unwrap()).unwrap();
        assert_eq!(Companions::kept(state.path()).unwrap(), read);
        write("generation_config.json", "[");
        let refused = Companions::read(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("generation_config.json: it is no JSON"), "{refused}");
    }
}
