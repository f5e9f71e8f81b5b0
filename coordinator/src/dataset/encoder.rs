//! A tokenizer.json at work: text in pieces becomes the very tokens that the whole document has.
//!
//! What tokens text has depends on the text around it: where the document begins, where a word ends. A piece is encoded
//! together with some of that text, and keeps the tokens that begin in it. The tokens that it sees behind its end must
//! be those that the next piece begins with ([`Seam`]).

use super::{
    byte_pair::BytePair,
    piece::{AROUND_BYTES, Piece},
};
use nightjar_shared::tokenizer::{TextTokenizer, char_of};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};
use tokenizers::{DecoderWrapper, Encoding, Error, ModelWrapper};

/// Tokens behind a piece that are compared with the next piece's.
const SEAM_TOKENS: usize = 16;
/// Tokens at the end of what is encoded that more text might change.
const UNSURE_TOKENS: usize = 16;

/// A tokenizer, with what shards need to know about its tokens.
pub struct Encoder {
    tokens: TextTokenizer,
    /// What makes the same tokens faster, where it knows the vocabulary's kind.
    byte_pair: Option<BytePair>,
    end_of_text: Option<u32>,
    /// Bytes of text behind each token; 0 for special ones.
    text_bytes: Vec<u32>,
    spelling: Spelling,
}

/// How what a vocabulary cannot spell is told.
enum Spelling {
    /// It spells everything.
    All,
    /// By the text that no token is of.
    ByPlace,
    /// By characters, since the places of tokens are wrong behind one that became nothing. The bytes of each that are
    /// lost.
    ByCharacter(Mutex<HashMap<char, u64>>),
}

/// What the end of a piece says about the piece behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seam {
    /// The tokens that the next piece begins with.
    tokens: Vec<u32>,
    /// Where in the next piece the first of its tokens begins.
    first: usize,
    /// Bytes of the next piece that belong to this piece's last token.
    reach: usize,
}

/// A piece's tokens.
#[derive(Debug, Default, PartialEq)]
pub struct Encoded {
    /// Those that begin in it.
    pub tokens: Vec<u32>,
    /// Where in it the first of them begins.
    first: usize,
    /// What it says about the next.
    pub seam: Seam,
    /// Bytes of its text that the vocabulary cannot spell.
    pub unspelled: Unspelled,
}

/// Bytes of text that a vocabulary cannot spell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unspelled {
    /// They became the unknown token.
    pub unknown: u64,
    /// They became nothing. White space does not count: some vocabularies have none.
    pub lost: u64,
}

impl Encoded {
    /// Tokens of a piece that stands by itself.
    pub fn new(tokens: Vec<u32>) -> Self {
        Encoded { tokens, ..Encoded::default() }
    }
}

impl Encoder {
    /// Of a tokenizer.json, and the token that ends a document.
    pub fn new(json: &[u8], end_of_text: Option<&str>) -> Result<Self, Error> {
        let tokens = TextTokenizer::new(json, end_of_text.map(str::to_owned).as_slice())?;
        let tokenizer = tokens.tokenizer();
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let names: HashMap<String, u32> = tokenizer.get_vocab(true);
        let mut text_bytes = vec![0; tokens.size()];
        for (token, id) in names.iter().filter(|(_, id)| !tokens.is_special(**id)) {
            text_bytes[*id as usize] = text_length(token, byte_level) as u32;
        }
        let has_all_bytes = || (0..=255u8).all(|byte| names.contains_key(char_of(byte).encode_utf8(&mut [0; 4])));
        let is_silent =
            || matches!(tokenizer.get_model(), ModelWrapper::BPE(bpe) if bpe.unk_token.is_none() && !bpe.byte_fallback);
        let byte_pair = BytePair::of(tokenizer, json);
        let spelling = match () {
            () if byte_pair.is_some() => Spelling::All,
            () if byte_level && tokenizer.get_normalizer().is_none() && has_all_bytes() => Spelling::All,
            () if is_silent() => Spelling::ByCharacter(Mutex::default()),
            () => Spelling::ByPlace,
        };
        let end_of_text = end_of_text.and_then(|token| tokenizer.token_to_id(token));
        Ok(Encoder { tokens, byte_pair, end_of_text, text_bytes, spelling })
    }

    /// Number of tokens.
    pub fn size(&self) -> u32 {
        self.text_bytes.len() as u32
    }

    /// The token that ends a document.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Bytes of text behind a token.
    pub fn text_bytes(&self, token: u32) -> u64 {
        self.text_bytes.get(token as usize).map_or(0, |bytes| u64::from(*bytes))
    }

