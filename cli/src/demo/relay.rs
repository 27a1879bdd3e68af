//! A paced TCP path on this machine: a relay between two sockets that moves at most so many bytes a second, and that
//! can go silent or close, as a real path does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Time that the relay may catch up after it was late: timers are good to about a millisecond.
const BURST: Duration = Duration::from_millis(4);
/// Bytes moved at once: a fraction of a millisecond's worth on the fastest path, at most this.
const CHUNK_MAX_BYTES: u64 = 64 << 10;
const CHUNK_MIN_BYTES: u64 = 2 << 10;
/// What a path holds, as time at its rate; a deep queue would hide the path's true speed.
const QUEUE_MS: u64 = 5;

/// What a path does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// It carries data.
    Open,
    /// It carries nothing and says nothing, as behind a dead switch; what is in it arrives later.
    Silent,
    /// Its connections are reset, and so are new ones.
    Closed,
}

/// A running relay; it ends when dropped.
pub(crate) struct Relay {
    /// Where the path begins.
    pub(crate) address: SocketAddr,
    /// Its speed in bytes per second, each way.
    pub(crate) rate: u64,
    path: watch::Sender<Path>,
    carried: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

impl Relay {
    /// A path to `target` that carries `rate` bytes per second each way.
    pub(crate) async fn start(target: SocketAddr, rate: u64) -> io::Result<Self> {
        let queue_bytes = u32::try_from(rate * QUEUE_MS / 1000).unwrap_or(u32::MAX).max(16 << 10);
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(queue_bytes)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(16)?;
        let address = listener.local_addr()?;
        let carried = Arc::new(AtomicU64::new(0));
        let (path, watched) = watch::channel(Path::Open);
        let relayed = Relayed { target, rate, queue_bytes, path: watched, carried: Arc::clone(&carried) };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, relayed));
        Ok(Self { address, rate, path, carried, _accepting: accepting })
    }

    /// Changes what the path does.
    pub(crate) fn set(&self, path: Path) {
        self.path.send_replace(path);
    }

    /// What the path does.
    pub(crate) fn path(&self) -> Path {
        *self.path.borrow()
    }

    /// Bytes carried so far, both ways together.
    pub(crate) fn carried_bytes(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

/// What one connection through the relay needs to know.
#[derive(Clone)]
struct Relayed {
    target: SocketAddr,
    rate: u64,
    queue_bytes: u32,
    path: watch::Receiver<Path>,
    carried: Arc<AtomicU64>,
}

async fn accept(listener: TcpListener, relayed: Relayed) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        connections.spawn(carry(from, relayed.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection until either end or the path closes it.
async fn carry(mut from: TcpStream, mut relayed: Relayed) {
    let closed = *relayed.path.borrow_and_update() == Path::Closed;
    let connected = if closed { None } else { connect(&relayed).await.ok() };
    let Some(mut to) = connected else {
        let _ = from.set_zero_linger();
        return;
    };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let was_closed = {
        let ((from_read, from_write), (to_read, to_write)) = (from.split(), to.split());
        let there = pump(from_read, to_write, relayed.clone());
        let back = pump(to_read, from_write, relayed.clone());
        tokio::select! {
            () = closes(relayed.path) => true,
            _ = async { tokio::join!(there, back) } => false,
        }
    };
    if was_closed {
        // Dropped sockets then send a reset instead of what they still hold.
        let _ = (from.set_zero_linger(), to.set_zero_linger());
    }
}

async fn connect(relayed: &Relayed) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(relayed.queue_bytes)?;
    socket.set_send_buffer_size(relayed.queue_bytes)?;
    socket.connect(relayed.target).await
}

async fn closes(mut path: watch::Receiver<Path>) {
    // An error means that the relay was dropped, which closes the path as well.
    let _ = path.wait_for(|path| *path == Path::Closed).await;
}

/// Moves bytes one way at the path's rate.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut relayed: Relayed) -> io::Result<()> {
    let rate = relayed.rate.max(1);
    let chunk = (rate / 2000).clamp(CHUNK_MIN_BYTES, CHUNK_MAX_BYTES);
    let mut buffer = vec![0; usize::try_from(chunk).unwrap_or_default()];
    let mut due = Instant::now();
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if relayed.path.wait_for(|path| *path == Path::Open).await.is_err() {
            return Ok(());
        }
        sleep_until(due).await;
        to.write_all(&buffer[..length]).await?;
        relayed.carried.fetch_add(length as u64, Ordering::Relaxed);
        // `due` runs ahead of the clock while the path is full, and may lag behind it by the burst at most.
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(due);
        due = due.max(earliest) + Duration::from_nanos(length as u64 * 1_000_000_000 / rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(rate: u64) -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap(), rate).await.unwrap();
        let near = TcpStream::connect(relay.address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (relay, near, far)
    }

    #[tokio::test]
    async fn a_path_has_its_rate() {
        const RATE: u64 = 10_000_000;
        let (relay, mut near, mut far) = through(RATE).await;
        let sender = tokio::spawn(async move {
            near.write_all(&vec![1; 3_000_000]).await.unwrap();
            near
        });
        let mut received = vec![0; 3_000_000];
        let start = Instant::now();
        far.read_exact(&mut received).await.unwrap();
        let rate = 3_000_000.0 / start.elapsed().as_secs_f64();
        assert!(rate < RATE as f64 * 1.05, "{rate} bytes per second");
        assert_eq!(relay.carried_bytes(), 3_000_000);
        drop(sender.await.unwrap());
        assert_eq!(far.read(&mut received).await.unwrap(), 0, "the end is carried too");
    }

    #[tokio::test]
    async fn silence_holds_bytes_back_and_closing_resets() {
        let (relay, mut near, mut far) = through(1_000_000).await;
        relay.set(Path::Silent);
        near.write_all(b"late").await.unwrap();
        let mut received = [0; 4];
        let quick = tokio::time::timeout(Duration::from_millis(50), far.read_exact(&mut received)).await;
        assert!(quick.is_err(), "nothing arrives");
        relay.set(Path::Open);
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"late");
        relay.set(Path::Closed);
        assert_eq!(far.read(&mut received).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut again = TcpStream::connect(relay.address).await.unwrap();
        assert!(matches!(again.read(&mut received).await, Ok(0) | Err(_)));
    }
}
