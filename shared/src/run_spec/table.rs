//! The table of the run spec's keys: each one's range, unit and words, in one place. Defaults are those of the types.

use super::keys::{Choice, Key, Kind, Section};
use crate::{
    model_spec::{Family, range},
    range::Range,
    wire::limits::TEXT_BYTES_MAX,
};

const fn count(name: &'static str, range: Range, help: &'static str) -> Key {
    Key::new(name, Kind::Count(range), help)
}

const fn long(name: &'static str, range: Range, help: &'static str) -> Key {
    Key::new(name, Kind::Long(range), help)
}

const fn number(name: &'static str, range: Range, help: &'static str) -> Key {
    Key::new(name, Kind::Number(range), help)
}

const fn word(name: &'static str, choices: &'static [Choice], help: &'static str) -> Key {
    Key::new(name, Kind::Word(choices), help)
}

const fn flag(name: &'static str, help: &'static str) -> Key {
    Key::new(name, Kind::Flag, help)
}

const fn text(name: &'static str, [least, most]: [usize; 2], help: &'static str) -> Key {
    Key::new(name, Kind::Text(least, most), help)
}

const fn to(least: f64, most: f64) -> Range {
    Range::new(least, most)
}

/// Longest description, in bytes: a few sentences.
const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Longest path that systems take, in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// Any number of 64 bits.
const ANY: Range = to(0.0, f64::MAX).said("0 or more, below 2^64");
/// Families of models.
const FAMILIES: &[Choice] = &[
    (Family::Llama.name(), "RMSNorm, rotary embedding, grouped-query attention, SwiGLU"),
    (Family::Qwen3.name(), "the same with a norm of each query and key; it cannot be trained yet"),
];
/// A learning rate.
const RATE: Range = to(f64::MIN_POSITIVE, 10.0).said("above 0, at most 10: at 0 nothing would be learnt");
/// How much of what was is kept: with all of it, it would never end.
const DECAY: Range = to(0.0, 0.999_999);

