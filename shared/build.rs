//! Compiles the protobuf schemas with a compiler written in Rust: nothing needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/nightjar.proto", "proto/worker.proto", "proto/door.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    prost_build::Config::new().compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
