//! `exec:COMMAND`: the standard input and output of a program as a link.

use std::io;
use std::time::Duration;

use bondwire::limits::{DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN};
use bondwire::link::{Acceptor, Dialer, StreamLink};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::child::{ChildIo, Fate};
use super::command_line::CommandLine;
use super::stdio::description;

fn link(command: &CommandLine, child: ChildIo) -> StreamLink<ChildIo> {
    StreamLink::new(child, description("exec", name(command)))
}

fn name(command: &CommandLine) -> String {
    format!("exec {command}")
}

/// Runs the command for each link.
pub(super) struct ExecDialer {
    command: CommandLine,
    children: watch::Sender<usize>,
}

impl ExecDialer {
    pub(super) fn new(command: CommandLine, children: watch::Sender<usize>) -> Self {
        Self { command, children }
    }
}

impl Dialer for ExecDialer {
    type Link = StreamLink<ChildIo>;

    fn name(&self) -> String {
        name(&self.command)
    }

    async fn dial(&mut self) -> io::Result<Self::Link> {
        Ok(link(&self.command, ChildIo::start(&self.command, self.children.clone())?))
    }
}

/// Runs the command, and again when it has ended, with growing waits while it ends soon.
pub(super) struct ExecAcceptor {
    command: CommandLine,
    children: watch::Sender<usize>,
    /// The last child's end, and when it was started.
    last: Option<(watch::Receiver<Option<Fate>>, Instant)>,
    wait: Duration,
}

impl ExecAcceptor {
    pub(super) fn new(command: CommandLine, children: watch::Sender<usize>) -> Self {
        Self { command, children, last: None, wait: DIAL_BACKOFF_MIN }
    }
}

impl Acceptor for ExecAcceptor {
    type Link = StreamLink<ChildIo>;

    fn name(&self) -> String {
        name(&self.command)
    }

    async fn accept(&mut self) -> io::Result<Self::Link> {
        if let Some((fate, started)) = &mut self.last {
            // It cannot fail: the child's end is told before the sender goes.
            let fate = fate.wait_for(Option::is_some).await.ok().and_then(|fate| fate.clone());
            tracing::info!("{}: {}", name(&self.command), fate.map(|fate| fate.text).unwrap_or_default());
            if started.elapsed() > DIAL_BACKOFF_MAX {
                self.wait = DIAL_BACKOFF_MIN;
            }
            sleep(self.wait).await;
            self.wait = (self.wait * 2).min(DIAL_BACKOFF_MAX);
            self.last = None;
        }
        let child = ChildIo::start(&self.command, self.children.clone())?;
        self.last = Some((child.fate(), Instant::now()));
        Ok(link(&self.command, child))
    }
}
