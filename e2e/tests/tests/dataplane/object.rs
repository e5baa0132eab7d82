//! eBPF programs of the tests' own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What clang makes of a source file of the tests.
pub(crate) fn object(source: &str) -> Result<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("clang")
        .args(["-target", "bpf", "-O2", "-g", "-mcpu=v3", "-I"])
        .arg(here.join("../../speaker/ebpf"))
        .arg("-c")
        .arg(here.join("tests/dataplane").join(source))
        .args(["-o", "-"])
        .output()
        .context("cannot run clang")?;
    if !output.status.success() {
        bail!("clang: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
