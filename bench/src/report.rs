//! What a scenario found, as tables for people and as one JSON object for programs.

use std::fmt;

use serde_json::{Map, Value};

/// The outcome of a scenario.
#[derive(Debug, Default)]
pub struct Report {
    /// What was measured and how, one line each: with the tables, all a stranger needs.
    pub conditions: Vec<String>,
    /// For people.
    pub tables: Vec<Table>,
    /// What could not be measured, or is wrong. Any makes the program fail.
    pub failures: Vec<String>,
    /// For programs.
    pub data: Map<String, Value>,
}

/// Rows of text under column heads.
#[derive(Debug, Default)]
pub struct Table {
    /// Column heads.
    pub columns: Vec<String>,
    /// Cells, as many in each row as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }
}

impl Report {
    /// A report under these conditions.
    #[must_use]
    pub fn new(conditions: &[String]) -> Self {
        Self { conditions: conditions.to_vec(), ..Self::default() }
    }

    /// The whole report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = self.data.clone();
        object.insert("conditions".into(), self.conditions.clone().into());
        object.insert("failures".into(), self.failures.clone().into());
        Value::Object(object)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            writeln!(f, "{condition}")?;
        }
        for table in &self.tables {
            writeln!(f, "\n{table}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                lines()
                    .filter_map(|line| line.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        for (index, line) in lines().enumerate() {
            write_line(f, line, &widths)?;
            if index == 0 {
                write_line(f, &rule, &widths)?;
            }
        }
        Ok(())
    }
}

/// One row as Markdown has it.
fn write_line(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    for (cell, &width) in cells.iter().zip(widths) {
        write!(f, "| {cell:width$} ")?;
    }
    writeln!(f, "|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["case", "rate"]);
        table.rows.push(vec!["equal".into(), "±1".into()]);
        assert_eq!(table.to_string(), "| case  | rate |\n| ----- | ---- |\n| equal | ±1   |\n");
    }
}
