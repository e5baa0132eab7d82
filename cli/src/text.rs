//! Text for people: columns, marks, colours, ages.

use std::fmt::Write as _;

/// Whether and how texts are coloured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    pub(crate) color: bool,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// A fact, neither good nor bad.
    Info,
    /// Nobody can tell from here.
    Unknown,
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Problem,
}

impl Level {
    const fn mark(self) -> &'static str {
        match self {
            Self::Ok => "✓",
            Self::Info => "·",
            Self::Unknown => "?",
            Self::Warning => "!",
            Self::Problem => "✗",
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Info | Self::Unknown => "2",
            Self::Warning => "33",
            Self::Problem => "31",
        }
    }
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// The mark of a level.
    pub(crate) fn mark(self, level: Level) -> String {
        self.paint(level.code(), level.mark())
    }

    /// A text in the colour of a level.
    pub(crate) fn level(self, level: Level, text: &str) -> String {
        self.paint(level.code(), text)
    }

    /// A heading.
    pub(crate) fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// Rows with columns of equal width.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<(String, Option<Level>)>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell shows a hyphen.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| (cell, None)).to_vec());
    }

    /// Adds a row whose last cell has the colour of a level.
    pub(crate) fn row_with<const N: usize>(&mut self, cells: [String; N], last: Level) {
        self.row(cells);
        if let Some((_, level)) = self.rows.last_mut().and_then(|row| row.last_mut()) {
            *level = Some(last);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each indented by so many spaces.
    pub(crate) fn lines(&self, style: Style, indent: usize) -> String {
        let shown = |cell: &str| if cell.is_empty() { "-" } else { cell }.to_owned();
        let mut widths: Vec<usize> = self.header.iter().map(|text| text.len()).collect();
        for row in &self.rows {
            for (width, (cell, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(shown(cell).chars().count());
            }
        }
        let mut out = String::new();
        let mut line = |cells: Vec<(String, Option<Level>)>, is_header: bool| {
            out.extend(std::iter::repeat_n(' ', indent));
            let last = cells.len().saturating_sub(1);
            for (place, ((cell, level), width)) in cells.into_iter().zip(&widths).enumerate() {
                let gap = if place == last {
                    0
                } else {
                    width.saturating_sub(cell.chars().count()) + 2
                };
                out += &match level {
                    Some(level) => style.level(level, &cell),
                    None if is_header => style.heading(&cell),
                    None => cell,
                };
                out.extend(std::iter::repeat_n(' ', gap));
            }
            out.push('\n');
        };
        if self.header.iter().any(|text| !text.is_empty()) {
            let header = self.header.iter().map(|text| ((*text).to_owned(), None));
            line(header.collect(), true);
        }
        for row in &self.rows {
            let cells = row.iter().map(|(cell, level)| (shown(cell), *level));
            line(cells.collect(), false);
        }
        out
    }
}

/// A time span as kubectl shows it: its two largest units at most.
pub(crate) fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (minutes, hours, days) {
        (0..=1, ..) => format!("{seconds}s"),
        (2..=9, ..) if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        (_, 0..=2, _) => format!("{minutes}m"),
        (_, 3..=9, _) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (_, _, 0..=1) => format!("{hours}h"),
        (_, _, 2..=9) if hours % 24 > 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// A share as percent, never rounded to nothing or to all.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 1.0 {
        "<1 %".to_owned()
    } else if percent > 99.0 && percent < 100.0 {
        ">99 %".to_owned()
    } else {
        format!("{percent:.0} %")
    }
}

/// The texts with commas between them; "" if there are none.
pub(crate) fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = all.into_iter().map(|it| it.to_string()).collect();
    texts.join(", ")
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, singular: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    write!(text, "{number} {singular}").ok();
    if number != 1 {
        text.push('s');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "VALUE", "WHY"]);
        table.row([
            "a".to_owned(),
            "longer than the header".to_owned(),
            String::new(),
        ]);
        table.row_with(
            ["grün".to_owned(), String::new(), "bad".to_owned()],
            Level::Problem,
        );
        let plain = [
            "  NAME  VALUE                   WHY\n",
            "  a     longer than the header  -\n",
            "  grün  -                       bad\n",
        ]
        .concat();
        assert_eq!(table.lines(Style::default(), 2), plain);
        let colored = table.lines(Style { color: true }, 2);
        assert!(colored.contains("\x1b[31mbad\x1b[0m"), "{colored:?}");
        assert_eq!(strip(&colored), plain);
    }

    /// Without what only a terminal understands.
    fn strip(text: &str) -> String {
        let mut parts = text.split("\x1b[");
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |out, part| out + part.split_once('m').unwrap().1)
    }

    #[test]
    fn ages_read_as_those_of_kubectl() {
        let cases = [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3_600 * 2, "120m"),
            (3_600 * 3 + 60, "3h1m"),
            (3_600 * 30, "30h"),
            (86_400 * 2 + 3_600, "2d1h"),
            (86_400 * 400, "400d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_share_is_none_or_all_only_if_it_is() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.001, "<1 %"),
            (0.333_3, "33 %"),
            (0.999, ">99 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
