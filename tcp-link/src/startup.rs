//! Ends the start-up of BBR when the bond has seen its end.
//!
//! In start-up BBR sends at 2.9 times the rate it knows, until three round trips in which it always had something to send
//! brought no more (`bbr_check_full_bw_reached` in the kernel's `net/ipv4/tcp_bbr.c`). A bond keeps little unsent data in
//! the kernel and bounds what is in flight, and the kernel's send buffer takes no more than two thirds of itself while
//! lost segments are on their way again; so there may never be such three, and BBR sends in bursts that overflow every
//! queue on the way for as long as the connection lives. Once the bond knows what the link carries, a bound on the pacing
//! rate takes the bursts away. The kernel then always has something to send, start-up ends within a few round trips,
//! and the bound with it.

use tokio::net::TcpStream;

pub(crate) use system::Startup;

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::AsRawFd;

    use socket2::SockRef;

    use super::TcpStream;

    /// Batches between two looks at the kernel: they cost a system call.
    const LOOK_EVERY: u32 = 16;
    /// Pacing gains of BBR come in 256ths. Only in start-up the gain is above 2.
    const STARTUP_GAIN_MIN: u32 = 2 * 256;
    /// What is sent beyond the rate found, one part in so many: it fills a queue of half a round trip in four of them,
    /// which is longer than BBR needs to see that there is no more.
    const EXCESS_SHARE: u64 = 8;
    /// The kernel's word for no bound.
    const UNBOUNDED: u64 = u64::MAX;

    /// The start-up of one socket's congestion control.
    #[derive(Debug)]
    pub(crate) struct Startup {
        /// It is over; those of other congestion controls need no help.
        is_over: bool,
        calls: u32,
        bound: u64,
    }

    impl Startup {
        pub(crate) fn of(stream: &TcpStream) -> Self {
            let name = SockRef::from(stream).tcp_congestion().unwrap_or_default();
            Self { is_over: !name.starts_with(b"bbr"), calls: 0, bound: UNBOUNDED }
        }

        /// The bond found what the link carries, or does not know it (any more).
        pub(crate) fn rate_found(&mut self, stream: &TcpStream, bytes_per_second: Option<u64>) {
            if self.is_over || (bytes_per_second.is_none() && self.bound == UNBOUNDED) {
                return;
            }
            self.calls += 1;
            if self.calls % LOOK_EVERY != 1 && bytes_per_second.is_some() {
                return;
            }
            self.is_over = pacing_gain(stream).is_none_or(|gain| gain < STARTUP_GAIN_MIN);
            let bound = bytes_per_second.filter(|_| !self.is_over);
            self.set_bound(stream, bound.map_or(UNBOUNDED, |rate| rate.saturating_add(rate / EXCESS_SHARE)));
        }

        fn set_bound(&mut self, stream: &TcpStream, bound: u64) {
            if self.bound != bound {
                self.bound = bound;
                set_max_pacing_rate(stream, bound);
            }
        }
    }

    /// The pacing gain of BBR (`struct tcp_bbr_info` of `linux/inet_diag.h`: bandwidth, low and high, least round trip,
    /// pacing gain, window gain). `None` if the kernel does not tell.
    #[expect(unsafe_code, reason = "no safe wrapper has this socket option")]
    fn pacing_gain(stream: &TcpStream) -> Option<u32> {
        const PACING_GAIN: usize = 3;
        let mut info = [0_u32; 5];
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `stream` lives; the kernel writes at most `length` bytes to `info`.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_CC_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        (result == 0 && length as usize == size_of_val(&info)).then_some(info[PACING_GAIN])
    }

    /// `SO_MAX_PACING_RATE` (socket(7)). A kernel that refuses it sends as before: no reason to give the link up.
    #[expect(unsafe_code, reason = "no safe wrapper has this socket option")]
    fn set_max_pacing_rate(stream: &TcpStream, bytes_per_second: u64) {
        let length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `stream` lives, and the kernel reads `length` bytes from a u64.
        unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MAX_PACING_RATE,
                (&raw const bytes_per_second).cast(),
                length,
            );
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::TcpStream;

    #[derive(Debug)]
    pub(crate) struct Startup;

    impl Startup {
        pub(crate) fn of(_stream: &TcpStream) -> Self {
            Self
        }

        pub(crate) fn rate_found(&mut self, _stream: &TcpStream, _bytes_per_second: Option<u64>) {}
    }
}
