//! Links the unwinder into the program where the C compiler has it as an archive (GNU/Linux), in place of a shared library that
//! every start would look for, map and relocate.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if (target("OS"), target("ENV")) != ("linux".to_owned(), "gnu".to_owned()) {
        return;
    }
    if let Some(folder) = folder_of("libgcc_eh.a") {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-lib=static=gcc_eh");
    }
}

/// Where the compiler that links has a library; nothing where it has none, or is none that can be asked.
fn folder_of(library: &str) -> Option<String> {
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let said = Command::new(linker).arg(format!("-print-file-name={library}")).output().ok()?;
    let path = String::from_utf8(said.stdout).ok()?;
    let path = Path::new(path.trim());
    // A bare name is what it was asked for, not found.
    path.is_absolute().then(|| path.parent()?.to_str().map(str::to_owned)).flatten()
}
