//! A child process whose standard input and output are a link. It ends with the link, and so does all that it started.

use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::command_line::CommandLine;
use super::group::Group;
use crate::failure::one_line;

/// Time in which a child may end by itself when its input ends: what it still holds goes out.
const END_TIMEOUT: Duration = Duration::from_millis(300);
/// Time for the last words of a child that has ended, which others may keep open.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest line of standard error that is logged, in bytes.
const LINE_MAX_BYTES: usize = 400;
/// Lines of standard error that are logged in each [`LINES_INTERVAL`].
const LINES_MAX: u32 = 20;
const LINES_INTERVAL: Duration = Duration::from_secs(1);

/// What became of a child.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    /// For people.
    pub(crate) text: String,
    /// Its exit code, if it ended by itself.
    pub(crate) code: Option<i32>,
    /// The last line that it wrote to standard error.
    pub(crate) last_line: String,
}

/// The pipes to a child. When they are dropped the child ends.
pub(crate) struct ChildIo {
    /// `None` once it is closed.
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What became of the child, once it has ended.
    fate: watch::Receiver<Option<Fate>>,
    read_end: Ending,
    write_end: Ending,
    _released: oneshot::Sender<()>,
}

impl ChildIo {
    /// Starts `command`. `children` counts those that run.
    pub(crate) fn start(command: &CommandLine, children: watch::Sender<usize>) -> io::Result<Self> {
        let name = command.to_string();
        let [program, arguments @ ..] = command.words() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        Group::make(&mut command);
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start {program}: {error}")))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(error)) = pipes else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let last_line = Arc::new(Mutex::new(String::new()));
        let words = Words { task: tokio::spawn(log_lines(error, name, Arc::clone(&last_line))), last_line };
        let (told, fate) = watch::channel(None);
        let (released, link_ended) = oneshot::channel();
        children.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            supervise(child, link_ended, words, told).await;
            children.send_modify(|count| *count -= 1);
        });
        Ok(Self {
            input: Some(input),
            output,
            fate,
            read_end: Ending::default(),
            write_end: Ending::default(),
            _released: released,
        })
    }

    /// Hears when the child has ended.
    pub(crate) fn fate(&self) -> watch::Receiver<Option<Fate>> {
        self.fate.clone()
    }
}

/// What a child says on standard error.
struct Words {
    task: JoinHandle<()>,
    last_line: Arc<Mutex<String>>,
}

/// Waits for the end of the child or of its link, and sees that nothing of it is left.
async fn supervise(
    mut child: Child,
    link_ended: oneshot::Receiver<()>,
    mut words: Words,
    told: watch::Sender<Option<Fate>>,
) {
    let group = Group::of(&child);
    let by_itself = tokio::select! {
        status = child.wait() => status.ok(),
        _ = link_ended => timeout(END_TIMEOUT, child.wait()).await.ok().and_then(Result::ok),
    };
    if let Some(status) = by_itself {
        // What it started shall not hold its pipes.
        group.terminate();
        let _ = timeout(LAST_WORDS_TIMEOUT, &mut words.task).await;
        told.send_replace(Some(fate(status, &words)));
    }
    group.end(&mut child).await;
    words.task.abort();
    let ended = || Fate { text: "the link ended".to_owned(), code: None, last_line: String::new() };
    told.send_if_modified(|fate| fate.is_none() && fate.replace(ended()).is_none());
}

fn fate(status: ExitStatus, words: &Words) -> Fate {
    let last_line = words.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = if last_line.is_empty() {
        format!("the command ended ({status})")
    } else {
        format!("the command ended ({status}): {last_line}")
    };
    Fate { text, code: status.code(), last_line }
}

