//! Files as people write them: each mistake is told in one line, with its place, in words of the file.

use super::*;
use crate::engine;
use nightjar_shared::{ids::BlobHash, shard::Manifest};
use serde_json::json;
use std::{fs, path::Path};

const MODEL: &str = "[model]\nvocab_size = 500\nhidden_size = 64\nintermediate_size = 176\nnum_hidden_layers = 2\n\
                     num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 64\nrope_theta = 10000.0\n\
                     rms_norm_eps = 1e-5\ntie_word_embeddings = true\n";

/// Words that are of the language this is written in, and of no run file.
const NOT_FOR_PEOPLE: [&str; 16] = [
    "u32",
    "u64",
    "i64",
    "i128",
    "f64",
    "u128",
    "enum",
    "struct",
    "untagged",
    "variant",
    "invalid type",
    "unknown field",
    "expected a",
    "newtype",
    "serde",
    "Some(",
];

fn manifest() -> Manifest {
    let shard = |samples: u32| json!({"hash": BlobHash([1; 32]), "bytes": 1, "samples": samples, "text_bytes": 1});
    let (train, heldout) = ([shard(3000)], [shard(60)]);
    serde_json::from_value(json!({
        "format": 1, "context": 64, "vocab_size": 500, "tokenizer": null, "train": train, "heldout": heldout,
    }))
    .unwrap()
}

/// The whole way of a file up to its data: what it is refused with, or what is said.
fn outcome(bytes: &[u8]) -> Result<Vec<String>, String> {
    let RunFile { spec, mut notes } = parse(bytes).map_err(|error| error.to_string())?;
    engine::check(&spec, &manifest()).map_err(|error| error.to_string())?;
    notes.extend(on_dataset(&spec, &manifest()));
    Ok(notes)
}

fn refusal(text: &str) -> String {
    let why = outcome(text.as_bytes()).expect_err(text);
    assert!(!why.contains('\n'), "{why:?} is more than a line");
    assert!(!NOT_FOR_PEOPLE.iter().any(|word| why.contains(word)), "{why}");
    why
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let text = "name = 3\nnmae = \"x\"\n[lease]\nwall_s = \"long\"\npacing = \"sometimes\"\n[merge]\nstaleness = 4\nrule = 1\n";
    let (first, others) = parse_whole(text.as_bytes(), &Known::default()).unwrap_err();
    let all: Vec<_> = std::iter::once(first).chain(others).collect();
    let mut lines: Vec<_> = all.iter().map(|fault| fault.place.map(|(line, _)| line)).collect();
    lines.sort_unstable();
    assert_eq!(lines, [None, Some(1), Some(2), Some(4), Some(5), Some(7), Some(8)], "{all:?}");
    assert!(all.iter().any(|fault| fault.why.starts_with("token_budget is missing; ")), "{all:?}");
    assert_eq!(parse(text.as_bytes()).unwrap_err().place, all[0].place);
}

/// A file with a mistake in the first lines.
fn above(text: &str) -> String {
    refusal(&format!("name = \"t\"\n{text}\n{MODEL}"))
}

/// A file with more below the model.
fn below(text: &str) -> String {
    refusal(&format!("name = \"t\"\ntoken_budget = 200000\n{MODEL}{text}\n"))
}

#[test]
fn whole_numbers_are_written_as_people_write_them() {
    let budget = |text: &str| {
        parse(format!("name = \"t\"\ntoken_budget = {text}\n{MODEL}").as_bytes()).unwrap().spec.token_budget
    };
    for text in ["2000000", "2e6", "2E6", "2.0e6", "2_000_000", "2000000.0", "0x1E8480", "+2000000"] {
        assert_eq!(budget(text), 2_000_000, "{text}");
    }
    assert_eq!(
        above("token_budget = 2.5"),
        "2:16: token_budget is 2.5; a whole number is needed: at least 1, and at most 10^18"
    );
    assert_eq!(above("token_budget = 2e400").split(';').next(), Some("2:16: token_budget is 2e400"));
    assert!(above("token_budget = 1e30").contains("that is too large; allowed is at least 1"));
    assert!(above("token_budget = nan").contains("a whole number is needed"));
    assert!(above("token_budget = 5_000_000_000_000_000_000").contains("allowed is at least 1, and at most 10^18"));
    assert!(
        below("[merge]\nquorum = 5000000000")
            .contains("merge.quorum is 5000000000; that is too large; allowed is 1 to 100000")
    );
    assert!(below("[lease]\nsteps = -1").contains("lease.steps is -1; allowed is 1 to 100000; 0 for as many"));
    assert!(
        above("token_budget = 18446744073709551615")
            .starts_with("2:16: token_budget is 18446744073709551615; allowed is")
    );
    assert!(
        below("[evaluate]\nevery = 18446744073709551615").contains("evaluate.every is 18446744073709551615; allowed")
    );
    assert!(below("[delta]\nk = 64.5").contains("delta.k is 64.5; a whole number is needed: 1 to 4096"));
}

