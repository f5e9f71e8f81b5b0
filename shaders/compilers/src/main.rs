//! Compiles every WGSL file of a folder with naga: to SPIR-V, MSL and HLSL, as wgpu does it for Vulkan, Metal and
//! Direct3D 12, without a device. Ends with 1, and says why, where naga refuses one.

use naga::{
    ShaderStage,
    back::{hlsl, msl, pipeline_constants::process_overrides, spv},
    valid::{Capabilities, ValidationFlags, Validator},
};
use std::{error::Error, fs, path::PathBuf, process::ExitCode};

/// What a kernel for matrix units begins with. It is compiled for Vulkan alone, where alone it is used
/// (`MatrixUnits::of`): naga's MSL passes four values where a pointer to one is wanted, and its HLSL has none.
const FOR_VULKAN: &str = "enable wgpu_cooperative_matrix;";

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: nightjar-shaders-compilers FOLDER");
        return ExitCode::FAILURE;
    };
    let files = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "wgsl")).collect();
    files.sort();
    let mut compiled = 0;
    for file in &files {
        match fs::read_to_string(file).map_err(Into::into).and_then(|text| compile(&text)) {
            Ok(()) => compiled += 1,
            Err(e) => eprintln!("{}: {e}", file.display()),
        }
    }
    println!("naga compiled {compiled} of {} texts", files.len());
    if compiled == files.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compile(text: &str) -> Result<(), Box<dyn Error>> {
    let (for_vulkan, in_half) = (text.contains(FOR_VULKAN), text.contains("enable f16;"));
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SHADER_FLOAT16, in_half);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP, for_vulkan);
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|e| e.emit_to_string(text))?;
    let (module, info) = process_overrides(&module, &info, None, &Default::default())?;

    let options = spv::Options { lang_version: if for_vulkan { (1, 6) } else { (1, 0) }, ..Default::default() };
    spv::write_vec(&module, &info, &options, None).map_err(|e| format!("to SPIR-V: {e}"))?;
    if for_vulkan {
        return Ok(());
    }
    let entry = Some((ShaderStage::Compute, "main".to_owned()));
    let options = msl::Options { lang_version: (2, 3), ..Default::default() };
    let pipeline = msl::PipelineOptions { entry_point: entry.clone(), ..Default::default() };
    msl::write_string(&module, &info, &options, &pipeline).map_err(|e| format!("to MSL: {e}"))?;
    // The older compiler has no f16.
    let shader_model = if in_half { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V5_1 };
    let options = hlsl::Options { shader_model, ..Default::default() };
    let (mut made, pipeline) = (String::new(), hlsl::PipelineOptions { entry_point: entry });
    hlsl::Writer::new(&mut made, &options, &pipeline)
        .write(&module, &info, None)
        .map_err(|e| format!("to HLSL: {e}"))?;
    Ok(())
}
