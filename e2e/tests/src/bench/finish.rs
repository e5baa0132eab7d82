//! How a program that measures on a lab ends.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use herald_lab::Lab;

use crate::cluster::report;
use crate::wait::{INTERRUPTED, go_on};

/// Form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Takes the lab down, unless it is to stay, and prints the result, which is worth it also when not all
/// could be measured.
pub fn finish(lab: &str, keep: bool, result: &str, measured: &Result<()>) -> ExitCode {
    let removed = if keep {
        Ok(())
    } else {
        Lab::down(lab).map(drop).context("taking the lab down")
    };
    let printed = writeln!(io::stdout(), "{result}").context("printing the result");
    let mut is_good = true;
    for error in [measured, &removed, &printed]
        .into_iter()
        .filter_map(|step| step.as_ref().err())
    {
        report(&format!("error: {error:#}"));
        is_good = false;
    }
    if is_good {
        ExitCode::SUCCESS
    } else if go_on().is_err() && removed.is_ok() {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::FAILURE
    }
}
