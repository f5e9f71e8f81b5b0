//! Texts and layouts: naga takes each kernel as it stands, and finds in it what Rust takes for granted.

use naga::{
    AddressSpace, ScalarKind, StorageAccess, TypeInner,
    valid::{Capabilities, ValidationFlags, Validator},
};
use nightjar_shaders::{
    kernel::{Field, Kernel},
    table::KERNELS,
};

/// Parses and validates.
pub fn module(text: &str) -> Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let of =
        |extension: &str, capabilities| if text.contains(extension) { capabilities } else { Capabilities::empty() };
    let capabilities = of("enable f16;", Capabilities::SHADER_FLOAT16)
        | of("enable wgpu_cooperative_matrix;", Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

fn check(kernel: &Kernel) -> Result<(), String> {
    let (module, info) = module(kernel.source)?;
    let [entry] = &module.entry_points[..] else { return Err("it has not one entry point".into()) };
    if (entry.name.as_str(), entry.workgroup_size) != ("main", kernel.workgroup) {
        return Err(format!("its entry point is {}{:?}", entry.name, entry.workgroup_size));
    }
    let mut bindings = vec![];
    let last = module.global_variables.iter().filter_map(|(_, global)| Some(global.binding.as_ref()?.binding)).max();
    for (handle, global) in module.global_variables.iter() {
        let Some(binding) = &global.binding else { continue };
        let name = global.name.as_deref().unwrap_or("?");
        if global.space != (AddressSpace::Storage { access: StorageAccess::LOAD | StorageAccess::STORE }) {
            return Err(format!(
                "{name} is not read_write: tensors share buffers, which a launch cannot read and write"
            ));
        }
        // The runtime derives the layout from what is used.
        if info.get_entry_point(0)[handle].is_empty() {
            return Err(format!("{name} is never used"));
        }
        bindings.push((binding.group, binding.binding));
        if Some(binding.binding) == last {
            same_members(&module, name, global.ty, kernel.parameters)?;
        } else if binding.binding == 0 && !kernel.table.is_empty() {
            let TypeInner::Array { base, stride, .. } = module.types[global.ty].inner else {
                return Err(format!("{name} is no table"));
            };
            same_members(&module, name, base, kernel.table)?;
            if stride as usize != 4 * kernel.table.len() {
                return Err(format!("rows of {name} are {stride} bytes apart"));
            }
        }
    }
    bindings.sort_unstable();
    if bindings != (0..bindings.len() as u32).map(|n| (0, n)).collect::<Vec<_>>() || bindings.len() > 8 {
        return Err(format!("its bindings are {bindings:?}"));
    }
    Ok(())
}

/// Whether a structure has these members and no others.
fn same_members(
    module: &naga::Module,
    name: &str,
    ty: naga::Handle<naga::Type>,
    fields: &[Field],
) -> Result<(), String> {
    let TypeInner::Struct { members, .. } = &module.types[ty].inner else {
        return Err(format!("{name} has no members"));
    };
    if members.len() != fields.len() {
        return Err(format!("{} members of {name} in WGSL, {} in Rust", members.len(), fields.len()));
    }
    match members.iter().zip(fields).find(|(member, field)| !is_same(module, member, field)) {
        Some((member, field)) => Err(format!("{member:?} in WGSL is {field:?} in Rust")),
        None => Ok(()),
    }
}

fn is_same(module: &naga::Module, member: &naga::StructMember, field: &Field) -> bool {
    let word = match module.types[member.ty].inner {
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Uint, width: 4 }) => "u32",
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Sint, width: 4 }) => "i32",
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Float, width: 4 }) => "f32",
        _ => "something else",
    };
    (member.name.as_deref(), member.offset as usize, word) == (Some(field.name), field.offset, field.word)
}

#[test]
fn kernels_are_valid_and_laid_out_as_rust_has_them() {
    let wrong: Vec<String> =
        KERNELS.iter().filter_map(|k| check(k).err().map(|e| format!("{}: {e}", k.name))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// With `alias Elem = f16` a kernel that has it is valid as well.
#[test]
fn kernels_are_valid_in_half_the_width() {
    let halved: Vec<&&Kernel> = KERNELS.iter().filter(|k| k.source.contains("alias Elem")).collect();
    assert!(halved.len() >= 9);
    for kernel in halved {
        let text = format!("enable f16;\n{}", kernel.source.replace("alias Elem = f32;", "alias Elem = f16;"));
        if let Err(e) = module(&text) {
            panic!("{}: {e}", kernel.name);
        }
    }
}

#[test]
fn every_file_is_in_the_table_once() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/wgsl");
    let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.filter_map(|f| f.strip_suffix(".wgsl").map(String::from)).collect();
    let mut names: Vec<&str> = KERNELS.iter().map(|k| k.name).collect();
    files.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, files);
}

#[test]
fn a_layout_that_differs_is_noticed() {
    const WORDS: [Field; 2] =
        [Field { name: "rows", offset: 0, word: "u32" }, Field { name: "eps", offset: 4, word: "f32" }];
    const ROW: [Field; 2] =
        [Field { name: "at", offset: 0, word: "u32" }, Field { name: "by", offset: 4, word: "f32" }];
    let kernel = |source| Kernel { name: "t", source, parameters: &WORDS, table: &ROW, workgroup: [64, 1, 1] };
    let text = "struct P { rows: u32, eps: f32 }
        struct R { at: u32, by: f32 }
        @group(0) @binding(0) var<storage, read_write> table: array<R>;
        @group(0) @binding(1) var<storage, read_write> x: array<f32>;
        @group(0) @binding(2) var<storage, read_write> p: P;
        @compute @workgroup_size(64, 1, 1) fn main(@builtin(local_invocation_index) i: u32) {
            if i < p.rows { x[table[i].at] = table[i].by + p.eps; }
        }";
    let check_changed = |from: &str, to: &str| check(&kernel(Box::leak(text.replace(from, to).into_boxed_str())));
    assert_eq!(check_changed("", ""), Ok(()));
    for (from, to) in [
        ("rows: u32, eps: f32", "rows: u32, other: u32, eps: f32"),
        ("rows: u32, eps: f32", "@size(8) rows: u32, eps: f32"),
        ("rows: u32,", "rows: i32,"),
        ("eps: f32 }", "eps: f32, more: f32 }"),
        ("at: u32, by: f32", "by: f32, at: u32"),
        ("by: f32 }", "by: f32, more: f32 }"),
        ("by: f32 }", "@size(12) by: f32 }"),
        ("i < p.rows", "i < u32(p.rows) * 2.0"),
        ("@binding(2)", "@binding(3)"),
        ("i < p.rows { x[table[i].at] = table[i].by + p.eps; }", "i < 1u { x[table[i].at] = table[i].by; }"),
        ("storage, read_write> x", "storage> x"),
        ("size(64", "size(32"),
    ] {
        assert!(check_changed(from, to).is_err(), "{from} -> {to}");
    }
}
