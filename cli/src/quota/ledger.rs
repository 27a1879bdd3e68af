//! What links have carried, in a file that all processes of a user share.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::{Date, Duration};

/// The file's name.
const FILE: &str = "quota.json";
/// Links that the file keeps; those of the oldest months go first.
const LINKS_MAX: usize = 1000;
/// Longest file that is read, in bytes: far more than so many links need.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// A month of a quota, by its first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period(Date);

impl Period {
    /// The month that `today` lies in, when months begin on `reset_day`.
    pub(super) fn of(today: Date, reset_day: u8) -> Self {
        let first = today.replace_day(reset_day).unwrap_or(today);
        if first <= today {
            return Self(first);
        }
        let last_month = today.replace_day(1).unwrap_or(today) - Duration::DAY;
        Self(last_month.replace_day(reset_day).unwrap_or(last_month))
    }

    /// First day of the next one.
    pub(super) fn end(self) -> Date {
        let Self(first) = self;
        let next = first.replace_day(28).unwrap_or(first) + Duration::days(4);
        next.replace_day(first.day()).unwrap_or(next)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The file.
pub(super) struct Ledger {
    folder: Option<PathBuf>,
}

#[derive(Serialize, Deserialize, Default)]
struct Book(BTreeMap<String, Entry>);

#[derive(Serialize, Deserialize)]
struct Entry {
    since: String,
    used_bytes: u64,
}

impl Ledger {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// What `link` has carried in `period`, as far as it was written down.
    pub(super) fn used_bytes(&self, link: &str, period: Period) -> u64 {
        self.open().and_then(|mut file| read(&mut file)).map_or(0, |book| book.used_bytes(link, period))
    }

    /// Adds to what `link` has carried, and answers the sum.
    pub(super) fn add(&self, link: &str, period: Period, bytes: u64) -> io::Result<u64> {
        let mut file = self.open()?;
        let mut book = read(&mut file)?;
        let used_bytes = book.used_bytes(link, period) + bytes;
        book.0.insert(link.to_owned(), Entry { since: period.to_string(), used_bytes });
        while book.0.len() > LINKS_MAX {
            let oldest = book.0.iter().min_by_key(|(_, entry)| &entry.since).map(|(link, _)| link.clone());
            book.0.remove(&oldest.unwrap_or_default());
        }
        let text = serde_json::to_string_pretty(&book)?;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        Ok(used_bytes)
    }

    /// Opens the file for this process alone, until it is dropped.
    fn open(&self) -> io::Result<File> {
        let folder = self.folder.as_deref().ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir_all(folder)?;
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(folder.join(FILE))?;
        file.lock()?;
        Ok(file)
    }
}

/// A file that makes no sense begins anew: a wrong count must not keep a link from working.
fn read(file: &mut File) -> io::Result<Book> {
    let mut text = String::new();
    file.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

impl Book {
    fn used_bytes(&self, link: &str, period: Period) -> u64 {
        let entry = self.0.get(link).filter(|entry| entry.since == period.to_string());
        entry.map_or(0, |entry| entry.used_bytes)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use time::Month;

    use super::*;

    fn date(month: Month, day: u8) -> Date {
        Date::from_calendar_date(2026, month, day).unwrap()
    }

    #[test]
    fn months_begin_on_their_day() {
        let cases = [
            (date(Month::March, 15), 15, date(Month::March, 15), date(Month::April, 15)),
            (date(Month::March, 14), 15, date(Month::February, 15), date(Month::March, 15)),
            (date(Month::March, 31), 28, date(Month::March, 28), date(Month::April, 28)),
            (
                date(Month::January, 1),
                28,
                Date::from_calendar_date(2025, Month::December, 28).unwrap(),
                date(Month::January, 28),
            ),
            (
                date(Month::December, 31),
                1,
                date(Month::December, 1),
                Date::from_calendar_date(2027, Month::January, 1).unwrap(),
            ),
        ];
        for (today, reset_day, first, end) in cases {
            let period = Period::of(today, reset_day);
            assert_eq!((period, period.end()), (Period(first), end), "{today}, day {reset_day}");
        }
    }

    #[test]
    fn processes_add_up_and_a_new_month_begins_at_nothing() {
        let folder = TempDir::new().unwrap();
        let ledger = || Ledger::new(Some(folder.path().join("state")));
        let (march, april) = (Period(date(Month::March, 1)), Period(date(Month::April, 1)));
        assert_eq!(ledger().used_bytes("tcp:a", march), 0);
        assert_eq!(ledger().add("tcp:a", march, 5).unwrap(), 5);
        assert_eq!(ledger().add("tcp:a", march, 6).unwrap(), 11);
        assert_eq!(ledger().add("tcp:b", march, 1).unwrap(), 1);
        assert_eq!(ledger().used_bytes("tcp:a", march), 11);
        assert_eq!(ledger().add("tcp:a", april, 2).unwrap(), 2);
        fs::write(folder.path().join("state").join(FILE), "{\"tcp:a\": 7").unwrap();
        assert_eq!(ledger().used_bytes("tcp:a", april), 0, "a broken file begins anew");
        assert_eq!(ledger().add("tcp:a", april, 3).unwrap(), 3);
        assert!(Ledger::new(None).add("tcp:a", april, 1).is_err());
    }
}
