//! Whatever coordinator and shared code read. coordinator/tests/decoders.rs goes through the seeds.

mod dataset;
mod http;
mod model;
mod specs;
mod versions;
mod wire;

use crate::target::{SMALL, Target};
use nightjar_shared::model_spec::ModelSpec;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// All of them.
pub const TARGETS: [Target; 16] = [
    Target {
        name: "device_message",
        run: wire::device_message,
        bytes_max: 16 << 10,
        memory: [SMALL, 64],
        seeds: wire::device_messages,
    },
    Target {
        name: "coordinator_message",
        run: wire::coordinator_message,
        bytes_max: 64 << 10,
        memory: [SMALL, 64],
        seeds: wire::coordinator_messages,
    },
    Target {
        name: "worker_message",
        run: wire::worker_message,
        bytes_max: 64 << 10,
        memory: [SMALL, 64],
        seeds: wire::worker_messages,
    },
    Target {
        name: "invite_link",
        run: wire::invite_link,
        bytes_max: 40 << 10,
        memory: [SMALL, 256],
        seeds: wire::invite_links,
    },
    Target { name: "delta", run: versions::delta, bytes_max: 4 << 10, memory: [SMALL, 64], seeds: versions::deltas },
    Target {
        name: "keyframe",
        run: versions::keyframe,
        bytes_max: 4 << 10,
        memory: [SMALL, 64],
        seeds: versions::keyframes,
    },
    Target { name: "update", run: versions::update, bytes_max: 4 << 10, memory: [SMALL, 64], seeds: versions::updates },
    Target {
        name: "checkpoint",
        run: versions::checkpoint,
        bytes_max: 8 << 10,
        memory: [SMALL, 64],
        seeds: versions::checkpoints,
    },
    Target {
        name: "run_file",
        run: specs::run_file,
        bytes_max: 8 << 10,
        memory: [2 * SMALL, 4096],
        seeds: specs::run_files,
    },
    Target {
        name: "run_spec",
        run: specs::run_spec,
        bytes_max: 8 << 10,
        memory: [16 * SMALL, 1024],
        seeds: specs::run_specs,
    },
    Target {
        name: "manifest",
        run: specs::manifest,
        bytes_max: 8 << 10,
        memory: [SMALL, 1024],
        seeds: specs::manifests,
    },
    Target { name: "shard", run: specs::shard, bytes_max: 4 << 10, memory: [8 * SMALL, 64], seeds: specs::shards },
    Target {
        name: "model_folder",
        run: model::folder,
        bytes_max: 16 << 10,
        memory: [64 * SMALL, 1024],
        seeds: model::folders,
    },
    Target {
        name: "tokenizer",
        run: model::tokenizer,
        bytes_max: 16 << 10,
        memory: [64 * SMALL, 4096],
        seeds: model::tokenizers,
    },
    Target {
        name: "dataset",
        run: dataset::dataset,
        bytes_max: 8 << 10,
        memory: [256 * SMALL, 4096],
        seeds: dataset::datasets,
    },
    Target {
        name: "http",
        run: http::connection,
        bytes_max: 8 << 10,
        memory: [16 * SMALL, 256],
        seeds: http::connections,
    },
];

/// A model of a few numbers, of more than one block and chunk: what is read for it is short.
fn small_model() -> ModelSpec {
    ModelSpec {
        vocab_size: 70,
        hidden_size: 4,
        intermediate_size: 3,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        max_position_embeddings: 8,
        ..ModelSpec::tiny()
    }
}

thread_local! {
    /// Where files lie that are read by their path.
    static FOLDER: tempfile::TempDir = temporary();
}

/// A folder, in memory where the system has room for files there.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for files")
}

/// A folder that holds these files and no others.
fn put(files: &[(&str, &[u8])]) -> PathBuf {
    let folder = FOLDER.with(|folder| folder.path().join("files"));
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&folder)).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    folder
}