#[test]
fn a_key_of_another_place_is_led_there() {
    assert!(
        below("seed = 2\nname = \"x\"")
            .starts_with("14:1: seed and name stand below [model], so they belong to that section")
    );
    assert!(
        below("[inner]\ntoken_budget = 9")
            .contains("token_budget stands below [inner], so it belongs to that section; move")
    );
    assert!(
        above("token_budget = 9\nquorum = 2")
            .ends_with("3:1: quorum is no key of a run file; quorum is a key of [merge]")
    );
    assert!(above("token_budget = 9\nlearning_rate = 2").contains("learning_rate is a key of [inner] and of [merge]"));
    assert!(
        below("[inner]\nmomentum = 0.9").contains("inner.momentum is no key of [inner]; momentum is a key of [merge]")
    );
    assert!(below("[inner]\nlearnin_rate = 0.9").contains("did you mean learning_rate?"));
    assert!(below("[leases]\nwall_s = 2").contains("[leases] is no section of a run file; did you mean [lease]?"));
    assert!(below("[optimizer]\nx = 2").contains("its sections are [operator], [model], [inner]"));
    assert!(
        below("[merge.staleness]\nrule = \"hinge\"\ngrace = 1")
            .contains("merge.staleness has no slope; write staleness = {")
    );
    assert!(
        below("[merge]\nstaleness = { rule = \"constant\", power = 1 }").contains("has power, which its rule does not")
    );
    assert!(
        below("[merge]\nstaleness = { rule = \"polynomial\", power = \"x\" }")
            .contains("merge.staleness.power is \"x\"")
    );
    assert!(below("[[inner]]\nbeta1 = 0.9").contains("it is a section: a line [inner]"));
    assert!(above("token_budget = 9\nlease = 60").contains("lease is 60; it is a section"));
    assert!(below("[evaluate.samples]\nx = 1").contains("evaluate.samples is"));
}

#[test]
fn values_of_another_kind_are_named() {
    assert!(above("token_budget = \"2M\"").starts_with("2:16: token_budget is \"2M\"; a whole number is needed"));
    assert!(above("token_budget = [1]").contains("token_budget is [1]; a whole number"));
    assert!(above("token_budget = 2026-01-01").contains("token_budget is 2026-01-01; a whole number"));
    assert!(
        refusal(&format!("name = 3\ntoken_budget = 9\n{MODEL}"))
            .starts_with("1:8: name is 3; a text is needed, in quotes")
    );
    assert!(below("[lease]\nahead = \"yes\"").contains("lease.ahead is \"yes\"; true or false is needed"));
    assert!(
        below("[lease]\npacing = \"round\"")
            .contains("allowed is \"free\", \"rounds\" or \"series\"; did you mean \"rounds\"?")
    );
    assert!(below("[merge]\nrule = 1").contains("allowed is \"mean\", \"nesterov\""));
    assert!(
        below("[inner]\nlearning_rate = inf")
            .contains("inner.learning_rate is inf; a finite number is needed: above 0")
    );
    let model = |from: &str, to: &str| refusal(&format!("name = \"t\"\ntoken_budget = 9\n{}", MODEL.replace(from, to)));
    assert!(model("rope_theta = 10000.0", "rope_theta = 1e-320").contains("model.rope_theta is 1e-320; allowed is"));
    assert!(model("rms_norm_eps = 1e-5", "rms_norm_eps = 1e18").contains("model.rms_norm_eps is 1e18; allowed is"));
    assert!(below("[publish]\ncodec = \"sparse2\"").contains("allowed is \"blocks2\", \"blocks4\" or \"blocks8\""));
}

