//! How it looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const BAR: usize = 40;

/// A heading with its number.
pub(crate) fn chapter(number: usize, title: &str) {
    println!("\n{number}  {title}\n");
}

/// Text below a heading.
pub(crate) fn say(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

/// A command as a user would give it, and what it printed.
pub(crate) fn shown(command: &str, output: &str) {
    say(&format!("$ {command}"));
    for line in output.trim_end().lines() {
        say(&format!("  {line}"));
    }
}

/// Shares as a bar chart.
pub(crate) fn bars(shares: &BTreeMap<String, usize>) -> String {
    let most = shares.values().copied().max().unwrap_or(1).max(1);
    let width = shares.keys().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (name, count) in shares {
        let bar = "#".repeat(count * BAR / most);
        // Writing to a String cannot fail.
        writeln!(text, "{name:width$}  {count:4}  {bar}").ok();
    }
    text
}
