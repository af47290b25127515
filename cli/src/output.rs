//! The only module that writes to the terminal: tables for people, JSON for scripts.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table};
use serde::Serialize;

/// A cell with a meaning that is worth a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub struct Field {
    text: String,
    tone: Option<Tone>,
}

impl Field {
    /// Text with a tone.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }
}

impl<T: Into<String>> From<T> for Field {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: None }
    }
}

/// Prints a table, or `nothing` when it has no row.
pub fn table(header: &[&str], rows: Vec<Vec<Field>>, nothing: &str) -> anyhow::Result<()> {
    if rows.is_empty() {
        return line(nothing);
    }
    let mut table = Table::new();
    let _styled = table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for row in rows {
        table.add_row(row.into_iter().map(cell));
    }
    let text: Vec<String> = table.lines().map(|text| text.trim_end().to_owned()).collect();
    line(&text.join("\n"))
}

/// The same with a column of nodes before the others, if the rows are of several agents.
pub fn by_agent<'a>(
    header: &[&str],
    rows: impl Iterator<Item = (Option<&'a str>, Vec<Field>)>,
    nothing: &str,
) -> anyhow::Result<()> {
    let mut several = false;
    let with_agent = |(agent, mut fields): (Option<&str>, Vec<Field>)| {
        if let Some(agent) = agent {
            several = true;
            fields.insert(0, agent.into());
        }
        fields
    };
    let rows = rows.map(with_agent).collect();
    let header: Vec<&str> = several.then_some("node").into_iter().chain(header.iter().copied()).collect();
    table(&header, rows, nothing)
}

/// Prints a line behind a mark of eight letters at most.
pub fn marked(indent: usize, mark: &Field, text: &str) -> anyhow::Result<()> {
    let word = format!("{:<8}", mark.text);
    let color = match mark.tone.filter(|_| io::stdout().is_terminal()) {
        Some(Tone::Good) => "32",
        Some(Tone::Warn) => "33",
        Some(Tone::Bad) => "31",
        None => return line(&format!("{:indent$}{word} {text}", "")),
    };
    line(&format!("{:indent$}\x1b[{color}m{word}\x1b[0m {text}", ""))
}

fn cell(field: Field) -> Cell {
    let color = match field.tone {
        Some(Tone::Good) => Some(Color::Green),
        Some(Tone::Warn) => Some(Color::Yellow),
        Some(Tone::Bad) => Some(Color::Red),
        None => None,
    };
    let cell = Cell::new(field.text);
    match color.filter(|_| io::stdout().is_terminal()) {
        Some(color) => cell.fg(color),
        None => cell,
    }
}

/// Prints a value as JSON.
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line. A reader that went away (`| head`) is no error.
pub fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints why the command failed. Nothing is left to do when even that fails.
pub fn error(error: &anyhow::Error) {
    let _written = writeln!(io::stderr(), "error: {}", weft_runtime::failure::words(error.as_ref()));
}

/// An identity without its scheme, which says nothing in a column of identities.
pub fn identity(uri: &str) -> &str {
    uri.strip_prefix("spiffe://").unwrap_or(uri)
}

/// Bytes as people read them: `17 B`, `4.2 kB`, `1.1 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration to the second (or millisecond when it is short): `12ms`, `3m 20s`.
pub fn duration(milliseconds: u64) -> String {
    let rounded = if milliseconds < 1000 { milliseconds } else { milliseconds / 1000 * 1000 };
    humantime::format_duration(std::time::Duration::from_millis(rounded)).to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{bytes, duration};

    #[rstest]
    #[case(0, "0 B")]
    #[case(999, "999 B")]
    #[case(1000, "1.0 kB")]
    #[case(1_530_000, "1.5 MB")]
    #[case(u64::MAX, "18446.7 PB")]
    fn how_bytes_read(#[case] count: u64, #[case] text: &str) {
        assert_eq!(bytes(count), text);
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(12, "12ms")]
    #[case(200_500, "3m 20s")]
    fn how_durations_read(#[case] milliseconds: u64, #[case] text: &str) {
        assert_eq!(duration(milliseconds), text);
    }
}