#[test]
fn what_is_no_toml_is_explained() {
    assert!(refusal("{\n \"name\": \"x\"\n}").contains("it is JSON, not TOML"));
    assert!(refusal("---\nname: my run\n").contains("no TOML"));
    assert!(refusal("name: my run\n").ends_with("`name: my run` is written name = \"my run\""));
    assert!(refusal("seed: 5\n").ends_with("is written seed = 5"));
    assert!(above("token_budget = 2.000.000").contains("token_budget is 2.000.000; write 2000000 or 2_000_000"));
    assert!(above("token_budget = 2 000 000").contains("write 2000000 or 2_000_000"));
    assert!(below("[inner]\nlearning_rate = 0,002").contains("learning_rate is 0,002; write 0.002"));
    assert!(below("[lease]\nwall_s = 1,5").contains("wall_s is 1,5; write 1.5"));
    assert!(above("token_budget = 2,000,000").contains("write 2000000 or 2_000_000"));
    assert!(below("[lease]\nahead = yes").contains("ahead is yes; write true"));
    assert!(below("[lease]\nahead = off # for now").contains("ahead is off; write false"));
    assert!(above("token_budget = 2M").contains("token_budget is 2M; write 2e6"));
    assert!(above("token_budget = 1.5 billion").contains("token_budget is 1.5 billion; write 1.5e9"));
    assert!(below("[inner]\nwarmup = 5%").contains("warmup is 5%; write 0.05"));
    assert!(below("[lease]\nwall_s = 60s").contains("wall_s is 60s; write 60, a number without a unit"));
    assert!(below("[inner]\nlearning_rate = .002").contains("learning_rate is .002; write 0.002"));
    assert!(below("[inner]\nlearning_rate = 2.").contains("learning_rate is 2.; write 2.0"));
    for line in [
        "wall_s = 1e",
        "wall_s = 60 70",
        "wall_s = -",
        "wall_s = 1_",
        "= 3",
        "wall_s",
        "wall_s = 0x",
        "\"",
        "wall_s = \"a",
        "wall_s = [1",
        "wall_s = 2024-13-45",
        "wall_s = \"\\q\"",
    ] {
        let why = below(&format!("[lease]\n{line}"));
        for word in ["mantissa", "expected", "literal", "exponent", "invalid", "key-value", "unclosed"] {
            assert!(!why.contains(word), "{line}: {why}");
        }
    }
    assert!(refusal("name = my run\n").contains("1:8: it is no TOML: name is my run; a text needs quotes: \"my run\""));
    assert!(refusal("name = “my run”\n").contains("typographic quotation mark"));
    assert!(refusal("name =\n").contains("name has no value"));
    assert!(below("[lease]\nahead = True").ends_with("ahead is True; write true"));
    assert!(refusal("name = \"a\"\nname = \"b\"\n").starts_with("2:1: name is there twice"));
    assert!(refusal("name = \"a\"\n[model\n").contains("`[model` cannot be read"));
}

#[test]
fn what_a_file_holds_does_nothing_where_it_is_shown() {
    let why = above("token_budget = 9\n\"\\u001b[2J\\n\" = 1");
    assert!(why.contains("\u{FFFD}[2J\u{FFFD} is no key"), "{why}");
    assert!(above(&format!("token_budget = 9\n{} = 1", "k".repeat(5000))).chars().count() < 700);
    assert!(outcome(b"name = \"a\"\n\x1b[2J = 3\n").is_err_and(|why| !why.contains('\x1b')));
}

#[test]
fn encodings_are_told_apart() {
    let text = format!("name = \"t\"\ntoken_budget = 200000\n{MODEL}");
    parse(format!("\u{feff}{text}").as_bytes()).unwrap();
    parse(text.replace('\n', "\r\n").as_bytes()).unwrap();
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [&little[..], &big[..], &[&[0xFF, 0xFE], &little[..]].concat(), &[&[0xFE, 0xFF], &big[..]].concat()] {
        assert!(outcome(bytes).unwrap_err().contains("UTF-16 text, not UTF-8"));
    }
    let latin = b"# for K\xF6ln\nname = \"t\"\n";
    assert_eq!(outcome(latin).unwrap_err(), "1:8: it is not UTF-8 text; save it as UTF-8");
}