/// Logs the lines of `from`, as many as are worth reading, and keeps the last one.
async fn log_lines(mut from: ChildStderr, name: String, last_line: Arc<Mutex<String>>) {
    let mut lines = Lines::default();
    let mut quota = Quota::new(Instant::now());
    let mut buffer = [0; 4096];
    // An error is an end.
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        for line in lines.take(&buffer[..length]) {
            last_line.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&line);
            match quota.take(Instant::now()) {
                Ok(0) => tracing::info!("exec {name}: {line}"),
                Ok(left_out) => tracing::info!("exec {name}: ({left_out} lines left out) {line}"),
                Err(()) => {}
            }
        }
        tokio::task::consume_budget().await;
    }
    if let Some(line) = lines.rest() {
        tracing::info!("exec {name}: {line}");
        *last_line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that end within `bytes`, without those that are empty.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = LINE_MAX_BYTES - self.begun.len();
            self.begun.extend(&part[..part.len().min(room)]);
            if parts.peek().is_some() {
                whole.extend(self.rest());
            }
        }
        whole
    }

    /// What stands there without an end of line.
    fn rest(&mut self) -> Option<String> {
        let line = one_line(&String::from_utf8_lossy(&std::mem::take(&mut self.begun)));
        (!line.is_empty()).then_some(line)
    }
}

/// How many lines may still be logged.
struct Quota {
    since: Instant,
    taken: u32,
    left_out: u64,
}

impl Quota {
    fn new(now: Instant) -> Self {
        Self { since: now, taken: 0, left_out: 0 }
    }

    /// Whether a line may be logged, and how many were left out before it.
    fn take(&mut self, now: Instant) -> Result<u64, ()> {
        if now.duration_since(self.since) >= LINES_INTERVAL {
            (self.since, self.taken) = (now, 0);
        }
        if self.taken >= LINES_MAX {
            self.left_out += 1;
            return Err(());
        }
        self.taken += 1;
        Ok(std::mem::take(&mut self.left_out))
    }
}

/// Why one direction ended. Each has its own, for each may be polled by a task of its own.
#[derive(Default)]
struct Ending(Option<Pin<Box<dyn Future<Output = String> + Send>>>);

impl Ending {
    fn has_begun(&self) -> bool {
        self.0.is_some()
    }

    /// Waits a moment for what became of the child.
    fn poll(&mut self, cx: &mut Context<'_>, fate: &watch::Receiver<Option<Fate>>) -> Poll<io::Error> {
        let mut fate = fate.clone();
        let ending = self.0.get_or_insert_with(|| {
            Box::pin(async move {
                let told = timeout(2 * LAST_WORDS_TIMEOUT, fate.wait_for(Option::is_some)).await;
                let told = told.ok().and_then(Result::ok).and_then(|fate| fate.clone());
                told.map_or_else(|| "the command closed its end of the link".to_owned(), |fate| fate.text)
            })
        });
        let why = ready!(ending.as_mut().poll(cx));
        // For whoever asks once more.
        self.0 = Some(Box::pin(std::future::ready(why.clone())));
        Poll::Ready(io::Error::other(why))
    }
}

impl AsyncRead for ChildIo {
    /// The end of the child's output is an error that says what became of it.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_end.has_begun() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        this.read_end.poll(cx, &this.fate).map(Err)
    }
}

impl AsyncWrite for ChildIo {
    /// That the child reads no more is an error that says what became of it.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(input) = &mut this.input
            && !this.write_end.has_begun()
        {
            match ready!(Pin::new(input).poll_write(cx, buf)) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => return Poll::Ready(written),
            }
        }
        this.write_end.poll(cx, &this.fate).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Dropping closes the pipe.
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_cleaned() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"one\r\n\ntwo"), ["one"]);
        assert_eq!(lines.take(b" too\n\x1b[31mred"), ["two too"]);
        assert_eq!(lines.rest().unwrap(), "\u{fffd}[31mred");
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.take(&[b'x'; 100_000]), Vec::<String>::new());
        assert_eq!(lines.begun.len(), LINE_MAX_BYTES);
        assert_eq!(lines.take(b"y\nz\n"), ["x".repeat(LINE_MAX_BYTES), "z".to_owned()]);
    }

    #[test]
    fn a_flood_of_lines_is_counted_not_logged() {
        let start = Instant::now();
        let mut quota = Quota::new(start);
        let logged = (0..1000).filter(|_| quota.take(start).is_ok()).count();
        assert_eq!(logged, LINES_MAX as usize);
        assert_eq!(quota.take(start + LINES_INTERVAL), Ok(1000 - u64::from(LINES_MAX)));
        assert_eq!(quota.take(start + LINES_INTERVAL), Ok(0));
    }
}
