//! Whole bonds over noisy lines in virtual time: hours of traffic in seconds.

use std::pin::Pin;
use std::task::{Context, Waker};

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener, Suite};
use bondwire_line::{Noise, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Sleep, sleep};

use super::*;
use crate::SerialLink;

const BAUD: u32 = 921_600;
/// Part of the bytes on the line that are the application's when nothing is lost: PROTOCOL.md, section 12.8, with a tag of
/// 4 bytes in place of 16.
const PAYLOAD_SHARE: f64 = 619.0 / 644.0;

/// Both wires, and who waits for them.
struct Line {
    wires: [Wire; 2],
    wakers: [Option<Waker>; 2],
    origin: tokio::time::Instant,
}

/// A port at one end of a line in memory.
struct SimPort {
    line: Arc<Mutex<Line>>,
    end: usize,
    timer: Pin<Box<Sleep>>,
    arrived: Vec<u8>,
}

fn ports(noise: Noise) -> ([SimPort; 2], Arc<Mutex<Line>>) {
    let line = Arc::new(Mutex::new(Line {
        wires: [Wire::new(noise, 1), Wire::new(noise, 2)],
        wakers: [None, None],
        origin: tokio::time::Instant::now(),
    }));
    let port = |end| SimPort {
        line: Arc::clone(&line),
        end,
        timer: Box::pin(sleep(Duration::ZERO)),
        arrived: Vec::new(),
    };
    ([port(0), port(1)], line)
}

impl Port for SimPort {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let next = {
                let mut line = self.line.lock().unwrap();
                let now = line.origin.elapsed().as_nanos() as u64;
                line.wires[1 - self.end].receive(now, BAUD, &mut self.arrived);
                line.wakers[self.end] = Some(cx.waker().clone());
                let next = line.wires[1 - self.end].next_at();
                next.and_then(|at| line.origin.checked_add(Duration::from_nanos(at)))
            };
            if !self.arrived.is_empty() {
                let len = self.arrived.len().min(buffer.len());
                buffer[..len].copy_from_slice(&self.arrived[..len]);
                self.arrived.drain(..len);
                return Poll::Ready(Ok(len));
            }
            let Some(next) = next else { return Poll::Pending };
            // Adapters gather for a millisecond too.
            self.timer.as_mut().reset(next + Duration::from_millis(1));
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_write(&mut self, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.line.lock().unwrap();
        let now = line.origin.elapsed().as_nanos() as u64;
        line.wires[self.end].send(now, BAUD, bytes);
        let waker = line.wakers[1 - self.end].take();
        drop(line);
        waker.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn set_baud(&mut self, _baud: u32) -> io::Result<()> {
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        let line = self.line.lock().unwrap();
        line.wires[self.end].queued_bytes(line.origin.elapsed().as_nanos() as u64)
    }

    fn discard_output(&mut self) {}
}

fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Moves bytes until `length` have come, and checks each; answers how long that took.
async fn move_verified(near: &Bond, far: &Bond, length: u64) -> Duration {
    let begun = tokio::time::Instant::now();
    let mut sender = near.open_stream(Class::Bulk).await.unwrap();
    let sending = async {
        for position in (0..length).step_by(50_000) {
            let block: Vec<u8> = (position..length.min(position + 50_000)).map(byte_at).collect();
            sender.write_all(&block).await.unwrap();
        }
        sender.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut receiver = far.accept_stream().await.unwrap();
        let (mut buffer, mut position) = (vec![0; 65_536], 0);
        loop {
            let read = receiver.read(&mut buffer).await.unwrap();
            if read == 0 {
                return position;
            }
            for byte in &buffer[..read] {
                assert_eq!(*byte, byte_at(position), "a wrong byte at {position}");
                position += 1;
            }
        }
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert_eq!(received, length);
    begun.elapsed()
}

/// Waits until a link is over, and says why.
async fn end_of(handle: &Handle) -> String {
    let _ = handle.released().wait_for(|released| *released).await;
    format!("{:?}, {}", handle.room().await, handle.line_counters())
}

/// A bond without encryption over one line with `noise`, `length` bytes, and then the same line without noise.
async fn noisy(noise: Noise, length: u64) {
    let ([near_port, far_port], line) = ports(noise);
    let address: SerialAddress = format!("sim,baud={BAUD}").parse().unwrap();
    let near_handle = Arc::new(Handle::start(near_port, &address, Role::Dialer, true));
    let far_handle = Arc::new(Handle::start(far_port, &address, Role::Acceptor, true));
    let (near_ready, far_ready) = tokio::join!(near_handle.ready(), far_handle.ready());
    near_ready.and(far_ready).unwrap();

    let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let config = BondConfig { suites: vec![Suite::None], ..BondConfig::default() };
    let listen = ListenConfig { bond: config.clone(), ..ListenConfig::allow([here.public_key()]) };
    let listener = Listener::new(&there, listen).unwrap();
    let near = Bond::connect(&here, there.public_key(), config).unwrap();
    listener.add_link(SerialLink::new(Arc::clone(&far_handle), "far".to_owned()));
    near.add_link(SerialLink::new(Arc::clone(&near_handle), "near".to_owned())).await.unwrap();
    let far = listener.accept().await;

    let took = tokio::select! {
        took = move_verified(&near, &far, length) => took,
        end = end_of(&near_handle) => panic!("the link is over at the near end: {end}"),
        end = end_of(&far_handle) => panic!("the link is over at the far end: {end}"),
    };
    let (sent, received) = (near_handle.line_counters(), far_handle.line_counters());
    let survived = received.frames.received.packets as f64 / sent.frames.sent.packets as f64;
    let allowed = f64::from(BAUD) / 10.0 * PAYLOAD_SHARE * survived;
    let goodput = length as f64 / took.as_secs_f64();
    println!(
        "{length} bytes in {took:?}: {goodput:.0} B/s, {:.3} of what {survived:.4} of the frames allow",
        goodput / allowed
    );
    println!("{received}");
    assert!(goodput >= 0.95 * allowed, "{goodput} of {allowed} bytes per second");
    let damaged = line.lock().unwrap().wires[0].damaged_bytes();
    let frames = received.frames;
    assert!(damaged > 0 && frames.checksum_errors + received.resyncs > 0 && frames.lost_bytes > 0);

    // The noise ends. Nothing of the credit has leaked: the line is full again.
    line.lock().unwrap().wires.iter_mut().for_each(|wire| wire.set_noise(Noise::NONE));
    let length = 4_000_000;
    let took = move_verified(&near, &far, length).await;
    let share = length as f64 / took.as_secs_f64() / (f64::from(BAUD) / 10.0);
    println!("without noise: {share:.3} of the line");
    assert!(share > 0.9, "{share}");
}

const NOISE: Noise =
    Noise { bit_flip: 1e-5, byte_drop: 1e-5, byte_insert: 0.0, burst: 2e-7, burst_bytes: 3000, baud_max: 0 };

#[tokio::test(start_paused = true)]
async fn noise_costs_the_frames_that_it_touches_and_nothing_else() {
    noisy(NOISE, 20_000_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "a gigabyte takes minutes; run it with: cargo nextest run -p bondwire-serial --run-ignored only gigabyte"]
async fn a_gigabyte_over_a_noisy_line_has_no_wrong_byte() {
    noisy(NOISE, 1_000_000_000).await;
}