#[test]
fn what_is_hardly_meant_is_said() {
    let notes =
        |more: &str| outcome(format!("name = \"t\"\ntoken_budget = 200000\n{MODEL}{more}\n").as_bytes()).unwrap();
    assert_eq!(notes(""), [""; 0]);
    for (more, words) in [
        ("[lease]\nwall_s = 10\nwall_s_min = 60", "lease.wall_s_min is 60, more than lease.wall_s = 10"),
        ("[lease]\nwarm_tokens = 200000", "lease.warm_tokens is 200000, all of token_budget"),
        ("[lease]\npacing = \"free\"\nwall_s_min = 1", "lease.wall_s_min does nothing without"),
        ("[lease]\nsteps = 800", "lease.steps is 800, more than lease.steps_max = 500"),
        ("[delta]\nk = 32", "delta.k does nothing without delta.codec"),
        ("[merge]\ninterval = 2", "merge.interval does nothing without"),
        ("[merge]\ngrace_s = 1000", "merge.grace_s is 1000, more than lease.wall_s = 60"),
        (
            "[lease]\npacing = \"free\"\n[merge]\nquorum = 100000",
            "merge.quorum is 100000, more deltas than token_budget",
        ),
    ] {
        let notes = notes(more);
        assert!(notes.len() == 1 && notes[0].contains(words), "{more}: {notes:?}");
    }
    assert_eq!(notes("[lease]\nwall_s = 2.0"), [""; 0], "the default of wall_s_min is nobody's mistake");
    let none = Manifest { heldout: vec![], ..manifest() };
    let spec = parse(format!("name = \"t\"\ntoken_budget = 200000\n{MODEL}").as_bytes()).unwrap().spec;
    assert!(on_dataset(&spec, &none)[0].contains("no loss is measured"));
}

#[test]
fn a_setting_of_another_rule_is_led_to_it() {
    let why = below("[merge]\nmomentum = 0.9");
    let words =
        "15:12: merge.momentum is 0.9, which merge.rule = \"mean\" does not have; it needs merge.rule = \"nesterov\"";
    assert!(why.starts_with(words), "{why}");
    let text = |rule: &str| format!("name = \"t\"\ntoken_budget = 200000\n{MODEL}[merge]\n{rule}\n");
    let taken = |rule: &str| parse(text(rule).as_bytes()).unwrap();
    assert_eq!(taken("momentum = 0.0").notes, [""; 0], "that is what the mean has");
    assert_eq!(
        taken("rule = \"nesterov\"\ninterval = 2\nc = 0.5").notes,
        ["interval", "c"].map(|key| format!("merge.{key} does nothing without merge.rule = \"delayed_nesterov\""))
    );
    assert_eq!(taken("rule = \"delayed_nesterov\"\nmomentum = 0.9\ninterval = 2").notes, [""; 0]);
}

/// What a case comes to.
enum Right {
    /// It is refused with these words.
    Refused(&'static [&'static str]),
    /// It is taken, and these words are said.
    Said(&'static [&'static str]),
}

