//! Figures and columns.

use std::fmt::Display;
use std::time::Duration;

/// Least, median and greatest in milliseconds; the upper one of two medians.
pub fn milliseconds(times: &[Duration]) -> String {
    range(times.iter().map(Duration::as_millis).collect())
}

/// Least, median and greatest; the upper one of two medians.
pub fn range<T: PartialOrd + Display>(mut all: Vec<T>) -> String {
    all.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    match (all.first(), all.get(all.len() / 2), all.last()) {
        (Some(least), Some(median), Some(greatest)) => format!("{least}/{median}/{greatest}"),
        _ => "-".to_owned(),
    }
}

/// The upper one of two medians; `None` of nothing.
#[must_use]
pub fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// Rows with their columns one below another.
pub fn aligned<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut all = vec![heading.map(str::to_owned)];
    all.extend(rows);
    let width = |column: usize| {
        let cells = all.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let filler = " ".repeat(width - cell.chars().count());
            line.extend([cell.as_str(), &filler, "  "]);
        }
        text.extend([line.trim_end(), "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_least_median_and_greatest() {
        let ms = |numbers: &[u64]| {
            let times: Vec<_> = numbers.iter().copied().map(Duration::from_millis).collect();
            milliseconds(&times)
        };
        assert_eq!(ms(&[30, 10, 20]), "10/20/30");
        assert_eq!(ms(&[7]), "7/7/7");
        assert_eq!(ms(&[]), "-");
        assert_eq!(range(vec![0.5, 0.25]), "0.25/0.5/0.5");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![["aaa".to_owned(), "b".to_owned()]];
        assert_eq!(aligned(["A", "BB"], rows), "A    BB\naaa  b\n");
    }
}
