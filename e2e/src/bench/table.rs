//! The results as people read them. Pure.

use std::fmt::Write as _;

use super::figure::{Goal, Of, Peer, Scope, Unit};
use super::results::{Row, Side, Standing};

/// The table, the verdict on the floors, and the notes.
#[must_use]
pub fn table(rows: &[Row], notes: &[String]) -> String {
    let ztunnel = rows.iter().any(|row| row.sides.iter().any(|side| side.peer == Peer::Ztunnel));
    let mut lines = vec![header(ztunnel)];
    let mut scope = None;
    for row in rows {
        if scope != Some(row.figure.scope) {
            scope = Some(row.figure.scope);
            lines.push(vec![heading(row.figure.scope).to_owned()]);
        }
        lines.push(cells(row, ztunnel));
    }
    let mut text = align(&lines);
    let asked: Vec<&Standing> = rows.iter().filter_map(|row| row.standing.as_ref()).collect();
    let floors = asked.iter().filter(|standing| standing.floor_met).count();
    let aims = asked.iter().filter(|standing| standing.aim_met).count();
    let _ = writeln!(text, "\nFloors of issue 4 met: {floors} of {}; aims: {aims}.", asked.len());
    for note in notes {
        let _ = writeln!(text, "Note: {note}");
    }
    text
}

fn header(ztunnel: bool) -> Vec<String> {
    let mut words = vec!["", "direct", "weft", "ratio", "floor", "", "aim", ""];
    if ztunnel {
        words.extend(["ztunnel", "ratio"]);
    }
    words.into_iter().map(str::to_owned).collect()
}

fn heading(scope: Scope) -> &'static str {
    match scope {
        Scope::TwoNodes => "TWO NODES",
        Scope::SameNode => "SAME NODE",
        Scope::Agent => "AGENTS",
    }
}

fn cells(row: &Row, ztunnel: bool) -> Vec<String> {
    let side = |peer| row.sides.iter().find(|side: &&Side| side.peer == peer);
    let value = |peer| side(peer).map_or("-".to_owned(), |side| number(side.median, row.figure.unit));
    let ratio = |peer| side(peer).and_then(|side| side.ratio).map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
    let mut cells = vec![row.figure.title.to_owned(), value(Peer::Direct), value(Peer::Weft), ratio(Peer::Weft)];
    cells.extend(goal_cells(row));
    if ztunnel {
        cells.extend([value(Peer::Ztunnel), ratio(Peer::Ztunnel)]);
    }
    cells
}

fn goal_cells(row: &Row) -> [String; 4] {
    let (Some(goal), Some(standing)) = (row.figure.goal, row.standing) else {
        return std::array::from_fn(|_| String::new());
    };
    let write = |value: f64, goal: Goal| match goal.of {
        Of::Ratio => format!("{value:.2}x"),
        Of::Value => number(value, row.figure.unit),
    };
    let mark = |met| if met { "pass" } else { "MISS" }.to_owned();
    let aim_mark = |met| if met { "pass" } else { "below" }.to_owned();
    [write(goal.floor, goal), mark(standing.floor_met), write(goal.aim, goal), aim_mark(standing.aim_met)]
}

/// A value with its unit, in three digits that matter.
fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if value >= 100_000.0 => format!("{:.0}k", value / 1e3),
        Unit::PerSecond if value >= 1000.0 => format!("{:.1}k", value / 1e3),
        Unit::PerSecond => format!("{value:.0}"),
        Unit::Microseconds if value >= 1000.0 => format!("{:.2} ms", value / 1e3),
        Unit::Microseconds => format!("{value:.0} us"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Gigabits => format!("{value:.2} Gbit/s"),
        Unit::Mebibytes => format!("{value:.1} MB"),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::Count => format!("{value:.1}"),
    }
}

/// The first column to the left, the others to the right; a line of one cell is a heading.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let long = lines.iter().filter(|line| line.len() > 1).filter_map(|line| line.get(column));
        long.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut written = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(written, "{cell:<width$}") } else { write!(written, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", written.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Results, Sample};

    #[test]
    fn a_table_of_three() {
        let mut results = Results::default();
        let mut add = |scope, key, peer, value| results.add(scope, key, peer, Sample { value, others: 0.0 });
        for (peer, value) in [(Peer::Direct, 90_000.0), (Peer::Weft, 36_000.0), (Peer::Ztunnel, 20_000.0)] {
            add(Scope::TwoNodes, "requests", peer, value);
        }
        add(Scope::TwoNodes, "requests-cpu", Peer::Weft, 41.26);
        add(Scope::Agent, "rss-idle", Peer::Weft, 15.04);
        results.note("twice".to_owned());
        results.note("twice".to_owned());
        let expected = [
            "                                       direct     weft  ratio    floor           aim         ztunnel  ratio",
            "TWO NODES",
            "requests/s, 32 kept connections         90.0k    36.0k  0.40x    0.36x  pass   0.45x  below    20.0k  0.22x",
            "  agents' CPU per 1000                      -  41.3 ms      -                                      -      -",
            "AGENTS",
            "memory of one node, both halves, idle       -  15.0 MB      -  14.0 MB  MISS  9.0 MB  below        -      -",
            "",
            "Floors of issue 4 met: 1 of 2; aims: 0.",
            "Note: twice",
        ];
        assert_eq!(table(&results.rows(), &results.notes).lines().collect::<Vec<_>>(), expected);
    }
}