/// The cases that failed once, each with its right value; they lie beside the repository.
#[test]
fn the_cases_that_failed_once() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/run-toml");
    if !cases.is_dir() {
        eprintln!("skipped: {} is not there", cases.display());
        return;
    }
    let right = |case: &str| {
        use Right::{Refused, Said};
        match case {
            "r01-typo-key" => Refused(&["2:1: token_buget is no key", "did you mean token_budget?"]),
            "r02-typo-section" => Refused(&["3:2: [modell] is no section", "did you mean [model]?"]),
            "r03-budget-string" => Refused(&["2:16: token_budget is \"2M\"", "a whole number is needed"]),
            "r05-budget-negative" => Refused(&["token_budget is -5", "at least 1"]),
            "r06-budget-zero" => Refused(&["token_budget is 0", "at least 1"]),
            "r07-no-name" => Refused(&["name is missing"]),
            "r08-top-after-table" => {
                Refused(&["12:1: name and token_budget stand below [model]", "to the top of the file"])
            }
            "r09-model-partial" => {
                Refused(&["model.vocab_size is missing", "model.intermediate_size", "model.tie_word_embeddings"])
            }
            "r10-heads-divide" => Refused(&["5:15: model.hidden_size must be a multiple", "64 is no multiple of 5"]),
            "r11-vocab-small" => Refused(&["vocab_size = 500"]),
            "r12-context" => Refused(&["--context 128"]),
            "r13-lr-string" => Refused(&["inner.learning_rate is \"2e-3\"", "a number is needed"]),
            "r14-pacing" => Refused(&["lease.pacing is \"round\"", "\"free\", \"rounds\" or \"series\""]),
            "r15-mean-momentum" => Refused(&["merge.momentum is 0.9", "merge.rule = \"nesterov\""]),
            "r16-warmup-steps" => Refused(&["inner.warmup is 100", "a share", "0 to 0.99"]),
            // What it needs is compared with what the machine has when it is served.
            "r17-huge-model" => Said(&[]),
            "r18-seed-negative" => Refused(&["seed is -1", "0 or more"]),
            "r19-json" => Refused(&["JSON, not TOML"]),
            "r20-dup" => Refused(&["3:1: name is there twice", "duplicate key"]),
            "r21-codec" => {
                Refused(&["delta.codec is \"int4\"", "\"blocks4\", \"blocks8\", \"blocks2\", \"sparse2\" or \"f32\""])
            }
            "r22-batch" => Refused(&["60000", "smaller batch"]),
            "r24-quorum" => Refused(&["merge.quorum is 0", "1 to 100000"]),
            "r25-operator" => Refused(&["3:1: operator.name is missing"]),
            "r28-nan" => Refused(&["inner.learning_rate is nan", "a finite number"]),
            "r29-lr-zero" => Refused(&["inner.learning_rate is 0", "nothing would be learnt"]),
            "r30-hf-keys" => Refused(&["model.hidden_act is no key of [model]", "vocab_size"]),
            "r31-bool-string" => Refused(&["model.tie_word_embeddings is \"true\"", "true or false"]),
            "r32-budget-huge" => Refused(&["token_budget is 99999999999999999999", "too large"]),
            "r34-name-long" => Refused(&["name is 5000 bytes long", "1 to 256"]),
            "r35-kv" => Refused(&["model.num_attention_heads must be a multiple", "4 is no multiple of 3"]),
            "r36-head-odd" => Refused(&["the head size", "60 / 4 = 15", "odd"]),
            "r37-comma" => Refused(&["token_budget is 200,000", "200000 or 200_000"]),
            "r38-yaml" => Refused(&["1:", "no TOML", "name = "]),
            "r40-beta" => Refused(&["inner.beta2 is 1", "0 to 0.999999"]),
            "r41-keyframe" => Refused(&["publish.keyframe_every is 0", "1 to 1000000"]),
            "r42-staleness" => {
                Refused(&["merge.staleness is \"polynomial\"", "{ rule = \"polynomial\", power = 0.5 }"])
            }
            "r45-utf16" => Refused(&["UTF-16", "UTF-8"]),
            "r46-empty" => Refused(&["name is missing"]),
            "r04-budget-float" | "r27-int-float" | "r39-lr-1" | "r43-bom" | "r44-crlf" => Said(&[]),
            "r23-wall-min" => Said(&["lease.wall_s_min is 60, more than lease.wall_s = 10"]),
            "r26-eval-samples" => Said(&["evaluate.samples is 900000, more than the 60"]),
            "r33-budget-tiny" => Said(&["token_budget is 10, less than one step of 256 tokens"]),
            _ => panic!("{case} has no right value here"),
        }
    };
    let mut seen = 0;
    for entry in fs::read_dir(&cases).unwrap() {
        let folder = entry.unwrap().path();
        let case = folder.file_name().unwrap().to_string_lossy().into_owned();
        seen += 1;
        let Ok(bytes) = fs::read(folder.join("run.toml")) else {
            // A folder in place of a file is the command line's; there is nothing to parse.
            assert_eq!(case, "r47-dir");
            continue;
        };
        match (outcome(&bytes), right(&case)) {
            (Err(why), Right::Refused(words)) => {
                words.iter().for_each(|words| assert!(why.contains(words), "{case}: {why}"));
                assert!(!why.contains('\n') && !NOT_FOR_PEOPLE.iter().any(|word| why.contains(word)), "{case}: {why}");
            }
            (Ok(notes), Right::Said(words)) => {
                words
                    .iter()
                    .for_each(|words| assert!(notes.iter().any(|note| note.contains(words)), "{case}: {notes:?}"));
            }
            (Ok(notes), Right::Refused(_)) => panic!("{case} was not refused: {notes:?}"),
            (Err(why), Right::Said(_)) => panic!("{case} was refused: {why}"),
        }
    }
    assert_eq!(seen, 47);
}
