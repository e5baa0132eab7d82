//! What README.md and docs/ say that can be run or looked up: blocks of code, and words set as code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its path from the root of the tree.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// Something that a document sets as code.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The document's path from the root of the tree.
    pub file: String,
    /// The number of its first line, from 1.
    pub line: usize,
    /// What it says, without indentation or backticks.
    pub text: String,
}

impl Piece {
    /// Where it is, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the tree.
///
/// # Errors
///
/// If it can't be read.
pub fn source(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
}

/// README.md and all of docs/, in the order of their names.
///
/// # Errors
///
/// If they can't be read.
pub fn documents() -> Result<Vec<Document>> {
    let mut names = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name();
        let name = name.to_str().context("a name that is no text")?;
        if Path::new(name).extension().is_some_and(|it| it == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let text = source(&name)?;
            Ok(Document { name, text })
        })
        .collect()
}

impl Document {
    /// Its lines with their numbers, each with whether it is of a block of code.
    fn lines(&self) -> Vec<(usize, &str, bool)> {
        let mut fenced = false;
        let mut indented = false;
        let mut after_blank = true;
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(self.text.lines()) {
            let fence = line.trim_start().starts_with("```");
            let blank = line.trim().is_empty();
            // Markdown wants a blank line before an indented block, else it is the paragraph's.
            indented = !fenced
                && (if blank {
                    indented
                } else {
                    line.starts_with("    ") && (indented || after_blank)
                });
            lines.push((number, line, fenced || fence || indented));
            if fence {
                fenced = !fenced;
            }
            after_blank = blank;
        }
        lines
    }

    /// Its blocks of code, fenced or indented.
    pub fn blocks(&self) -> Vec<Piece> {
        let mut blocks = Vec::new();
        let mut block: Option<Piece> = None;
        let end = (usize::MAX, "", false);
        for (number, line, code) in self.lines().into_iter().chain([end]) {
            if !code {
                blocks.extend(block.take().map(|block| Piece {
                    text: unindented(&block.text),
                    ..block
                }));
                continue;
            }
            let block = block.get_or_insert_with(|| Piece {
                file: self.name.clone(),
                line: number,
                text: String::new(),
            });
            if !line.trim_start().starts_with("```") {
                block.text += line;
                block.text += "\n";
            }
        }
        blocks.retain(|block| !block.text.is_empty());
        blocks
    }

    /// What is between backticks outside of blocks, also over the end of a line.
    pub fn spans(&self) -> Vec<Piece> {
        let mut spans = Vec::new();
        let mut open: Option<Piece> = None;
        for (number, line, code) in self.lines() {
            if code || line.trim().is_empty() {
                open = None;
                continue;
            }
            for (index, part) in line.split('`').enumerate() {
                if index > 0 {
                    open = match open.take() {
                        Some(span) => {
                            spans.push(span);
                            None
                        }
                        None => Some(Piece {
                            file: self.name.clone(),
                            line: number,
                            text: String::new(),
                        }),
                    };
                }
                if let Some(span) = &mut open {
                    span.text += part;
                }
            }
            if let Some(span) = &mut open {
                span.text += " ";
            }
        }
        spans
    }
}

/// Without the indentation that all lines have in common.
fn unindented(block: &str) -> String {
    let lines = block.lines();
    let depth = lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start().len())
        .min();
    let lines = block.lines();
    let cut: Vec<&str> = lines
        .map(|line| line.get(depth.unwrap_or(0)..).unwrap_or_default())
        .collect();
    cut.join("\n").trim_end().to_owned()
}

/// The commands of a block, in order: a loop, a text that is put in by `<<EOF`, and lines that end in a
/// backslash stay together; what is a comment alone is left out.
pub fn commands(block: &Piece) -> Vec<Piece> {
    let mut commands: Vec<Piece> = Vec::new();
    let mut until: Option<&str> = None;
    let mut goes_on = false;
    for (number, line) in (block.line..).zip(block.text.lines()) {
        if until.is_some() || goes_on {
            if let Some(command) = commands.last_mut() {
                command.text += "\n";
                command.text += line;
            }
            if until == Some(line.trim()) {
                until = None;
            }
        } else if line.trim().is_empty() || line.starts_with('#') {
            continue;
        } else {
            commands.push(Piece {
                file: block.file.clone(),
                line: number,
                text: line.to_owned(),
            });
            until = if line.contains("<<EOF") {
                Some("EOF")
            } else if line.starts_with("for ") {
                Some("done")
            } else {
                None
            };
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document {
            name: "a.md".to_owned(),
            text: text.to_owned(),
        }
    }

    fn texts(pieces: &[Piece]) -> Vec<(usize, &str)> {
        pieces
            .iter()
            .map(|piece| (piece.line, piece.text.as_str()))
            .collect()
    }

    #[test]
    fn finds_blocks_that_are_indented_or_fenced() {
        let it = document(
            "text\n    more of it\n\n    one\n\n      two\n\ntext\n```sh\nthree\n```\n\n1. item\n\n       four\n",
        );
        assert_eq!(
            texts(&it.blocks()),
            [(4, "one\n\n  two"), (9, "three"), (15, "four")]
        );
    }

    #[test]
    fn finds_spans_outside_of_blocks_also_over_the_end_of_a_line() {
        let it = document("a `b` and `c\nd` e\n\n    echo `date`\n\nleft `open\n\n`f`\n");
        assert_eq!(texts(&it.spans()), [(1, "b"), (1, "c d"), (8, "f")]);
    }

    #[test]
    fn parts_commands_where_a_shell_does() {
        let it = document(
            "    # first\n    a \\\n      b\n    c <<EOF\n    d\n    EOF\n    for e in f; do\n      g\n    done\n    h\n",
        );
        assert_eq!(
            texts(&commands(&it.blocks()[0])),
            [
                (2, "a \\\n  b"),
                (4, "c <<EOF\nd\nEOF"),
                (7, "for e in f; do\n  g\ndone"),
                (10, "h")
            ]
        );
    }
}
