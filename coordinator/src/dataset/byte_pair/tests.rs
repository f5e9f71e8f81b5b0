//! The very tokens of the `tokenizers` library, of text made to find where the two might differ.

use super::{
    super::vocabulary::{EndOfText, TokenizerChoice, train},
    BytePair,
    words::{CL100K, GPT2, QWEN, Rule},
};
use nightjar_shared::{rng, tokenizer::load};
use serde_json::{Value, json};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior, Tokenizer,
    pre_tokenizers::split::{Split, SplitPattern},
};

/// What text is put together from: whatever a rule for words looks at, in every kind of Unicode.
const PARTS: [&str; 96] = [
    "the",
    "The",
    "THE",
    " of",
    "ing",
    "ers",
    "a",
    "Z",
    " I",
    "x",
    "don",
    "quick",
    " brown",
    "'s",
    "'S",
    "'t",
    "'re",
    "'RE",
    "'Ve",
    "'m",
    "'LL",
    "'ll",
    "'lL",
    "'d",
    "'D",
    "'ſ",
    "ſ",
    "'",
    "''",
    "’s",
    "'x",
    "K",
    "0",
    "1",
    "23",
    "456",
    "7890",
    "٣",
    "४५",
    "Ⅷ",
    "½",
    "²",
    "１２",
    " ",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    " \n",
    "\n ",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{a0}",
    "\u{1680}",
    "\u{2003}",
    "\u{2028}",
    "\u{202f}",
    "\u{3000}",
    "\u{200b}",
    "\u{feff}",
    "\0",
    "\u{7f}",
    "\u{ad}",
    ".",
    ",",
    "!?",
    "--",
    "====",
    "(",
    ")]",
    "=--",
    "#!/",
    "<|endoftext|>",
    "<tool>",
    "    ",
    "é",
    "e\u{301}",
    "ﬁ",
    "ß",
    "İ",
    "東京",
    "です",
    "한국",
    "ᄒ\u{1161}\u{11ab}",
    "ก\u{e33}",
    "עברית",
    "🥊",
    "👨\u{200d}👩",
    "\u{fffd}",
    "\u{10ffff}",
    "\u{378}",
];

fn draw(seed: u64, i: u64, n: usize) -> usize {
    rng::below(seed, 0, i, n as u64) as usize
}

/// Text number `seed`: parts, now and then a long word or a run, and characters from anywhere.
fn text(seed: u64) -> String {
    let mut text = String::new();
    for i in 0..draw(seed, 0, 60) as u64 {
        let at = 10 + i * 10;
        match draw(seed, at, 24) {
            0 => text.extend(char::from_u32(draw(seed, at + 1, 0x11_0000) as u32)),
            1 => text.extend(char::from_u32(draw(seed, at + 1, 0x3000) as u32)),
            2 if i % 8 == 0 => {
                let letters = draw(seed, at + 1, 400) as u64;
                text.extend((0..letters).map(|k| b"etaoinshrdlu"[draw(seed, at * 1000 + k, 12)] as char));
            }
            3 if i % 4 == 0 => {
                text += &PARTS[draw(seed, at + 1, PARTS.len())].repeat(draw(seed, at + 2, 90));
            }
            _ => text += PARTS[draw(seed, at + 1, PARTS.len())],
        }
    }
    text
}

/// A vocabulary trained on the lab's own text where it is there, and on text as above.
fn trained(size: u32) -> Value {
    let book = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/train.txt");
    let book = std::fs::read_to_string(book).unwrap_or_default();
    let book: Vec<String> = book.lines().take(8000).map(|line| format!("{line}\n")).collect();
    let end = EndOfText::choose(&TokenizerChoice::Train(size), None).unwrap();
    let json = train(size, &end, book.into_iter().chain((1 << 40..(1 << 40) + 3000).map(text))).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn split(pattern: &str, behavior: &str, invert: bool) -> Value {
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert});
    json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
}

fn with(json: &Value, changes: &[(&str, Value)]) -> Value {
    let mut changed = json.clone();
    for (pointer, value) in changes {
        *changed.pointer_mut(pointer).unwrap() = value.clone();
    }
    changed
}

fn added(id: u32, content: &str, special: bool, normalized: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized,
        "special": special})
}

/// Vocabularies of all kinds that are known.
fn known() -> Vec<(String, Value)> {
    let digits =
        json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)]});
    let mut known = vec![];
    for size in [300, 900, 6000] {
        let json = trained(size);
        let end = json["added_tokens"][0].clone();
        let tokens = |normalized| {
            json!([
                end,
                added(size, "<tool>", false, normalized),
                added(size + 1, "    ", false, true),
                added(size + 2, "ing of", true, false),
                added(size + 3, "g", false, false),
                added(size + 4, "=--", false, false),
                added(size + 5, "--", false, true)
            ])
        };
        let lines = |pair: &Value| json!(format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        let mut merges = vec![json!("#version: 0.2")];
        merges.extend(json["model"]["merges"].as_array().unwrap().iter().map(lines));
        // Words whose merges are missing are found whole all the same.
        let all = json["model"]["merges"].as_array().unwrap();
        let some: Value = all.iter().enumerate().filter(|(i, _)| i % 5 > 0).map(|(_, pair)| pair.clone()).collect();
        known.extend([
            (format!("GPT-2 {size}"), json.clone()),
            (format!("merges in lines {size}"), with(&json, &[("/model/merges", merges.into())])),
            (
                format!("Llama 3 {size}"),
                with(
                    &json,
                    &[
                        ("/pre_tokenizer", split(CL100K, "Isolated", false)),
                        ("/model/ignore_merges", true.into()),
                        ("/model/merges", some.clone()),
                        ("/model/byte_fallback", true.into()),
                    ],
                ),
            ),
            (
                format!("GPT-4 {size}"),
                with(
                    &json,
                    &[
                        ("/pre_tokenizer", split(CL100K, "Removed", true)),
                        ("/model/continuing_subword_prefix", "".into()),
                        ("/model/end_of_word_suffix", "".into()),
                    ],
                ),
            ),
            (
                format!("Qwen {size}"),
                with(
                    &json,
                    &[
                        ("/pre_tokenizer", split(QWEN, "Isolated", false)),
                        ("/normalizer", json!({"type": "NFC"})),
                        ("/added_tokens", tokens(false)),
                    ],
                ),
            ),
            (format!("SmolLM {size}"), with(&json, &[("/pre_tokenizer", digits.clone())])),
            (
                format!("NeoX {size}"),
                with(&json, &[("/normalizer", json!({"type": "NFC"})), ("/added_tokens", tokens(true))]),
            ),
        ]);
    }
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/tokenizers");
    for name in ["gpt2", "llama3"] {
        let json = std::fs::read(cases.join(name).with_extension("json")).ok();
        known.extend(json.map(|json| (name.to_owned(), serde_json::from_slice(&json).unwrap())));
    }
    known
}

