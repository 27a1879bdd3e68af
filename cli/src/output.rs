//! Results on standard output, and figures as people read them.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints one line.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Prints `text` as it is. A reader that has seen enough (`| head -1`) is no failure.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::configuration(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints one JSON object on one line.
pub(crate) fn json(object: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(object)
        .map_err(|error| Failure::configuration(format!("cannot write the result as JSON: {error}")))?;
    line(&text)
}

/// A number of bytes with a decimal unit: `340 kB`, `1.25 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (size, unit) in UNITS {
        if bytes >= size {
            let amount = bytes as f64 / size as f64;
            let decimals = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
            return format!("{amount:.decimals$} {unit}");
        }
    }
    format!("{bytes} B")
}

/// A rate in MB/s with the digits that matter: `0.011`, `12.5`, `1410`.
pub(crate) fn mbytes_per_second(rate: f64) -> String {
    let decimals = match rate {
        rate if rate < 0.1 => 4,
        rate if rate < 10.0 => 2,
        rate if rate < 1000.0 => 1,
        _ => 0,
    };
    format!("{rate:.decimals$} MB/s")
}

/// Rounds to three decimals, so that JSON figures stay short.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let shown: Vec<_> = [0, 999, 1_000, 340_200, 12_500_000, 1_250_000_000].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.00 kB", "340 kB", "12.5 MB", "1.25 GB"]);
        let shown: Vec<_> = [0.0115, 1.25, 12.5, 1410.4].map(mbytes_per_second).into();
        assert_eq!(shown, ["0.0115 MB/s", "1.25 MB/s", "12.5 MB/s", "1410 MB/s"]);
        assert_eq!(rounded(1.23456), 1.235);
    }
}
