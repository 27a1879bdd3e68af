//! A paced TCP path on this machine, for rows that set a serial line or a USB cable beside one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Time that the path may catch up after it was late.
const BURST: Duration = Duration::from_millis(4);
/// What the path holds, as time at its rate.
const QUEUE_MS: u64 = 10;

/// A relay that moves so many bytes per second each way; it ends when dropped.
#[derive(Debug)]
pub struct Path {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Path {
    /// Leads to `target`, with so many bytes per second each way.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(target: SocketAddr, rate: u64) -> io::Result<Self> {
        let queue_bytes = u32::try_from(rate * QUEUE_MS / 1000).unwrap_or(u32::MAX).max(8 << 10);
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(queue_bytes)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(16)?;
        let address = listener.local_addr()?;
        let is_cut = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let carry = {
            let is_cut = is_cut.subscribe();
            move |from| carry(from, target, rate, queue_bytes, is_cut.clone())
        };
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                connections.spawn(carry(from));
            }
        });
        Ok(Self { address, is_cut, _tasks: tasks })
    }

    /// From now on it carries nothing and says nothing, as a way does whose far end has gone.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// It carries again, and first what was on its way.
    pub fn restore(&self) {
        self.is_cut.send_replace(false);
    }

    /// Its near end.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn carry(
    from: TcpStream,
    target: SocketAddr,
    rate: u64,
    queue_bytes: u32,
    is_cut: watch::Receiver<bool>,
) {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(queue_bytes)?;
        socket.set_send_buffer_size(queue_bytes)?;
        socket.connect(target).await
    };
    let Ok(to) = connect.await else { return };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let _ = tokio::join!(
        pump(from_read, to_write, rate, is_cut.clone()),
        pump(to_read, from_write, rate, is_cut)
    );
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rate: u64,
    mut is_cut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(rate / 1000).unwrap_or(0).clamp(512, 64 << 10)];
    let mut due = Instant::now();
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        sleep_until(due).await;
        // The path is gone if this fails, and so is this task.
        is_cut.wait_for(|is_cut| !is_cut).await.map_err(io::Error::other)?;
        to.write_all(&buffer[..length]).await?;
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(due);
        due = due.max(earliest) + Duration::from_nanos(length as u64 * 1_000_000_000 / rate.max(1));
    }
}
