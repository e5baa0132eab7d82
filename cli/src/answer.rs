//! What every answer can do: be printed for people and for programs, and say whether all is well.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::args::{Color, Global, Output};
use crate::text::Style;

/// The exit code of an answer that says that something is not well.
pub(crate) const NOT_WELL: u8 = 3;

/// An answer.
pub(crate) trait Answer: Serialize {
    /// For people.
    fn text(&self, style: Style) -> String;

    /// Whether all that it is about is well.
    fn is_well(&self) -> bool;
}

/// How the answer is to be coloured.
pub(crate) fn style(flags: &Global) -> Style {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = match flags.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stdout().is_terminal() && !no_color,
    };
    Style { color }
}

/// The answer as it is asked for.
///
/// # Errors
///
/// If it can't be put into the format.
pub(crate) fn render<A: Answer>(answer: &A, flags: &Global) -> Result<String> {
    Ok(match flags.output {
        Output::Text => answer.text(style(flags)),
        Output::Json => serde_json::to_string_pretty(answer)? + "\n",
        Output::Yaml => {
            let mut text = serde_saphyr::to_string(answer).context("cannot write YAML")?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text
        }
    })
}

/// Prints a text. A reader that has gone away has seen enough.
///
/// # Errors
///
/// If it can't be written.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print the answer"),
    }
}

/// Prints an answer.
///
/// # Errors
///
/// If it can't be printed.
pub(crate) fn give<A: Answer>(answer: &A, flags: &Global) -> Result<ExitCode> {
    print(&render(answer, flags)?)?;
    Ok(if answer.is_well() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_WELL)
    })
}
