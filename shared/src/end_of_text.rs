//! Which token ends a document: what the files beside a tokenizer.json say, and names that are known.

use serde_json::Value;

/// Tokens that end a document in the vocabularies that most people use, in the order in which they are looked for.
pub const KNOWN: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];

/// A token, as a file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stated {
    /// By its name.
    Token(String),
    /// By its number.
    Id(u32),
}

/// What the files beside a tokenizer.json say, first what speaks of the tokenizer. `read` gives a file's bytes, if it
/// is there; of one that is no JSON the error tells.
pub fn stated(read: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<Stated>, String> {
    let mut found: Vec<Stated> = vec![];
    let files = [
        ("tokenizer_config.json", "eos_token"),
        ("special_tokens_map.json", "eos_token"),
        ("generation_config.json", "eos_token_id"),
        ("config.json", "eos_token_id"),
    ];
    for (file, key) in files {
        let Some(bytes) = read(file) else { continue };
        let json: Value = serde_json::from_slice(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes))
            .map_err(|error| format!("{file} beside it is no JSON ({error}), so the end of text cannot be told"))?;
        let Some(value) = json.get(key) else { continue };
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for token in values.iter().filter_map(of_value) {
            if !found.contains(&token) {
                found.push(token);
            }
        }
    }
    Ok(found)
}

/// A token is written as its name, as an object that holds its name, or as its number.
fn of_value(value: &Value) -> Option<Stated> {
    match value {
        Value::String(name) if !name.is_empty() => Some(Stated::Token(name.clone())),
        Value::Object(token) => token.get("content")?.as_str().map(|name| Stated::Token(name.to_owned())),
        Value::Number(id) => id.as_u64().and_then(|id| u32::try_from(id).ok()).map(Stated::Id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_of_writing_a_token_are_read() {
        let read = |name: &str| {
            let json = match name {
                "tokenizer_config.json" => r#"{"eos_token": {"content": "<stop>", "special": true}}"#,
                "special_tokens_map.json" => r#"{"eos_token": "<stop>"}"#,
                "generation_config.json" => r#"{"eos_token_id": [7, 9, "x"]}"#,
                "config.json" => r#"{"eos_token_id": 7}"#,
                _ => return None,
            };
            Some(json.as_bytes().to_vec())
        };
        let token = |name: &str| Stated::Token(name.to_owned());
        assert_eq!(stated(read), Ok(vec![token("<stop>"), Stated::Id(7), Stated::Id(9), token("x")]));
        let marked = |file: &str| read(file).map(|json| [b"\xEF\xBB\xBF", &json[..]].concat());
        assert_eq!(stated(marked), stated(read));
        assert_eq!(stated(|_| None), Ok(vec![]));
        assert_eq!(stated(|_| Some(b"{\"eos_token\": null, \"eos_token_id\": null}".to_vec())), Ok(vec![]));
        let broken =
            stated(|file| (file == "special_tokens_map.json").then(|| b"{\"eos_token\": ".to_vec())).unwrap_err();
        assert!(broken.starts_with("special_tokens_map.json beside it is no JSON"), "{broken}");
    }
}
