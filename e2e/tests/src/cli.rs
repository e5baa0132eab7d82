//! `kubectl herald` on the lab.

use std::ffi::OsStr;

use anyhow::{Context as _, Result, ensure};
use herald_lab::{Lab, Output};
use serde_json::Value;

/// The exit code of an answer that says that something is not well.
pub const NOT_WELL: i32 = 3;

/// Runs it in the control plane's namespace, whatever comes of it.
///
/// # Errors
///
/// If it can't be run.
pub fn run(lab: &Lab, args: &[&str]) -> Result<Output> {
    let program = herald_lab::built("kubectl-herald")?;
    let mut command = vec![program.as_os_str()];
    command.extend(args.iter().map(OsStr::new));
    Ok(lab.exec("cp", command)?)
}

/// Its answer, and whether it says that all is well.
///
/// # Errors
///
/// If there is none: then what it says to that.
pub fn ask(lab: &Lab, args: &[&str]) -> Result<(bool, Value)> {
    let output = run(lab, &[args, &["--output", "json"]].concat())?;
    let code = output.status.code();
    ensure!(
        code == Some(0) || code == Some(NOT_WELL),
        "kubectl herald {} ended with {code:?}: {}",
        args.join(" "),
        output.stderr
    );
    let answer = serde_json::from_str(&output.stdout)
        .with_context(|| format!("it is no JSON: {:?}", output.stdout))?;
    Ok((code == Some(0), answer))
}