/// All sections in the order in which they are shown, each with its keys.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        help: "What the run is. These keys stand at the top of the file, above all sections.",
        keys: &[
            text("name", [1, TEXT_BYTES_MAX], "The run's name, which volunteers see.").needed(),
            text(
                "description",
                [0, DESCRIPTION_BYTES_MAX],
                "What the project is, in a sentence or two. Volunteers read it before they help.",
            )
            .may_change(),
            long("seed", ANY, "All of the run's randomness starts here: the first weights and the order of the data."),
            long(
                "token_budget",
                to(1.0, 1e18).said("at least 1, and at most 10^18"),
                "Tokens to train on in all. The learning rate's schedule ends here. The budget of a run that has begun \
                 can only be raised.",
            )
            .unit("tokens")
            .needed()
            .may_change(),
        ],
    },
    Section {
        name: "operator",
        help: "Who runs the run, and where volunteers can turn.",
        keys: &[
            text("name", [1, TEXT_BYTES_MAX], "A person, a lab, a school.").needed().may_change(),
            text("contact", [0, TEXT_BYTES_MAX], "A web page or an e-mail address.").unset("none").may_change(),
        ],
    },
    Section {
        name: "model",
        help: "The model's shape, in the keys of a Hugging Face config.json. What is left out is taken from the dataset \
               (vocabulary and context) and from the model of serve --init. Without either, a run trains a model of \
               0.8 million parameters over bytes.",
        keys: &[
            word("model_type", FAMILIES, "The model's family.").unset("\"llama\""),
            count("vocab_size", range::VOCAB_SIZE, "Size of the vocabulary: the tokenizer's, 256 for bytes.")
                .unit("tokens")
                .needed(),
            count(
                "hidden_size",
                range::HIDDEN_SIZE,
                "Width of the residual stream. It is a multiple of num_attention_heads.",
            )
            .needed(),
            count("intermediate_size", range::INTERMEDIATE_SIZE, "Width inside the feed-forward block.").needed(),
            count("num_hidden_layers", range::NUM_HIDDEN_LAYERS, "Number of decoder layers.").needed(),
            count(
                "num_attention_heads",
                range::NUM_ATTENTION_HEADS,
                "Number of query heads. A head's size, hidden_size / num_attention_heads, is even.",
            )
            .needed(),
            count(
                "num_key_value_heads",
                range::NUM_KEY_VALUE_HEADS,
                "Number of key and value heads. num_attention_heads is a multiple of it (grouped-query attention).",
            )
            .needed(),
            count("head_dim", range::HEAD_DIM, "Width of one head, an even number. Only hidden_size / num_attention_heads can be trained yet.")
                .unset("hidden_size / num_attention_heads"),
            count("max_position_embeddings", range::MAX_POSITION_EMBEDDINGS, "The context: the dataset's --context.")
                .unit("tokens")
                .needed(),
            number("rope_theta", range::ROPE_THETA, "Base of the rotary embedding's wavelengths.").needed(),
            number("rms_norm_eps", range::RMS_NORM_EPS, "Added to the mean square in RMSNorm.").needed(),
            flag("tie_word_embeddings", "Whether the output head is the embedding's transpose.").needed(),
        ],
    },
    Section {
        name: "inner",
        help: "What a device does in its inner steps, under a cosine schedule by the progress of the whole run.",
        keys: &[
            count(
                "batch_samples",
                to(1.0, 65536.0),
                "Samples in one inner step's batch, over all its micro-batches. A sample is as long as the context.",
            )
            .unit("samples"),
            number("learning_rate", RATE, "The schedule's peak."),
            number(
                "warmup",
                to(0.0, 0.99).said("a share of the token budget, 0 to 0.99"),
                "Over this share of the token budget the learning rate rises from zero to its peak.",
            ),
            number("floor", to(0.0, 1.0), "Share of the peak at which the cosine ends."),
            word(
                "optimizer",
                &[
                    ("adamw", "AdamW (arXiv 1711.05101)"),
                    (
                        "muon",
                        "Muon (arXiv 2502.16982) for the matrices of the layers, AdamW for embedding, head and gains; a \
                         step costs more, and devices of earlier releases cannot take part",
                    ),
                ],
                "What makes a step of a gradient. Learning rate and decay mean the same with both.",
            )
            .unset("\"adamw\""),
            number("muon_momentum", DECAY, "How much of a matrix's momentum the next step keeps.")
                .unset("0.95")
                .of("optimizer", &["muon"]),
            number("beta1", DECAY, "Decay of the first moment."),
            number("beta2", DECAY, "Decay of the second moment."),
            number("epsilon", to(1e-20, 1.0).said("1e-20 to 1"), "Added to the root of the second moment."),
            number("weight_decay", to(0.0, 10.0), "Decoupled decay of the weights, of matrices only."),
            number(
                "clip_norm",
                to(1e-9, 1e9).said("a positive number"),
                "Gradients above this global norm are scaled down to it.",
            ),
            word(
                "state",
                &[
                    ("keep", "the next lease goes on with it, as DiLoCo's workers do (arXiv 2311.08105)"),
                    ("reset", "every lease starts with moments of zero, and no device trains ahead"),
                ],
                "What becomes of the optimizer's state from one lease to the next.",
            ),
        ],
    },
    Section {
        name: "lease",
        help: "How much work a device is given at a time. Steps follow its measured speed (DyLU, arXiv 2401.09135), so \
               that every device reports after about the same time.",
        keys: &[
            word(
                "pacing",
                &[
                    ("free", "each by itself, after its wall time; merge.quorum deltas make a version"),
                    (
                        "rounds",
                        "all together; a version is made when all leases of the round are back, so no delta is stale",
                    ),
                    (
                        "series",
                        "as rounds, but so many at a time, each time from weights that an operator gives; for \
                         `nightjar-flower`. merge.rule is then \"mean\", with a learning rate of 1",
                    ),
                ],
                "When leases end.",
            ),
            number(
                "wall_s",
                to(0.1, 1e6),
                "How long a lease should take, from grant to delta. With rounds, a round takes that long at most, or \
                 ten times that where leases cost much besides training.",
            )
            .unit("seconds")
            .may_change(),
            number(
                "wall_s_end",
                to(0.1, 1e6),
                "How long a lease should take at the end of the token budget. Leases grow to it by the same factor for \
                 the same progress (post-local SGD, arXiv 1808.07217).",
            )
            .unit("seconds")
            .unset("all are as long as wall_s")
            .may_change(),
            number(
                "wall_s_min",
                to(0.1, 1e6),
                "The more deltas agree, the shorter a round is, down to this. If it is not less than wall_s, or steps are \
                 fixed, all rounds are as long as wall_s.",
            )
            .unit("seconds")
            .with("pacing", &["rounds", "series"])
            .may_change(),
            flag(
                "ahead",
                "Whether a device trains on while its delta travels. Its next lease begins with those steps.",
            ),
            long(
                "warm_tokens",
                to(0.0, 1e18).said("0 or more"),
                "Until so many tokens are merged, anchor nodes train alone, as long as any does. From a random start, \
                 many devices are no sooner there than the fastest.",
            )
            .unit("tokens")
            .unset("0")
            .may_change(),
            count(
                "steps",
                to(0.0, 100_000.0).said("1 to 100000; 0 for as many as fill the wall time"),
                "Inner steps of every lease, whatever the device's speed, as DiLoCo has it.",
            )
            .unit("steps"),
            count(
                "calibration_steps",
                to(1.0, 10_000.0),
                "Inner steps of a device's first lease, which measures its speed.",
            )
            .unit("steps")
            .may_change(),
            count("steps_max", to(1.0, 100_000.0), "Most inner steps in a lease.").unit("steps").may_change(),
            number(
                "deadline_factor",
                to(1.0, 1000.0),
                "A lease expires after this many times the wall time that it should take.",
            )
            .may_change(),
            number("deadline_s_min", to(0.1, 1e7), "A lease never expires sooner than this.")
                .unit("seconds")
                .may_change(),
        ],
    },
    Section {
        name: "delta",
        help: "How the change that a device sends up is coded.",
        keys: &[
            word(
                "codec",
                &[
                    ("blocks4", "4.06 bits a parameter, in blocks of 256 values"),
                    ("blocks8", "8.13 bits a parameter, in blocks of 256 values"),
                    ("blocks2", "2.06 bits a parameter, in blocks of 256 values"),
                    ("sparse2", "the k largest of each 4096 values, 0.15 bits a parameter with k = 64"),
                    ("f32", "32 bits a parameter: every value as it is"),
                ],
                "How its values are coded. The fewer the bits, the more is left to later deltas.",
            ),
            count("k", to(1.0, 4096.0), "How many of each 4096 values are sent.")
                .unit("values")
                .with("codec", &["sparse2"]),
            number(
                "feedback",
                to(0.0, 1.0),
                "Error feedback (SparseLoCo, arXiv 2508.15706): this share of what rounding took from earlier deltas \
                 is added to the next. 0 is none, 1 all of it.",
            ),
            word(
                "residual",
                &[
                    ("keep", "it is kept as it is"),
                    ("decay", "it is multiplied by the staleness weight of its age"),
                    ("drop", "it is dropped where it is older than one version"),
                ],
                "What becomes of that rest when it has grown old, or its delta never counted.",
            ),
        ],
    },
    Section {
        name: "merge",
        help: "How deltas become the next version: a buffer of them (FedBuff, arXiv 2106.06639) is averaged, each by its \
               tokens and its staleness, and the rule makes the outer step of the average.",
        keys: &[
            word(
                "rule",
                &[
                    ("mean", "θ ← θ − η·Δ (local SGD, FedBuff; FedAsync with a quorum of 1)"),
                    ("nesterov", "m ← μ·m + Δ, θ ← θ − η·(Δ + μ·m) (DiLoCo, arXiv 2311.08105)"),
                    (
                        "delayed_nesterov",
                        "the momentum moves only at every interval-th version (Asynchronous Local-SGD, arXiv 2401.09135)",
                    ),
                ],
                "The outer step, θ being the weights, Δ the average, η the learning rate and μ the momentum.",
            ),
            count("quorum", to(1.0, 100_000.0), "Deltas in the buffer that make a version.")
                .unit("deltas")
                .unset("1 with rounds, whose version waits for all, and 4 without"),
            number("grace_s", to(0.0, 1e6), "Once the quorum is there, latecomers are waited for so long.")
                .unit("seconds")
                .unset("a sixth of a round and at most 5, and 0 without rounds")
                .may_change(),
            number("learning_rate", RATE, "The outer step's learning rate, η."),
            number("momentum", DECAY, "The outer step's momentum, μ. At 0, nesterov is the mean.")
                .of("rule", &["nesterov", "delayed_nesterov"]),
            count("interval", to(1.0, 10_000.0), "The momentum moves at every so many versions.")
                .unit("versions")
                .with("rule", &["delayed_nesterov"]),
            number(
                "c",
                to(0.0, 1.0),
                "Share of the momentum that the versions in between apply. 1/interval spreads it evenly.",
            )
            .with("rule", &["delayed_nesterov"]),
            word(
                "average",
                &[
                    ("mean", "their weighted mean"),
                    (
                        "rda",
                        "lengths and directions apart, a tensor at a time, so that the step does not shrink as more \
                         deltas that disagree take part (Decoupled DiLoCo, arXiv 2604.21428)",
                    ),
                ],
                "How the deltas of the buffer are averaged.",
            )
            .unset("\"rda\" with lease.pacing = \"rounds\", else \"mean\""),
            word(
                "correction",
                &[
                    ("none", "nothing is done to it"),
                    ("heloco", "tensors that go against the momentum are turned towards it (HeLoCo, arXiv 2606.00271)"),
                ],
                "What is done to a delta before it is averaged.",
            ),
            word(
                "robust",
                &[
                    ("none", "nothing is done about them"),
                    (
                        "clip",
                        "tensors that are far from where the run was heading are drawn towards it (centred clipping, \
                         arXiv 2012.10333)",
                    ),
                    (
                        "direction",
                        "a delta counts by how far it points where the others point, and copies count once (after \
                         FLTrust, arXiv 2012.13995)",
                    ),
                ],
                "What is done about deltas that the version's others speak against. Of fewer than four deltas, all count \
                 as they are.",
            )
            .unset("\"none\""),
            long("staleness_max", ANY, "A delta more versions stale than this is not merged.")
                .unit("versions")
                .may_change(),
            number(
                "tokens_cap",
                to(1.0, 1e9).or_zero().said("1 or more; 0 for no cap"),
                "A delta counts as no more tokens than this many times the recent median of all deltas.",
            ),
            number(
                "norm_factor_max",
                to(1.0, 1e9).said("at least 1"),
                "A delta is not merged whose steps led more than this many times as far as those of the other devices. \
                 8, which earlier versions wrote down where nothing was set, counts as 2.",
            )
            .may_change(),
        ],
    },
    Section {
        name: "merge.staleness",
        help: "How much a delta counts that is τ versions stale. One line in [merge] says it, by default staleness = \
               { rule = \"polynomial\", power = 0.5 }.",
        keys: &[
            word(
                "rule",
                &[
                    ("constant", "1, whatever the staleness"),
                    ("polynomial", "(1 + τ)^−power (FedAsync, arXiv 1903.03934; FedBuff has a power of 0.5)"),
                    ("hinge", "1 up to a staleness of grace, then 1 / (slope·(τ − grace) + 1) (FedAsync)"),
                ],
                "The weight of a stale delta.",
            )
            .needed(),
            number("power", to(0.0, 10.0), "The exponent.").needed().of("rule", &["polynomial"]),
            number("grace", to(0.0, 1e9), "The staleness that costs nothing.")
                .unit("versions")
                .needed()
                .of("rule", &["hinge"]),
            number("slope", to(0.0, 1e9), "How fast the weight falls beyond it.").needed().of("rule", &["hinge"]),
        ],
    },
    Section {
        name: "publish",
        help: "How versions come to the devices: as updates, and now and then as a keyframe, the whole model.",
        keys: &[
            word(
                "codec",
                &[
                    ("blocks2", "2.03 bits a parameter"),
                    ("blocks4", "4.03 bits a parameter"),
                    ("blocks8", "8.03 bits a parameter"),
                ],
                "How an update's values are coded.",
            ),
            long(
                "keyframe_every",
                to(1.0, 1e6),
                "Every so many versions a keyframe is made, for devices that come anew and for a start after a crash.",
            )
            .unit("versions"),
        ],
    },
    Section {
        name: "evaluate",
        help: "When anchor nodes measure the held-out loss.",
        keys: &[
            long("every", to(1.0, 1e6), "Every so many versions.").unit("versions").may_change(),
            count("samples", to(1.0, 1e6), "Held-out samples in one measurement.").unit("samples").may_change(),
        ],
    },
    Section {
        name: "keep",
        help: "How long versions and merged deltas stay in the state folder. Without the section, all of them do. A version \
               or delta is removed once every limit that is set for it lets it go; what a start, a device on its way or the \
               proof of what is kept needs is never removed.",
        keys: &[
            long(
                "versions",
                to(1.0, 1e18).said("1 or more"),
                "So many of the newest versions stay: devices are led over them, and they can be exported.",
            )
            .unit("versions")
            .unset("all")
            .may_change(),
            long(
                "deltas",
                to(0.0, 1e18).said("0 or more"),
                "So many of the newest merged deltas stay: `verify` merges them again, and an audit can look at them. At 0 \
                 only those stay that a start needs.",
            )
            .unit("deltas")
            .unset("all")
            .may_change(),
            number(
                "days",
                to(0.01, 36_500.0),
                "Neither is removed before it is so old. Alone, it has both removed at that age.",
            )
            .unit("days")
            .unset("no age")
            .may_change(),
            long(
                "milestones",
                to(1.0, 1e18).said("1 or more"),
                "Of versions that are removed, the keyframe of every so many stays, to be exported later. Choose a multiple \
                 of publish.keyframe_every. Version 0 always stays.",
            )
            .unit("versions")
            .unset("version 0 alone")
            .may_change(),
        ],
    },
    Section {
        name: "track",
        help: "Where the coordinator writes down how the run goes: held-out and training loss, speed, traffic, over tokens. \
               A path that does not begin at the root begins at the folder that run.toml is in. What is changed here holds \
               from the next start.",
        keys: &[
            text("tensorboard", [1, PATH_BYTES_MAX], "The folder for TensorBoard's event files: `tensorboard --logdir FOLDER` shows them.")
                .unset("not written")
                .may_change(),
            text("csv", [1, PATH_BYTES_MAX], "A CSV file, one number a line: time, version, tokens, name, value.")
                .unset("not written")
                .may_change(),
        ],
    },
];
