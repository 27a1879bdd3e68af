//! A child and all that it has started: a process group, where the system has those.

#[cfg(unix)]
pub(super) use unix::Group;

#[cfg(not(unix))]
pub(super) use other::Group;

#[cfg(unix)]
mod unix {
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
    use tokio::process::{Child, Command};
    use tokio::time::{Instant, sleep, timeout};

    /// Time between SIGTERM and SIGKILL.
    const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
    /// How often the rest of a group is looked at meanwhile.
    const CHECK_INTERVAL: Duration = Duration::from_millis(20);

    /// The process group of a child; `None` if that has ended already.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::medium) struct Group(Option<Pid>);

    impl Group {
        /// Gives the child of `command` a group of its own.
        pub(in crate::medium) fn make(command: &mut Command) {
            command.process_group(0);
        }

        pub(in crate::medium) fn of(child: &Child) -> Self {
            Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
        }

        /// Asks all of the group to end; `false` if nobody is left.
        pub(in crate::medium) fn terminate(self) -> bool {
            self.0.is_some_and(|group| kill_process_group(group, Signal::TERM).is_ok())
        }

        /// Asks all of the group to end, and ends those that do not.
        pub(in crate::medium) async fn end(self, child: &mut Child) {
            let deadline = Instant::now() + TERMINATE_TIMEOUT;
            if self.terminate() {
                // Reaped first, so that it does not count as a member any more.
                let _ = timeout(TERMINATE_TIMEOUT, child.wait()).await;
                while self.lives() && Instant::now() < deadline {
                    sleep(CHECK_INTERVAL).await;
                }
                if let Some(group) = self.0.filter(|_| self.lives()) {
                    tracing::debug!("process group {group:?} does not end on SIGTERM: SIGKILL");
                    // An error says that nobody is left.
                    let _ = kill_process_group(group, Signal::KILL);
                }
            }
            // It was reaped, or it is now; an error says that there is nothing to reap.
            let _ = child.wait().await;
        }

        fn lives(self) -> bool {
            self.0.is_some_and(|group| test_kill_process_group(group).is_ok())
        }
    }
}

#[cfg(not(unix))]
mod other {
    use tokio::process::{Child, Command};

    /// The child alone: there are no process groups.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::medium) struct Group;

    impl Group {
        pub(in crate::medium) fn make(_: &mut Command) {}

        pub(in crate::medium) fn of(_: &Child) -> Self {
            Self
        }

        /// Nobody can be asked.
        pub(in crate::medium) fn terminate(self) -> bool {
            false
        }

        /// Ends the child.
        pub(in crate::medium) async fn end(self, child: &mut Child) {
            // An error says that it has ended.
            let _ = child.kill().await;
        }
    }
}
