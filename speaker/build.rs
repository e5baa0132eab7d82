//! Compiles the eBPF programs of `ebpf/` with clang; the object is embedded in the binary.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=ebpf");
    println!("cargo::rerun-if-env-changed=HERALD_CLANG");
    let clang = env::var("HERALD_CLANG").unwrap_or_else(|_unset| "clang".to_owned());
    let object =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("herald.o");
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-O2", "-g", "-mcpu=v3", "-fno-ident"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"])
        .args(["-fdebug-compilation-dir", "."])
        .args(["-c", "ebpf/herald.c", "-o"])
        .arg(&object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            println!("cargo::error=`{clang} -target bpf` failed on ebpf/herald.c: {status}");
        }
        Err(error) => println!(
            "cargo::error=cannot run {clang}: {error}; the eBPF programs need clang 14 or later \
             (Debian: apt-get install clang), or HERALD_CLANG=/path/to/clang"
        ),
    }
    // DWARF is of no use to the kernel and ten times the code; BTF, which aya needs, stays. Without
    // llvm-strip the object is merely larger.
    let strip = env::var("HERALD_LLVM_STRIP").unwrap_or_else(|_unset| "llvm-strip".to_owned());
    if let Err(error) = Command::new(strip).arg("-g").arg(&object).status() {
        println!("cargo::warning=the eBPF object keeps its DWARF: llvm-strip: {error}");
    }
}
