//! Systems that are asked once a second.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{Interface, Wake};
use crate::limits::POLL_INTERVAL;

pub(super) struct Changes;

impl Changes {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn wait(&mut self) -> Wake {
        tokio::time::sleep(POLL_INTERVAL).await;
        Wake::Time
    }
}

/// Without a look at the routes every address counts as reachable; the dial will tell.
pub(crate) struct Routes;

impl Routes {
    pub(crate) fn open() -> Self {
        Self
    }

    pub(crate) fn lead(&self, _interface: &Interface, _source: IpAddr, _target: SocketAddr) -> bool {
        true
    }
}

/// Not known here; a tunnel is made on Linux only.
pub(crate) fn way_out(_source: Option<IpAddr>, _target: IpAddr) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_looks_again_within_the_two_seconds_that_are_promised() {
        let began = tokio::time::Instant::now();
        let mut changes = Changes::open().unwrap();
        assert_eq!(changes.wait().await, Wake::Time);
        assert!(began.elapsed().as_secs() < 2);
    }
}
