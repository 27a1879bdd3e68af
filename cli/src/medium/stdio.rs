//! `stdio:`: standard input and output of this program as one link, once.

use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bondwire::limits::MTU_MAX_BYTES;
use bondwire::link::{Acceptor, Dialer, LinkDescription, StreamLink};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout, stdin, stdout};
use tokio::sync::watch;

/// What a pipe's link says about itself. Nobody knows who holds the pipe's other end, so it counts as open to strangers.
pub(super) fn description(kind: &'static str, name: String) -> LinkDescription {
    LinkDescription { reliable: true, over_ip: true, ..LinkDescription::new(kind, name, MTU_MAX_BYTES) }
}

const NAME: &str = "standard input and output";

/// Both directions; `ended` hears when they are dropped.
#[derive(Debug)]
pub(crate) struct Stdio {
    input: Stdin,
    output: ClosingStdout,
    ended: watch::Sender<bool>,
}

impl Stdio {
    fn open(ended: watch::Sender<bool>) -> io::Result<StreamLink<Self>> {
        check_pipe()?;
        let stdio = Self { input: stdin(), output: ClosingStdout::new(), ended };
        Ok(StreamLink::new(stdio, description("stdio", NAME.to_owned())))
    }
}

fn check_pipe() -> io::Result<()> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "standard input or output is a terminal; stdio: is for a program that starts this one, such as ssh",
        ));
    }
    Ok(())
}

impl Drop for Stdio {
    fn drop(&mut self) {
        // The other end shall see the end of the link, not of this program. An error means that it is closed.
        let _ = close_stdout();
        self.ended.send_replace(true);
    }
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}

/// Gives the one link when it is first asked.
pub(super) struct StdioDialer {
    unused: Option<watch::Sender<bool>>,
}

impl StdioDialer {
    pub(super) fn new(ended: watch::Sender<bool>) -> Self {
        Self { unused: Some(ended) }
    }
}

impl Dialer for StdioDialer {
    type Link = StreamLink<Stdio>;

    fn name(&self) -> String {
        format!("stdio {NAME}")
    }

    async fn dial(&mut self) -> io::Result<Self::Link> {
        match self.unused.take() {
            Some(ended) => Stdio::open(ended),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "standard input has ended; start anew")),
        }
    }
}

/// Gives the one link, and then none.
pub(super) struct StdioAcceptor {
    unused: Option<StreamLink<Stdio>>,
}

impl StdioAcceptor {
    pub(super) fn new(ended: watch::Sender<bool>) -> io::Result<Self> {
        Ok(Self { unused: Some(Stdio::open(ended)?) })
    }
}

impl Acceptor for StdioAcceptor {
    type Link = StreamLink<Stdio>;

    fn name(&self) -> String {
        format!("stdio {NAME}")
    }

    async fn accept(&mut self) -> io::Result<Self::Link> {
        match self.unused.take() {
            Some(link) => Ok(link),
            None => std::future::pending().await,
        }
    }
}

/// Standard output that is really closed at its end, so that a program which reads it sees that end while this one goes
/// on.
#[derive(Debug)]
pub(crate) struct ClosingStdout(Stdout);

impl ClosingStdout {
    pub(crate) fn new() -> Self {
        Self(stdout())
    }
}

impl AsyncWrite for ClosingStdout {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Poll::Ready(close_stdout())
    }
}

#[cfg(unix)]
fn close_stdout() -> io::Result<()> {
    // The descriptor itself must stay taken: a file that got its number would receive what is printed.
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(nowhere)?)
}

#[cfg(not(unix))]
fn close_stdout() -> io::Result<()> {
    Ok(())
}
