//! Ctrl-C and SIGTERM: the first asks the command to end well, the second ends the process at once.

use std::sync::Arc;

use tokio::sync::watch;

use crate::failure::{Exit, Failure};

/// Tells when the command is to end.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: watch::Receiver<Asked>,
    by: Arc<watch::Sender<Asked>>,
}

/// Who wants the command to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nobody,
    Signal,
    /// `bondwire stop`.
    Command,
}

/// Asks a command to end, as a signal does.
#[derive(Clone)]
pub(crate) struct Stop(Arc<watch::Sender<Asked>>);

impl Stop {
    pub(crate) fn now(&self) {
        ask(&self.0, Asked::Command);
    }
}

/// Whoever is first has asked.
fn ask(asked: &watch::Sender<Asked>, who: Asked) {
    asked.send_if_modified(|asked| {
        let first = *asked == Asked::Nobody;
        if first {
            *asked = who;
        }
        first
    });
}

impl Interrupt {
    /// Takes over the signals of the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let (by, asked) = watch::channel(Asked::Nobody);
        let by = Arc::new(by);
        let mut signals = Signals::new()
            .map_err(|error| Failure::configuration(format!("cannot listen for signals: {error}")))?;
        let signalled = Arc::clone(&by);
        tokio::spawn(async move {
            signals.next().await;
            ask(&signalled, Asked::Signal);
            signals.next().await;
            std::process::exit(Exit::Interrupted as i32);
        });
        Ok(Self { asked, by })
    }

    /// What asks for the end without a signal.
    pub(crate) fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.by))
    }

    /// Waits until the command is to end; answers how. Cancel safe.
    pub(crate) async fn wait(&mut self) -> Failure {
        match self.asked.wait_for(|asked| *asked != Asked::Nobody).await.as_deref() {
            Ok(Asked::Command) => Failure::stopped(),
            Ok(_) => Failure::interrupted(),
            // Cannot be: this holds the other end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs `work` until it ends or the command is to.
    pub(crate) async fn or<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            ended = self.wait() => Err(ended),
            result = work => result,
        }
    }
}

/// Tells when the configuration is to be read again.
#[cfg(unix)]
pub(crate) struct Reloads(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Reloads {
    /// Takes over SIGHUP, which else would end the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = signal(SignalKind::hangup());
        hang_up
            .map(Self)
            .map_err(|error| Failure::configuration(format!("cannot listen for signals: {error}")))
    }

    /// Waits for the next SIGHUP. Several at once are one. Cancel safe.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until the terminal or the program that started this one hangs up.
pub(crate) async fn hang_up() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut hang_up) = signal(SignalKind::hangup()) {
            hang_up.recv().await;
            return;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
