//! The file of a recording. A thread of its own writes it, so that a disk that is slow or hangs holds up nothing else.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::format::BEGINNING;
use super::limits::{OPEN_TIMEOUT, QUEUE_MAX_BYTES, RECORDING_MAX_BYTES};
use crate::control::status::RecordingStatus;
use crate::failure::Failure;

/// Why a recording cannot begin.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("cannot record to {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("cannot record to {}: it is there and is no recording; name another file", path.display())]
    Foreign { path: PathBuf },
    #[error("cannot record to {}: it does not open within {} s", path.display(), OPEN_TIMEOUT.as_secs())]
    Late { path: PathBuf },
}

/// A file that is open for a recording.
pub(crate) struct RecordFile {
    path: PathBuf,
    file: File,
}

impl RecordFile {
    /// Makes the file. An earlier recording of that name is kept beside it, as `FILE.old`; anything else there is left alone.
    pub(crate) async fn create(path: &Path) -> Result<Self, Failure> {
        let at = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || create(&at));
        let late = || OpenError::Late { path: path.to_owned() };
        let opened = timeout(OPEN_TIMEOUT, opened).await.map_err(|_| Failure::configuration(late()))?;
        let file = opened.map_err(Failure::configuration)?.map_err(Failure::configuration)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Begins to write what is handed over.
    pub(super) fn start(self) -> Lines {
        Lines::start(self.path, self.file)
    }
}

fn create(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Io { path: path.to_owned(), error };
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() > 0 => {
            let mut beginning = Vec::new();
            let read = File::open(path)
                .and_then(|file| file.take(BEGINNING.len() as u64).read_to_end(&mut beginning));
            read.map_err(failed)?;
            if beginning != BEGINNING {
                return Err(OpenError::Foreign { path: path.to_owned() });
            }
            let mut old = path.as_os_str().to_owned();
            old.push(".old");
            fs::rename(path, old).map_err(failed)?;
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    File::create(path).map_err(failed)
}

/// What the thread that writes and the rest of the program know of each other.
#[derive(Default)]
struct Shared {
    path: PathBuf,
    waiting_bytes: AtomicUsize,
    written_lines: AtomicU64,
    skipped_lines: AtomicU64,
    ended: OnceLock<String>,
}

/// Where lines go.
pub(super) struct Lines {
    shared: Arc<Shared>,
    queue: Sender<Vec<u8>>,
    done: oneshot::Receiver<()>,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handed {
    Over,
    /// Too much waits already.
    Skipped,
    /// Nothing is written any more.
    Ended,
}

impl Lines {
    fn start(path: PathBuf, to: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared { path, ..Shared::default() });
        let (queue, lines) = mpsc::channel();
        let (is_done, done) = oneshot::channel();
        let writing = Arc::clone(&shared);
        thread::spawn(move || {
            if let Err(why) = write(to, &lines, &writing) {
                // Set once: this thread ends with it.
                let _ = writing.ended.set(why.to_string());
            }
            // Nobody may wait for it.
            let _ = is_done.send(());
        });
        Self { shared, queue, done }
    }

    /// Hands a line over, or leaves it out when too much waits. Never waits itself.
    pub(super) fn hand(&self, line: Vec<u8>) -> Handed {
        let (waiting, length) = (self.shared.waiting_bytes.load(Ordering::Relaxed), line.len());
        // A single line that is longer than all that may wait has its turn when nothing does.
        if waiting > 0 && waiting + length > QUEUE_MAX_BYTES {
            self.skip(1);
            return Handed::Skipped;
        }
        self.shared.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if self.shared.ended.get().is_some() || self.queue.send(line).is_err() {
            return Handed::Ended;
        }
        Handed::Over
    }

    /// Counts lines that are left out.
    pub(super) fn skip(&self, count: u64) {
        self.shared.skipped_lines.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn skipped_lines(&self) -> u64 {
        self.shared.skipped_lines.load(Ordering::Relaxed)
    }

    /// Why nothing is written any more.
    pub(super) fn ended(&self) -> Option<&str> {
        self.shared.ended.get().map(String::as_str)
    }

    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// A look that anybody may have at how it does.
    pub(super) fn look(&self) -> impl Fn() -> RecordingStatus + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || RecordingStatus {
            file: shared.path.display().to_string(),
            written_lines: shared.written_lines.load(Ordering::Relaxed),
            skipped_lines: shared.skipped_lines.load(Ordering::Relaxed),
            ended: shared.ended.get().cloned(),
        }
    }

    /// Hands over no more; waits until all is written, and answers why not if it was not.
    pub(super) async fn finish(self) -> Option<String> {
        drop(self.queue);
        // It ends with the thread in any case.
        let _ = self.done.await;
        self.shared.ended.get().cloned()
    }
}

/// Why the thread wrote no more.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it has its full length of {} MiB", RECORDING_MAX_BYTES >> 20)]
    Full,
}

/// Writes line by line, so that after a crash at most the last one is cut short.
fn write(mut to: impl Write, lines: &Receiver<Vec<u8>>, shared: &Shared) -> Result<(), WriteError> {
    let mut length = 0;
    while let Ok(line) = lines.recv() {
        length += line.len() as u64;
        if length > RECORDING_MAX_BYTES {
            return Err(WriteError::Full);
        }
        to.write_all(&line)?;
        shared.written_lines.fetch_add(1, Ordering::Relaxed);
        shared.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
    }
    Ok(to.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that takes a write only when it may.
    struct Slow(Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::Error::other("the disk is gone"))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_slow_file_has_lines_left_out_and_a_broken_one_ends_it() {
        let (go_on, gate) = mpsc::channel();
        let lines = Lines::start(PathBuf::from("slow"), Slow(gate));
        let line = vec![b'x'; QUEUE_MAX_BYTES / 4];
        for _ in 0..4 {
            assert_eq!(lines.hand(line.clone()), Handed::Over);
        }
        // The thread holds the first one, which still counts.
        assert_eq!(lines.hand(line.clone()), Handed::Skipped);
        assert_eq!((lines.skipped_lines(), lines.ended()), (1, None));
        // With room again, all goes on.
        for _ in 0..2 {
            go_on.send(()).unwrap();
        }
        while lines.look()().written_lines < 2 {
            tokio::task::yield_now().await;
        }
        while lines.shared.waiting_bytes.load(Ordering::Relaxed) > QUEUE_MAX_BYTES / 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lines.hand(line.clone()), Handed::Over);
        drop(go_on);
        while lines.ended().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lines.hand(Vec::new()), Handed::Ended);
        let status = lines.look()();
        assert_eq!((status.written_lines, status.skipped_lines), (2, 1));
        assert_eq!(lines.finish().await.as_deref(), Some("the disk is gone"));
    }

    #[test]
    fn an_earlier_recording_is_kept_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        create(&path).unwrap().write_all(BEGINNING).unwrap();
        create(&path).unwrap();
        assert_eq!(fs::read(folder.path().join("record.old")).unwrap(), BEGINNING);
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::write(&path, "a letter").unwrap();
        let error = create(&path).unwrap_err().to_string();
        assert!(error.ends_with("it is there and is no recording; name another file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
        assert!(matches!(create(folder.path()), Err(OpenError::Io { .. })));
    }
}
