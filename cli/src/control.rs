//! Looking at running bonds, and changing them: each running command has a control socket.
//!
//! `docs/CONTROL.md` has the protocol. A `server` answers for the [`program`] that runs; the commands `status`, `link`
//! and the like are its `client`s, and any script can be one. The sockets are Unix ones; on other systems a command runs
//! without.

#[cfg(unix)]
pub(crate) mod client;
#[cfg(unix)]
mod folder;
pub(crate) mod history;
pub(crate) mod program;
pub(crate) mod protocol;
mod report;
#[cfg(unix)]
mod server;
pub(crate) mod status;

use std::sync::Arc;

use clap::Args;

use self::program::Program;
use crate::failure::Failure;
use crate::signals::Stop;

/// The control socket of a command.
#[derive(Args)]
pub(crate) struct ControlOption {
    /// Name of this command for `bondwire status`, `link` and the like [default: the peer's name, else connect or listen];
    /// none for no control socket
    #[arg(long, value_name = "NAME")]
    control: Option<String>,
}

impl ControlOption {
    /// A name that is given otherwise.
    pub(crate) fn named(name: String) -> Self {
        Self { control: Some(name) }
    }

    /// The name that is wanted.
    pub(crate) fn name(&self) -> Option<&str> {
        self.control.as_deref()
    }
}

/// A running command that listens on its control socket.
pub(crate) struct Control {
    program: Arc<Program>,
    #[cfg(unix)]
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Control {
    /// Opens the control socket, over which `stop` can be asked for. Without one the command runs all the same, unless
    /// its user gave it a name.
    pub(crate) async fn open(
        option: &ControlOption,
        peer_name: Option<&str>,
        command: &'static str,
        stop: Stop,
    ) -> Result<Self, Failure> {
        let (wanted, usual) = (option.control.as_deref(), peer_name.unwrap_or(command));
        #[cfg(unix)]
        if wanted != Some("none") {
            return open_socket(wanted, usual, command, stop).await;
        }
        Ok(Self {
            program: Program::new(wanted.unwrap_or(usual).to_owned(), command, stop),
            #[cfg(unix)]
            server: None,
        })
    }

    /// The running command, to list bonds in.
    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Closes the socket, and waits until its file is gone.
    pub(crate) async fn close(self) {
        #[cfg(unix)]
        if let Some(server) = self.server {
            server.abort();
            // It was aborted, which is how it ends.
            let _ = server.await;
        }
    }
}

#[cfg(unix)]
async fn open_socket(
    wanted: Option<&str>,
    usual: &str,
    command: &'static str,
    stop: Stop,
) -> Result<Control, Failure> {
    use folder::FolderError;

    let folder = folder::path();
    let mut name = wanted.unwrap_or(usual).to_owned();
    let mut opened = folder::open(&folder, &name).await;
    if wanted.is_none() && matches!(opened, Err(FolderError::Taken(_))) {
        name = format!("{usual}-{}", std::process::id());
        opened = folder::open(&folder, &name).await;
    }
    let program = Program::new(name, command, stop);
    let server = match opened {
        Ok(socket) => Some(tokio::spawn(server::run(socket, Arc::clone(&program)))),
        Err(error) if wanted.is_some() => return Err(Failure::configuration(error)),
        Err(error) => {
            tracing::warn!("`bondwire status` will not show this command: {error}");
            None
        }
    };
    Ok(Control { program, server })
}
