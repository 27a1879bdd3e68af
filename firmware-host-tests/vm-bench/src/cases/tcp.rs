//! A USB cable and a TCP path in one bond: what they carry together, and what a cut of either costs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bondwire::link::Dialer as _;
use bondwire::{BondStream, Class};
use bondwire_bench::path::Path;
use bondwire_bench::report::{Report, Table};
use bondwire_bench::stats::ms;
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer};
use bondwire_vm::Speed;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Options, progress};
use crate::bonds::{BLOCK_BYTES, Ends, plain};
use crate::cables::{PATIENCE, Plugged, link};
use crate::measure::{Processors, percent};

/// Rates in bytes per second.
const USB: f64 = 1.2e6;
const TCP: u64 = 800_000;
/// Bytes after which both links are known.
const WARM_UP_BYTES: u64 = 5_000_000;
const WANT_SHARE: f64 = 0.97;
const WANT_GAP: Duration = Duration::from_millis(200);

/// What is cut when half has arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nothing,
    Usb,
    Tcp,
}

const CUTS: [(Cut, &str); 3] =
    [(Cut::Nothing, "nothing"), (Cut::Usb, "the cable is pulled"), (Cut::Tcp, "TCP falls silent")];

/// What one transfer showed.
struct Outcome {
    /// Until half has arrived, without the warm-up.
    bytes_per_second: f64,
    longest_gap: Duration,
    idle: f64,
}

/// What the receiver tells while it runs.
#[derive(Default)]
struct Progress {
    received: AtomicU64,
}

pub(crate) async fn run(options: &Options) -> Result<Report> {
    let sum = USB + TCP as f64;
    let bytes = options.megabytes * 1_000_000;
    let mut report = Report::new(&[
        format!(
            "{} MB over a cable of {:.1} MB/s and a TCP path of {:.1} MB/s in one bond, cipher=none, each byte checked; where \
             something is cut, when half has arrived.",
            options.megabytes,
            USB / 1e6,
            TCP as f64 / 1e6
        ),
        "The share is of both paces, until the cut, after the first 5 MB.".to_owned(),
    ]);
    let mut table = Table::new(&["cut", "round", "MB/s", "share of the sum", "longest gap", "idle"]);
    let mut data = Vec::new();
    for round in 1..=options.rounds {
        for (cut, name) in CUTS {
            progress(&format!("tcp: cut: {name}, round {round}"));
            let outcome = transfer(cut, bytes).await.with_context(|| format!("cut: {name}"))?;
            let share = outcome.bytes_per_second / sum;
            if share < WANT_SHARE {
                report.failures.push(format!(
                    "{name}: {} of the sum, want {}",
                    percent(share),
                    percent(WANT_SHARE)
                ));
            }
            if cut != Cut::Nothing && outcome.longest_gap > WANT_GAP {
                report.failures.push(format!(
                    "{name}: a gap of {:.0} ms, want {:.0} ms",
                    ms(outcome.longest_gap),
                    ms(WANT_GAP)
                ));
            }
            table.rows.push(vec![
                name.to_owned(),
                round.to_string(),
                format!("{:.2}", outcome.bytes_per_second / 1e6),
                percent(share),
                format!("{:.0} ms", ms(outcome.longest_gap)),
                percent(outcome.idle),
            ]);
            data.push(json!({ "cut": name, "share": share, "longest_gap_ms": ms(outcome.longest_gap), "idle": outcome.idle }));
        }
    }
    report.tables.push(table);
    report.data.insert("tcp".into(), data.into());
    Ok(report)
}

async fn transfer(cut: Cut, bytes: u64) -> Result<Outcome> {
    let plugged = Plugged::plug(1, Speed::High).await?;
    let (host, device) = plugged.ends(0).await?;
    let usb = link(host.paced(USB), device.paced(USB)).await?;
    let ends = Ends::over(vec![usb], plain()).await?;
    let acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await?;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, acceptor.local_addr()?.port()));
    ends.listener.add_acceptor(acceptor);
    let path = Path::start(target, TCP).await?;
    let tcp = TcpDialer::new(TcpAddress::new("127.0.0.1", path.port())).dial().await?;
    ends.near.add_link(tcp).await?;
    ends.links_are(2).await?;

    let sender = ends.near.open_stream(Class::Bulk).await?;
    let sending = tokio::spawn(send(sender, bytes));
    let receiver =
        tokio::time::timeout(PATIENCE, ends.far.accept_stream()).await.context("no stream came")??;
    let progress = Arc::<Progress>::default();
    let receiving = tokio::spawn(receive(receiver, bytes, progress.clone()));
    let reached = async |so_far| {
        while progress.received.load(Ordering::Relaxed) < so_far && !receiving.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (Instant::now(), progress.received.load(Ordering::Relaxed))
    };
    let (begun, first) = reached(WARM_UP_BYTES).await;
    let busy = Processors::now()?;
    let (half_at, half) = reached(bytes / 2).await;
    let idle = Processors::now()?.idle_since(busy);
    match cut {
        Cut::Nothing => {}
        Cut::Usb => fs::write("/sys/kernel/config/usb_gadget/bondwire.dummy_udc.0/UDC", "\n")?,
        Cut::Tcp => path.cut(),
    }
    let longest_gap = receiving.await??;
    sending.await??;
    ends.close().await;
    let bytes_per_second = (half - first) as f64 / (half_at - begun).as_secs_f64();
    Ok(Outcome { bytes_per_second, longest_gap, idle })
}

/// Eight bytes that no other place of the stream has.
fn fill(block: &mut [u8], position: u64) {
    for (word, bytes) in block.chunks_mut(8).enumerate() {
        let value = (position / 8 + word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        bytes.copy_from_slice(&value[..bytes.len()]);
    }
}

async fn send(mut stream: BondStream, all: u64) -> Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut position = 0;
    while position < all {
        let len = usize::try_from(all - position).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        fill(&mut block[..len], position);
        stream.write_all(&block[..len]).await?;
        position += len as u64;
    }
    stream.shutdown().await?;
    Ok(())
}

/// Checks each byte, and answers the longest time in which none came.
async fn receive(mut stream: BondStream, all: u64, progress: Arc<Progress>) -> Result<Duration> {
    let (mut block, mut expected) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let (mut position, mut longest_gap) = (0_u64, Duration::ZERO);
    let mut last = None::<Instant>;
    loop {
        // Whole blocks, so that the pattern begins where words do.
        let mut len = 0;
        while len < BLOCK_BYTES {
            let bytes = stream.read(&mut block[len..]).await?;
            if bytes == 0 {
                break;
            }
            len += bytes;
            let now = Instant::now();
            longest_gap = longest_gap.max(last.map_or(Duration::ZERO, |last| now - last));
            last = Some(now);
            progress.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        fill(&mut expected[..len], position);
        ensure!(block[..len] == expected[..len], "a wrong byte behind byte {position}");
        position += len as u64;
        if len < BLOCK_BYTES {
            ensure!(position == all, "{position} of {all} bytes came");
            return Ok(longest_gap);
        }
    }
}
