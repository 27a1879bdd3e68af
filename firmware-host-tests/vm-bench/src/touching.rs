//! What it costs in this guest to copy bytes and to check them, which the raw loop does not do.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bondwire_frame::crc::Crc32c;

const BLOCK_BYTES: usize = 16 << 10;
const TIME: Duration = Duration::from_millis(300);

/// Rates of one processor, in bytes per second.
pub(crate) struct Touching {
    pub(crate) copy: f64,
    pub(crate) checksum: f64,
}

impl Touching {
    pub(crate) fn measure() -> Self {
        let (from, mut to) = (vec![0x5a_u8; BLOCK_BYTES], vec![0_u8; BLOCK_BYTES]);
        let copy = rate(|| {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        });
        let checksum = rate(|| {
            black_box(Crc32c::new().with(black_box(&from)).value());
        });
        Self { copy, checksum }
    }
}

fn rate(mut block: impl FnMut()) -> f64 {
    let (begun, mut blocks) = (Instant::now(), 0_u32);
    while begun.elapsed() < TIME {
        block();
        blocks += 1;
    }
    f64::from(blocks) * BLOCK_BYTES as f64 / begun.elapsed().as_secs_f64()
}
