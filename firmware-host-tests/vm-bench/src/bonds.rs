//! Bonds over links that are there, with both ends in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use bondwire::{Bond, BondConfig, Class, Identity, LinkState, ListenConfig, Listener, Suite};
use bondwire_usb::UsbLink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::cables::PATIENCE;
use crate::measure::{Sample, Traffic, Window};

/// Bytes written and read at once.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// Both ends of a bond.
pub(crate) struct Ends {
    pub(crate) listener: Listener,
    pub(crate) near: Bond,
    pub(crate) far: Bond,
}

/// Without encryption, as on a cable that is trusted.
pub(crate) fn plain() -> BondConfig {
    BondConfig { suites: vec![Suite::None], plaintext_over_ip: true, ..BondConfig::default() }
}

impl Ends {
    /// Over these links, each with both of its ends.
    pub(crate) async fn over(links: Vec<(UsbLink, UsbLink)>, config: BondConfig) -> Result<Self> {
        let (here, there) = (Identity::generate()?, Identity::generate()?);
        let allow = ListenConfig { bond: config.clone(), ..ListenConfig::allow([here.public_key()]) };
        let listener = Listener::new(&there, allow)?;
        let near = Bond::connect(&here, there.public_key(), config)?;
        let count = links.len();
        for (here, there) in links {
            listener.add_link(there);
            near.add_link(here).await?;
        }
        let far = timeout(PATIENCE, listener.accept()).await.context("no bond came up")?;
        let ends = Self { listener, near, far };
        ends.links_are(count).await?;
        Ok(ends)
    }

    /// Waits until so many links carry data.
    pub(crate) async fn links_are(&self, count: usize) -> Result<()> {
        let active = |bond: &Bond| bond.links().iter().filter(|link| link.state == LinkState::Active).count();
        let wait = async {
            while active(&self.near) != count || active(&self.far) != count {
                sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait).await.context("not all links came up")
    }

    /// The rate at which bulk data arrives, from near to far.
    pub(crate) async fn rate(self, window: Window) -> Result<Sample> {
        let mut sender = self.near.open_stream(Class::Bulk).await?;
        let mut traffic = Traffic::default();
        let received = traffic.counter();
        traffic.spawn(async move {
            let block = vec![0x5a; BLOCK_BYTES];
            loop {
                sender.write_all(&block).await?;
            }
        });
        let mut receiver = timeout(PATIENCE, self.far.accept_stream()).await.context("no stream came")??;
        traffic.spawn(async move {
            let mut buffer = vec![0; BLOCK_BYTES];
            loop {
                match receiver.read(&mut buffer).await? {
                    0 => bail!("the stream has ended"),
                    bytes => count(&received, bytes),
                }
            }
        });
        let sample = traffic.measure(window).await?;
        self.close().await;
        Ok(sample)
    }

    /// Ends it, and with it what it holds of the cables.
    pub(crate) async fn close(self) {
        self.near.close_now(0, "").await;
        self.far.close_now(0, "").await;
    }
}

fn count(received: &Arc<AtomicU64>, bytes: usize) {
    received.fetch_add(bytes as u64, Ordering::Relaxed);
}