fn both(json: &Value) -> (Tokenizer, Option<BytePair>) {
    let json = serde_json::to_vec(json).unwrap();
    let tokenizer = load(&json).unwrap();
    let byte_pair = BytePair::of(&tokenizer, &json);
    (tokenizer, byte_pair)
}

#[test]
fn every_text_has_the_tokens_that_the_library_makes() {
    for (name, json) in known() {
        let (library, fast) = both(&json);
        let fast = fast.unwrap_or_else(|| panic!("{name} is not known"));
        let mut left = 0;
        for seed in 0..1500 {
            let text = text(seed);
            let wanted = library.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
            let Some(found) = fast.encode(&text) else {
                left += 1;
                continue;
            };
            assert_eq!(found, wanted, "{name}: text {seed}: {text:?}");
            let length: usize = found.iter().map(|token| fast.length(*token)).sum();
            assert_eq!(length, text.len(), "{name}: text {seed}: {text:?}");
        }
        assert!(left < 1300 && (left > 0) != json["normalizer"].is_null(), "{name}: {left} texts were left out");
    }
}

#[test]
fn long_words_and_books_have_the_tokens_that_the_library_makes() {
    let letters = |n: u64| (0..n).map(|k| b"etaoinshrdlu"[draw(7, k, 12)] as char).collect::<String>();
    let book = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/valid.txt");
    let texts = [
        letters(20_000),
        "aaaaaaaaa".repeat(3000),
        "ab".repeat(9000),
        "東京です".repeat(2000),
        " ".repeat(20_000) + "x",
        "\n".repeat(9000) + " a",
        "!".repeat(9999),
        "7".repeat(9999),
        std::fs::read_to_string(book).unwrap_or_default(),
    ];
    for (name, json) in known() {
        let (library, fast) = both(&json);
        for text in &texts {
            let wanted = library.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
            assert!(fast.as_ref().unwrap().encode(text).unwrap() == wanted, "{name}: {}…", &text[..9]);
        }
    }
}

#[test]
fn words_end_where_the_regular_expressions_match() {
    for pattern in [GPT2, CL100K, QWEN] {
        let pattern_of = SplitPattern::Regex(pattern.to_owned());
        let regex = Split::new(pattern_of, SplitDelimiterBehavior::Isolated, false).unwrap();
        let rule = Rule::of(pattern).unwrap();
        for seed in 0..5000 {
            let text = text(seed);
            let mut split = PreTokenizedString::from(text.as_str());
            regex.pre_tokenize(&mut split).unwrap();
            let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let wanted: Vec<&str> = splits.iter().map(|(word, _, _)| *word).filter(|word| !word.is_empty()).collect();
            let mut found = vec![];
            rule.words(&text, |word| found.push(std::str::from_utf8(word).unwrap()));
            assert_eq!(found, wanted, "{pattern}: text {seed}");
        }
    }
}

#[test]
fn what_is_not_known_is_left_to_the_library() {
    let json = trained(300);
    let strips = json!({"id": 300, "content": "<a>", "single_word": false, "lstrip": true, "rstrip": false,
        "normalized": false, "special": false});
    let mut twice = json.clone();
    twice["model"]["vocab"]["another"] = json!(7);
    let mut missing = json.clone();
    let first = missing["model"]["vocab"].as_object().unwrap().iter().find(|(_, id)| **id == 9).unwrap().0.clone();
    missing["model"]["vocab"].as_object_mut().unwrap().remove(&first);
    missing["model"]["merges"] = json!([]);
    for (what, other) in [
        ("two names of one token", twice),
        ("a byte is missing", missing),
        ("lower case", with(&json, &[("/normalizer", json!({"type": "Lowercase"}))])),
        ("strips", with(&json, &[("/added_tokens", json!([strips]))])),
        ("another pattern", with(&json, &[("/pre_tokenizer", split(r"\p{L}+|\P{L}+", "Isolated", false))])),
        ("another behaviour", with(&json, &[("/pre_tokenizer", split(CL100K, "MergedWithNext", false))])),
        ("a prefix", with(&json, &[("/pre_tokenizer/add_prefix_space", true.into())])),
        ("one word", with(&json, &[("/pre_tokenizer/use_regex", false.into())])),
        ("a suffix", with(&json, &[("/model/end_of_word_suffix", "</w>".into())])),
        ("another decoder", with(&json, &[("/decoder", json!({"type": "Fuse"}))])),
    ] {
        assert!(both(&other).1.is_none(), "{what}");
    }
    assert!(both(&json).1.is_some());
}
