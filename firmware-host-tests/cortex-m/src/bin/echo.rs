//! Sends every packet that comes in at UART0 back. UART2 says what happens.
#![no_std]
#![no_main]

use core::fmt::Write as _;

use bondwire_cortex_m::board::{Board, Console};
use bondwire_cortex_m::ports::{Memory, Reporter};
use bondwire_firmware::{Echo, Roles, TooSmall, exchange};
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let mut memory = Memory::new();
    let outcome = run(&mut memory);
    panic!("{outcome:?}");
}

/// Comes back only if it cannot begin.
fn run(memory: &mut Memory) -> Result<(), TooSmall> {
    let Some((mut board, [mut uart, _, mut console])) = Board::take() else { return Ok(()) };
    let _ = writeln!(Console(&mut console), "bondwire echo: ready\r");
    let seed = board.seed_of_first_byte(&[&uart]);
    let mut echo = Echo::new(memory.port(board.now(), Roles::HostDials, seed)?);
    let (mut chunk, mut reporter) = ([0; 64], Reporter::new('A'));
    loop {
        let now = board.now();
        let Ok(has_moved) = exchange(&mut echo.port, now, &mut uart, &mut chunk);
        echo.step(now);
        reporter.report(&echo.port, &mut console);
        if !has_moved && echo.port.outgoing().is_empty() {
            board.sleep();
        }
    }
}
