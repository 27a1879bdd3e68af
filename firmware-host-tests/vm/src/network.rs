//! Hosts of their own in the guest, as far as networks go.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::guest::wait_for;

/// How long one lasts if nobody ends it.
const FOREVER_SECONDS: &str = "1000000";

/// A network namespace (network_namespaces(7)), held by a process that does nothing else; gone when this value goes.
#[derive(Debug)]
pub struct Network(Child);

impl Network {
    /// A new one, with nothing in it but a loopback interface that is down.
    ///
    /// # Errors
    ///
    /// There is no `unshare`, or no right to use it.
    pub fn create() -> io::Result<Self> {
        let holder =
            Command::new("unshare").args(["-n", "sleep", FOREVER_SECONDS]).stdin(Stdio::null()).spawn()?;
        let network = Self(holder);
        let own = fs::read_link("/proc/self/ns/net")?;
        wait_for("the network namespace", || {
            fs::read_link(network.file()).ok().filter(|theirs| *theirs != own)
        })?;
        Ok(network)
    }

    /// The process in it: its number is the namespace's name for `ip link set … netns`.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.0.id()
    }

    /// The namespace's file, for nsenter(1).
    #[must_use]
    pub fn file(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.process()).into()
    }

    /// Has `work` done in it, on a thread that ends with it: sockets that it makes stay there.
    ///
    /// # Errors
    ///
    /// No right to enter, or what `work` says.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let file = File::open(self.file())?;
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let ended = thread::scope(|scope| scope.spawn(inside).join());
        ended.map_err(|_| io::Error::other("what was to be done in the network has panicked"))?
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It has only waited for this.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
