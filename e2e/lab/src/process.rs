//! Running commands: what they print, and how they end, as values.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::iter;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use crate::error::{Error, Result};
use crate::place;

/// How a command ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, shortened, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code was 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The stdout of a command that has succeeded.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when the exit code was not 0.
    pub fn ok(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        let output = if self.stderr.trim().is_empty() {
            self.stdout
        } else {
            self.stderr
        };
        Err(Error::Command {
            command: self.command,
            status: self.status.to_string(),
            output,
        })
    }
}

/// Runs a command to its end. With `None` its stdin is empty.
pub(crate) fn output(command: &mut Command, input: Option<&str>) -> Result<Output> {
    let shown = show(command);
    let failed = |error: io::Error| Error::Command {
        command: shown.clone(),
        status: "not run".to_owned(),
        output: error.to_string(),
    };
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command may end without reading it all: its exit code tells more than our EPIPE.
            scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
        }
        child.wait_with_output()
    })
    .map_err(failed)?;
    Ok(Output {
        command: shown.clone(),
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command that must succeed; gives its stdout.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    output(command, None)?.ok()
}

/// As [`run`], with `input` at its stdin.
pub(crate) fn run_with(command: &mut Command, input: &str) -> Result<String> {
    output(command, Some(input))?.ok()
}

/// A command with `args`.
pub(crate) fn command<const N: usize>(program: &str, args: [&str; N]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Program and arguments as a person would type them, without the namespace prefix, shortened.
fn show(command: &Command) -> String {
    const LONGEST: usize = 160;
    let words: Vec<&OsStr> = iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let words: Vec<_> = place::skip_prefix(&words)
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    let mut text = words.join(" ");
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST).chain(['…']).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_exit_code_and_both_streams() {
        let shell = &mut command("sh", ["-c", "cat; echo bad >&2; exit 3"]);
        let output = output(shell, Some("in")).expect("sh runs");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("in", "bad\n")
        );
        let error = output.ok().expect_err("3 is no success");
        assert_eq!(
            error.to_string(),
            "`sh -c cat; echo bad >&2; exit 3` failed (exit status: 3)\n    bad"
        );
    }

    #[test]
    fn names_a_program_that_does_not_exist() {
        let error = run(&mut command("no-such-tool", ["x"])).expect_err("it does not exist");
        assert!(
            error
                .to_string()
                .starts_with("`no-such-tool x` failed (not run)"),
            "{error}"
        );
    }
}