    /// The tokens of each piece, on all cores.
    pub fn encode(&self, pieces: &[&Piece]) -> Result<Vec<Encoded>, Error> {
        let Some(byte_pair) = &self.byte_pair else { return self.encode_slowly(pieces) };
        let of = |piece: &&Piece| match self.encode_fast(byte_pair, piece) {
            Some(encoded) => Ok(encoded),
            None => Ok(self.encode_slowly(&[piece])?.pop().unwrap_or_default()),
        };
        pieces.par_iter().with_max_len(1).map(of).collect()
    }

    /// A piece's tokens, where the library need not be asked.
    fn encode_fast(&self, byte_pair: &BytePair, piece: &Piece) -> Option<Encoded> {
        if piece.before.is_empty() && piece.behind.is_empty() {
            return Some(Encoded::new(self.tokens.as_text(byte_pair.encode(&piece.text)?.into_iter())));
        }
        let text = [&*piece.before, &*piece.text, &*piece.behind].concat();
        let mut end = 0;
        let placed = byte_pair.encode(&text)?.into_iter().map(|token| {
            let start = end;
            end += byte_pair.length(token);
            // A token that is part of a character stands for all of it, as the library has it.
            (token, (text.floor_char_boundary(start), text.ceil_char_boundary(end)))
        });
        Some(self.part(piece, &placed.collect::<Vec<_>>()))
    }

    /// The tokens of each piece, as the library makes them.
    fn encode_slowly(&self, pieces: &[&Piece]) -> Result<Vec<Encoded>, Error> {
        // Only where nothing can be lost need nobody know which text each token is of.
        let needs_places = matches!(self.spelling, Spelling::ByPlace);
        let is_plain = |piece: &&&Piece| !needs_places && piece.before.is_empty() && piece.behind.is_empty();
        let whole: Vec<&str> = pieces.iter().filter(is_plain).map(|piece| piece.text.as_str()).collect();
        let parts: Vec<String> =
            pieces.iter().filter(|p| !is_plain(p)).map(|p| [&*p.before, &*p.text, &*p.behind].concat()).collect();
        let mut whole = self.tokens.tokenizer().encode_batch_fast(whole, false)?.into_iter();
        let mut encoded = self.tokens.tokenizer().encode_batch(parts.clone(), false)?.into_iter().zip(&parts);
        let encoded = pieces.iter().filter_map(|piece| match is_plain(&piece) {
            true => {
                let unspelled = self.lost_characters(&piece.text);
                Some(Encoded {
                    unspelled,
                    ..Encoded::new(self.tokens.as_text(whole.next()?.get_ids().iter().copied()))
                })
            }
            false => {
                let (encoding, text) = encoded.next()?;
                let from = piece.before.len();
                let unspelled = match needs_places {
                    true => self.unspelled(text, from..from + piece.text.len(), &encoding),
                    false => self.lost_characters(&piece.text),
                };
                let places = encoding.get_offsets().iter().copied();
                let placed: Vec<_> = encoding.get_ids().iter().copied().zip(places).collect();
                Some(Encoded { unspelled, ..self.part(piece, &placed) })
            }
        });
        Ok(encoded.collect())
    }

    /// What of a text becomes nothing, where that is told by characters.
    fn lost_characters(&self, text: &str) -> Unspelled {
        let Spelling::ByCharacter(known) = &self.spelling else { return Unspelled::default() };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |c: char| *known.entry(c).or_insert_with(|| self.lost_of(c));
        Unspelled { unknown: 0, lost: text.chars().filter(|c| !c.is_whitespace()).map(of).sum() }
    }

    /// Bytes of a character that become nothing.
    fn lost_of(&self, c: char) -> u64 {
        let tokens = self.tokens.encode(c.encode_utf8(&mut [0; 4])).unwrap_or_default();
        let spelled: u64 = tokens.iter().map(|token| self.text_bytes(*token)).sum();
        (c.len_utf8() as u64).saturating_sub(if self.is_byte_level() { spelled } else { 4 * tokens.len() as u64 })
    }

