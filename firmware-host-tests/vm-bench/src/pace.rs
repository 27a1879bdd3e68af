//! A cable with a pace, below whatever uses it: transfers leave one after the other, as a slower bus would move them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bondwire_usb::transfers::Outlet;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::cables::End;

/// An outlet whose transfers leave at so many bytes per second. What waits counts as under way, as it does on a bus.
pub(crate) struct Paced<O> {
    inner: O,
    bytes_per_second: f64,
    /// Memory of transfers, their lengths, and when the last of each is on the line.
    waiting: VecDeque<(Vec<u8>, usize, Instant)>,
    free: Vec<Vec<u8>>,
    next: Vec<u8>,
    /// When the line is free.
    free_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<I, O: Outlet> End<I, O> {
    /// The same with a pace for what it sends.
    pub(crate) fn paced(mut self, bytes_per_second: f64) -> End<I, Paced<O>> {
        let now = Instant::now();
        let transfer_bytes = self.outlet.buffer().map_or(0, |buffer| buffer.len());
        let outlet = Paced {
            inner: self.outlet,
            bytes_per_second,
            waiting: VecDeque::new(),
            free: Vec::new(),
            next: vec![0; transfer_bytes],
            free_at: now,
            timer: Box::pin(sleep_until(now)),
        };
        End { inlet: self.inlet, outlet }
    }
}

impl<O: Outlet> Paced<O> {
    /// Sends what has had its time on the line.
    fn send_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|(_, _, at)| *at <= now)
            && let Some(buffer) = self.inner.buffer()
            && let Some((memory, len, _)) = self.waiting.pop_front()
        {
            buffer[..len].copy_from_slice(&memory[..len]);
            self.inner.submit(len)?;
            self.free.push(memory);
        }
        Ok(())
    }
}

impl<O: Outlet> Outlet for Paced<O> {
    fn packet_bytes(&self) -> usize {
        self.inner.packet_bytes()
    }

    fn buffer(&mut self) -> Option<&mut [u8]> {
        (self.in_flight() < self.depth()).then_some(&mut self.next[..])
    }

    fn submit(&mut self, len: usize) -> io::Result<()> {
        let fresh = self.free.pop().unwrap_or_else(|| vec![0; self.next.len()]);
        let memory = std::mem::replace(&mut self.next, fresh);
        let time = Duration::from_secs_f64(len as f64 / self.bytes_per_second);
        self.free_at = self.free_at.max(Instant::now()) + time;
        self.waiting.push_back((memory, len, self.free_at));
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.inner.in_flight()
    }

    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.send_due()?;
            if let Poll::Ready(finished) = self.inner.poll_finished(cx) {
                return Poll::Ready(finished);
            }
            let Some((_, _, at)) = self.waiting.front() else { return Poll::Pending };
            if *at <= Instant::now() {
                // It waits for memory of the endpoint, which the poll above hears of.
                return Poll::Pending;
            }
            self.timer.as_mut().reset(*at);
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Ends every transfer at once.
    struct Fast {
        memory: Vec<u8>,
        under_way: usize,
    }

    impl Outlet for Fast {
        fn packet_bytes(&self) -> usize {
            512
        }

        fn buffer(&mut self) -> Option<&mut [u8]> {
            (self.under_way < 4).then_some(&mut self.memory[..])
        }

        fn submit(&mut self, _len: usize) -> io::Result<()> {
            self.under_way += 1;
            Ok(())
        }

        fn in_flight(&self) -> usize {
            self.under_way
        }

        fn depth(&self) -> usize {
            4
        }

        fn poll_finished(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.under_way == 0 {
                return Poll::Pending;
            }
            self.under_way -= 1;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_leave_at_the_pace_and_wait_as_on_a_bus() {
        let end = End { inlet: (), outlet: Fast { memory: vec![0; 1000], under_way: 0 } };
        let mut line = end.paced(100_000.0).outlet;
        let begun = Instant::now();
        let mut sent = 0;
        while sent < 20 {
            while line.buffer().is_some() {
                line.submit(1000).unwrap();
                sent += 1;
            }
            assert_eq!(line.in_flight(), 4);
            poll_fn(|cx| line.poll_finished(cx)).await.unwrap();
        }
        // 17 of at least 20 have left, of 10 ms each.
        let left = sent - line.in_flight();
        let due = Duration::from_millis(10) * u32::try_from(left).unwrap();
        assert!(begun.elapsed() >= due && begun.elapsed() <= due + Duration::from_millis(left as u64 * 2));
    }
}
