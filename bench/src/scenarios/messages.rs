//! Processor time of small messages that follow each other closely, so that they can travel together.
//!
//! Measured at the library: before a port forward sees them the kernel has put them together.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bondwire::{AllowedPeers, Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Options, progress};
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::subject::Subject;

const MESSAGE_BYTES: usize = 64;
const MESSAGES: u64 = 2_000_000;
const LINK_COUNTS: [usize; 3] = [1, 2, 8];

/// What a message may cost both ends together, in microseconds.
const COST_MAX_US: f64 = 2.0;

/// Processor time of both ends and time on the clock, in microseconds for each message.
type Costs = (f64, f64);

/// Sends messages through plain TCP and through bonds, both ends in this process.
///
/// # Errors
/// If no socket can be opened or a message is lost.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new(&[
        format!(
            "{MESSAGES} messages of {MESSAGE_BYTES} bytes over loopback, each written and read by a call of its own, one way."
        ),
        "Both ends in one process: user and kernel mode of all its threads, divided by the messages.".into(),
        format!("The median of {} interleaved rounds (smallest to largest).", options.rounds),
    ]);
    let mut variants = vec![(Subject::Plain, 1)];
    variants.extend(LINK_COUNTS.map(|links| (Subject::Bondwire, links)));
    variants.retain(|(subject, _)| options.subjects.contains(subject));
    let mut costs: Vec<Vec<Costs>> = vec![Vec::new(); variants.len()];
    for _ in 0..options.rounds {
        for (&(subject, links), costs) in variants.iter().zip(&mut costs) {
            progress(&format!("messages: {subject}, {links} links"));
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            costs.push(runtime.block_on(async {
                match subject {
                    Subject::Bondwire => bondwire(links).await,
                    Subject::Plain | Subject::Mptcp => plain().await,
                }
            })?);
        }
    }
    let mut table =
        Table::new(&["subject", "links", "processor time for each message, µs", "time, µs", "to reach"]);
    let mut rows = Vec::new();
    for ((subject, links), costs) in variants.into_iter().zip(costs) {
        let (cpu, clock): (Vec<_>, Vec<_>) = costs.into_iter().unzip();
        let (cpu, clock) = (Spread::of(&cpu), Spread::of(&clock));
        let is_bond = subject == Subject::Bondwire;
        if is_bond && cpu.median > COST_MAX_US {
            report.failures.push(format!("{links} links: {:.2} µs, want at most {COST_MAX_US}", cpu.median));
        }
        table.rows.push(vec![
            subject.to_string(),
            links.to_string(),
            format!("{:.2} ({:.2} to {:.2})", cpu.median, cpu.min, cpu.max),
            format!("{:.2}", clock.median),
            if is_bond { format!("≤ {COST_MAX_US}") } else { "–".into() },
        ]);
        rows.push(json!({ "subject": subject, "links": links, "cpu_us": cpu, "clock_us": clock }));
    }
    report.tables.push(table);
    report.data.insert("messages".into(), rows.into());
    Ok(report)
}

async fn plain() -> Result<Costs> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    transfer(near, far).await
}

async fn bondwire(links: usize) -> Result<Costs> {
    let (identity, peer) = (Identity::generate()?, Identity::generate()?);
    let config = ListenConfig {
        allowed: AllowedPeers::Keys(vec![identity.public_key()]),
        bond: BondConfig::default(),
    };
    let listener = Listener::new(&peer, config)?;
    let acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await?;
    let port = acceptor.local_addr()?.port();
    listener.add_acceptor(acceptor);
    let near = Bond::connect(&identity, peer.public_key(), BondConfig::default())?;
    for _ in 0..links {
        let link = TcpDialer::new(TcpAddress::new("127.0.0.1", port)).connect().await?;
        near.add_link(link).await?;
    }
    let far = listener.accept().await;
    let mut sending = near.open_stream(Class::Bulk).await?;
    // The peer hears of the stream with its first byte.
    sending.write_all(&[0]).await?;
    let mut receiving =
        far.accept_stream().await.map_err(|reason| anyhow::anyhow!("the bond ended: {reason}"))?;
    receiving.read_exact(&mut [0]).await?;
    transfer(sending, receiving).await
}

/// Sends all messages from one end to the other.
async fn transfer(
    mut near: impl AsyncWrite + Unpin + Send + 'static,
    mut far: impl AsyncRead + Unpin,
) -> Result<Costs> {
    let (since, cpu_before) = (Instant::now(), cpu_time());
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let mut message = [0; MESSAGE_BYTES];
            message[..8].copy_from_slice(&number.to_le_bytes());
            near.write_all(&message).await?;
        }
        Ok::<_, std::io::Error>(near)
    });
    let mut message = [0; MESSAGE_BYTES];
    for number in 0..MESSAGES {
        far.read_exact(&mut message).await.with_context(|| format!("message {number}"))?;
        ensure!(message[..8] == number.to_le_bytes(), "message {number} is another one");
    }
    let (took, cpu) = (since.elapsed(), cpu_time().saturating_sub(cpu_before));
    drop(sending.await??);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / MESSAGES as f64;
    Ok((each(cpu), each(took)))
}

/// User and kernel mode of all threads of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
