//! A cable made of a microcontroller: two hosts, one at UART0 and one at UART1, bond through it. UART2 says what happens.
#![no_std]
#![no_main]

use core::fmt::Write as _;

use bondwire_cortex_m::board::{Board, Console};
use bondwire_cortex_m::ports::{Memory, Reporter};
use bondwire_firmware::{Bridge, Roles, TooSmall, exchange};
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let mut memory = [Memory::new(), Memory::new()];
    let outcome = run(&mut memory);
    panic!("{outcome:?}");
}

/// Comes back only if it cannot begin.
fn run([memory_a, memory_b]: &mut [Memory; 2]) -> Result<(), TooSmall> {
    let Some((mut board, [mut uart_a, mut uart_b, mut console])) = Board::take() else { return Ok(()) };
    let _ = writeln!(Console(&mut console), "bondwire cable: ready\r");
    let seed = board.seed_of_first_byte(&[&uart_a, &uart_b]);
    let now = board.now();
    let a = memory_a.port(now, Roles::Either, seed)?;
    let b = memory_b.port(now, Roles::Either, !seed)?;
    let mut bridge = Bridge::new(a, b);
    let (mut chunk, mut reporters) = ([0; 64], [Reporter::new('A'), Reporter::new('B')]);
    loop {
        let now = board.now();
        let Ok(moved_a) = exchange(&mut bridge.a, now, &mut uart_a, &mut chunk);
        let Ok(moved_b) = exchange(&mut bridge.b, now, &mut uart_b, &mut chunk);
        bridge.step(now);
        reporters[0].report(&bridge.a, &mut console);
        reporters[1].report(&bridge.b, &mut console);
        let has_more = !(bridge.a.outgoing().is_empty() && bridge.b.outgoing().is_empty());
        if !moved_a && !moved_b && !has_more {
            board.sleep();
        }
    }
}