    fn is_byte_level(&self) -> bool {
        matches!(self.tokens.tokenizer().get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
    }

    /// What of a part of a text no token stands for, or only the unknown one.
    fn unspelled(&self, text: &str, part: Range<usize>, encoding: &Encoding) -> Unspelled {
        let mut found = Unspelled::default();
        let lost = |from: usize, to: usize| {
            let gap = text.get(from..to.max(from)).unwrap_or_default();
            gap.chars().filter(|c| !c.is_whitespace()).map(|c| c.len_utf8() as u64).sum::<u64>()
        };
        let mut at = part.start;
        for (id, (start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let (start, end) = ((*start).clamp(at, part.end.max(at)), (*end).min(part.end));
            if end <= at {
                continue;
            }
            found.lost += lost(at, start);
            found.unknown += if Some(*id) == self.tokens.unknown() { (end - start) as u64 } else { 0 };
            at = end;
        }
        found.lost += lost(at, part.end);
        found
    }

    /// A piece's part of what was encoded: tokens, each with where its text begins and ends.
    fn part(&self, piece: &Piece, placed: &[(u32, (usize, usize))]) -> Encoded {
        let (from, to) = (piece.before.len(), piece.before.len() + piece.text.len());
        let all = || placed.iter().copied();
        let is_mine = |start: usize| start >= from && (start < to || piece.ends);
        let mine = || all().filter(|(_, (start, _))| is_mine(*start));
        let behind: Vec<u32> = all().filter(|(_, (start, _))| *start >= to && !piece.ends).map(|(id, _)| id).collect();
        // Where the text behind is short, the document ends there.
        let unsure = if piece.behind.len() + 4 > AROUND_BYTES { UNSURE_TOKENS } else { 0 };
        let sure = behind.len().saturating_sub(unsure).min(SEAM_TOKENS);
        let reach = mine().map(|(_, (_, end))| end).max().unwrap_or(to).saturating_sub(to);
        Encoded {
            tokens: self.tokens.as_text(mine().map(|(id, _)| id)),
            first: mine().map(|(_, (start, _))| start).next().unwrap_or(from).saturating_sub(from),
            seam: Seam {
                first: all().map(|(_, (start, _))| start).find(|start| *start >= to).unwrap_or(to + piece.behind.len())
                    - to,
                tokens: self.tokens.as_text(behind[..sure].iter().copied()),
                reach,
            },
            unspelled: Unspelled::default(),
        }
    }

    /// The tokens of a piece again, if they do not go on where those of the piece before ended. That is so only in text
    /// that repeats itself for longer than is looked back; there the piece is encoded by itself, so that nothing is
    /// lost.
    pub fn join(&self, seam: &Seam, piece: &Piece, encoded: Encoded) -> Result<Encoded, Error> {
        let compared = seam.tokens.len().min(encoded.tokens.len());
        let goes_on = match encoded.tokens.is_empty() {
            true => seam.first >= piece.text.len(),
            false => seam.first == encoded.first && seam.tokens[..compared] == encoded.tokens[..compared],
        };
        if piece.begins || goes_on {
            return Ok(encoded);
        }
        let mut from = seam.reach.min(piece.text.len());
        while !piece.text.is_char_boundary(from) {
            from += 1;
        }
        let rest = Piece { text: piece.text[from..].to_owned(), before: String::new(), ..piece.clone() };
        let unspelled = encoded.unspelled;
        Ok(Encoded { unspelled, ..self.encode(&[&rest])?.pop().unwrap_or_default() })
    }
}

/// Bytes that a token's name in a vocabulary stands for.
fn text_length(token: &str, byte_level: bool) -> usize {
    if byte_level {
        // Each byte is written as one character.
        return token.chars().count();
    }
    let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
    if is_byte { 1 } else { token.replace('▁', " ").len() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            piece::pieces_of,
            vocabulary::{EndOfText, TokenizerChoice, train},
        },
        *,
    };
    use nightjar_shared::tokenizer::load;
    use serde_json::{Value, json};

    /// A byte-level tokenizer, trained on a little.
    fn byte_level() -> Vec<u8> {
        let end = EndOfText::choose(&TokenizerChoice::Train(600), None).unwrap();
        let text =
            |i| format!("the quick brown fox  number {i}\n\n\tjumps   over <|endoftext|> the lazy dog's {i}\n----====");
        train(600, &end, (0..300).map(text)).unwrap()
    }

    /// One as SentencePiece makes them: no words, a mark for spaces, and one more where a text begins.
    fn sentence_piece(prefix: Value) -> Vec<u8> {
        let letters = "abcdefghijklmnopqrstuvwxyz▁\n-".chars().map(String::from);
        let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
        let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
        let mut tokens: Vec<String> = special.into_iter().chain(bytes).chain(letters).collect();
        let merges = [
            "t h",
            "th e",
            "▁ the",
            "▁ a",
            "o f",
            "▁ of",
            "▁ ▁",
            "▁▁ ▁▁",
            "i n",
            "in g",
            "- -",
            "-- --",
            "a n",
            "an d",
            "▁ ▁▁",
        ];
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(i, t)| (t.clone(), i.into())).collect();
        let added = |(id, content): (usize, &str)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true})
        };
        let added: Vec<Value> = ["<unk>", "<s>", "</s>"].into_iter().enumerate().map(added).collect();
        let mut tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added,
            "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocabulary, "merges": merges}
        });
        for (key, value) in prefix.as_object().unwrap() {
            tokenizer[key] = value.clone();
        }
        serde_json::to_vec(&tokenizer).unwrap()
    }

    fn prepending() -> Vec<u8> {
        sentence_piece(json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}}))
    }

    fn metaspace() -> Vec<u8> {
        sentence_piece(json!({"pre_tokenizer":
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}}))
    }

    fn all() -> Vec<(&'static str, Vec<u8>)> {
        let mut all = vec![("byte level", byte_level()), ("prepending", prepending()), ("metaspace", metaspace())];
        let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/tokenizers");
        for name in ["gpt2", "llama2", "llama3"] {
            all.extend(std::fs::read(cases.join(name).with_extension("json")).ok().map(|json| (name, json)));
        }
        all
    }

    fn texts() -> Vec<(&'static str, String)> {
        let words = ["the", "fox", "ing", "and", "a", "naïve", "東京", "🥊", "o'clock", "--", "of", "x1", "I'll"];
        let draw = |i: u64, n: usize| (nightjar_shared::rng::draw(3, 0, i) % n as u64) as usize;
        let joined = |space: &dyn Fn(u64) -> &'static str, n: u64| {
            (0..n).map(|i| format!("{}{}", words[draw(i, words.len())], space(i))).collect::<String>()
        };
        let spaces = [" ", " ", " ", "\n", "  ", "\n\n", "\n   ", "\t", " \n \n", "    "];
        vec![
            ("one line of words", joined(&|_| " ", 40_000)),
            ("words in every layout", joined(&|i| spaces[draw(i + 1_000_000, spaces.len())], 40_000)),
            ("words without spaces", joined(&|_| "", 40_000)),
            ("a run of spaces", format!("the{}of", " ".repeat(30_000))),
            ("runs of lines and dashes", ["\n".repeat(5_001), "-".repeat(7_003), " ".repeat(9_001)].concat()),
            ("characters of two and three bytes", ["äöü".repeat(6_000), "─".repeat(9_001)].concat()),
        ]
    }

    /// The tokens of a text that goes through in pieces.
    fn in_pieces(encoder: &Encoder, text: &str, piece_bytes: usize) -> Vec<u32> {
        let pieces = pieces_of(text, piece_bytes);
        assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<String>(), text);
        let encoded = encoder.encode(&pieces.iter().collect::<Vec<_>>()).unwrap();
        let (mut seam, mut tokens) = (Seam::default(), vec![]);
        for (piece, encoded) in pieces.iter().zip(encoded) {
            let encoded = encoder.join(&seam, piece, encoded).unwrap();
            tokens.extend(encoded.tokens);
            seam = encoded.seam;
        }
        tokens
    }

    #[test]
    fn pieces_have_the_tokens_of_the_whole_document() {
        for (name, json) in all() {
            let encoder = Encoder::new(&json, None).unwrap();
            let plain = load(&json).unwrap();
            for (what, text) in texts() {
                let whole = plain.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
                for piece_bytes in [3_000, 8_192] {
                    let pieces = in_pieces(&encoder, &text, piece_bytes);
                    let differs = whole.iter().zip(&pieces).position(|(a, b)| a != b);
                    assert!(
                        pieces == whole,
                        "{name}, {what} in {piece_bytes}: {differs:?} of {} and {}",
                        whole.len(),
                        pieces.len()
                    );
                }
            }
        }
    }

    /// A run that is longer than what is looked back at: its tokens may be others, but nothing is lost or doubled.
    #[test]
    fn nothing_is_lost_where_text_repeats_itself_for_long() {
        for (name, json) in all() {
            let encoder = Encoder::new(&json, None).unwrap();
            let plain = load(&json).unwrap();
            for text in [format!("the{}of", " ".repeat(150_000)), format!("a{}\n", "-".repeat(120_001))] {
                let tokens = in_pieces(&encoder, &text, 25_000);
                let decoded = plain.decode(&tokens, false).unwrap();
                let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
                assert_eq!(letters(&decoded), letters(&text), "{name}");
                assert!(decoded.len().abs_diff(text.len()) <= 45, "{name}: {} of {}", decoded.len(), text.len());
            }
        }
    }

    #[test]
    fn what_the_file_says_about_length_and_chance_does_not_act() {
        let json = byte_level();
        let mut value: Value = serde_json::from_slice(&json).unwrap();
        value["truncation"] = json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
        value["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<|endoftext|>"});
        value["model"]["dropout"] = json!(0.5);
        let other = Encoder::new(&serde_json::to_vec(&value).unwrap(), None).unwrap();
        let encoder = Encoder::new(&json, None).unwrap();
        for text in ["the", "the quick brown fox jumps over the lazy dog, and over the quick brown fox"] {
            assert_eq!(in_pieces(&other, text, 1 << 16), in_pieces(&encoder, text, 1 << 16));
        }
    }

    #[test]
    fn text_that_spells_a_special_token_stays_text() {
        let unigram = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["</s>", 0.0],
                ["<", -3.0], ["/", -3.0], ["s", -3.0], [">", -3.0], ["a", -3.0]]}});
        let mut ordinary: Value = serde_json::from_slice(&byte_level()).unwrap();
        ordinary["added_tokens"][0]["special"] = false.into();
        for (json, end) in [
            (byte_level(), "<|endoftext|>"),
            (prepending(), "</s>"),
            (metaspace(), "</s>"),
            (serde_json::to_vec(&unigram).unwrap(), "</s>"),
            (serde_json::to_vec(&ordinary).unwrap(), "<|endoftext|>"),
        ] {
            let encoder = Encoder::new(&json, Some(end)).unwrap();
            let id = encoder.end_of_text().unwrap();
            for text in [format!("a{end}a"), end.to_owned(), format!("{end}{end} a")] {
                let tokens = in_pieces(&encoder, &text, 1 << 16);
                assert!(!tokens.contains(&id) && tokens.len() > 1, "{end} in {text}: {tokens:?}");
            }
            assert_eq!(encoder.text_bytes(id), 0);
        }
    }

    /// The lab's own text and vocabulary, which lie beside the repository: the ids are those of the whole text at once.
    #[test]
    fn a_whole_book_has_the_tokens_of_the_whole() {
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let read = |name: &str| std::fs::read(data.join(name)).ok();
        let (Some(json), Some(text)) = (read("bpe4096.tokenizer.json"), read("train.txt")) else {
            eprintln!("skipped: there is no data beside the repository");
            return;
        };
        let text = String::from_utf8(text).unwrap();
        let whole = load(&json).unwrap().encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
        let encoder = Encoder::new(&json, None).unwrap();
        for piece_bytes in [64 << 10, 5_000] {
            assert!(in_pieces(&encoder, &text, piece_bytes) == whole, "{piece_bytes}");
        }
    }

    #[test]
    fn what_cannot_be_spelled_is_counted() {
        let count = |json: &[u8], text: &str, piece_bytes: usize| {
            let encoder = Encoder::new(json, None).unwrap();
            let pieces = pieces_of(text, piece_bytes);
            let encoded = encoder.encode(&pieces.iter().collect::<Vec<_>>()).unwrap();
            encoded.iter().fold((0, 0), |all, e| (all.0 + e.unspelled.unknown, all.1 + e.unspelled.lost))
        };
        let model = |model: Value, rest: Value| {
            let mut json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model});
            rest.as_object().unwrap().iter().for_each(|(key, value)| json[key] = value.clone());
            serde_json::to_vec(&json).unwrap()
        };
        let words = json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "the": 1, "fox": 2}});
        let words = model(words, json!({"pre_tokenizer": {"type": "Whitespace"}}));
        assert_eq!(count(&words, "the fox the\n fox", 1 << 16), (0, 0));
        assert_eq!(count(&words, "the brown fox", 1 << 16), (5, 0));
        let letters =
            json!({"type": "BPE", "dropout": null, "unk_token": null, "vocab": {"a": 0, "b": 1, " ": 2}, "merges": []});
        let letters = model(letters, json!({}));
        for piece_bytes in [5, 1 << 16] {
            assert_eq!(count(&letters, "ab xyz ab\nä ba", piece_bytes), (0, 5), "{piece_bytes}");
        }
        for (name, json) in all() {
            for (what, text) in texts().iter().take(2) {
                let (unknown, lost) = count(&json, text, 8_192);
                assert!(
                    unknown + lost == 0 || name != "gpt2" && name != "byte level",
                    "{name}, {what}: {unknown} and {lost}"
                );
            }
        }
    }
}
