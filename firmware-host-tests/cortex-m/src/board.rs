//! The microcontroller: its clock, its UARTs, and sleep. TI's "Stellaris LM3S6965 Microcontroller Data Sheet" has the
//! registers; its chapters are named here. `unsafe` is in this file only: registers are memory of which the compiler knows
//! nothing.
#![allow(unsafe_code, reason = "registers and interrupts")]

use core::convert::Infallible;
use core::fmt::Write as _;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use bondwire_firmware::Instant;
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, SYST};
use cortex_m_rt::exception;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// The clock of the core: the PLL's 200 MHz, by 16.
const CORE_HZ: u32 = 12_500_000;
/// Rate of all UARTs, in bits per second.
pub const BAUD: u32 = 115_200;

/// Milliseconds since the start. They wrap after 49 days; [`Board::now`] does not.
static MILLIS: AtomicU32 = AtomicU32::new(0);

/// The board. There is one.
pub struct Board {
    millis: u64,
}

impl Board {
    /// Sets up clock and UARTs, and gives them out; nothing the second time.
    pub fn take() -> Option<(Self, [Uart; 3])> {
        let mut core = cortex_m::Peripherals::take()?;
        start_pll();
        core.SYST.set_clock_source(SystClkSource::Core);
        core.SYST.set_reload(CORE_HZ / 1000 - 1);
        core.SYST.clear_current();
        core.SYST.enable_counter();
        core.SYST.enable_interrupt();
        let uarts = [UART0, UART1, UART2].map(Uart);
        uarts.iter().for_each(Uart::start);
        Some((Self { millis: 0 }, uarts))
    }

    /// Time since the start.
    pub fn now(&mut self) -> Instant {
        let passed = MILLIS.load(Ordering::Relaxed).wrapping_sub(self.millis as u32);
        self.millis += u64::from(passed);
        Instant::from_millis(self.millis)
    }

    /// Sleeps until a byte comes, or a millisecond has passed.
    pub fn sleep(&self) {
        // While interrupts are held off they still end the sleep, so none can come between the look at it and the sleep.
        cortex_m::interrupt::free(|_| {
            for uart in [UART0, UART1, UART2] {
                // SAFETY: the handler of these interrupts does nothing but mask them again.
                unsafe { NVIC::unmask(Line(uart.interrupt)) };
            }
            cortex_m::asm::wfi();
        });
    }

    /// Sleeps until the first byte comes at one of these. The moment, in cycles of the core, is another one each time: this
    /// microcontroller has no generator of random numbers.
    pub fn seed_of_first_byte(&mut self, uarts: &[&Uart]) -> u64 {
        while !uarts.iter().any(|uart| uart.has_byte()) {
            self.sleep();
        }
        self.now().as_micros() << 24 | u64::from(SYST::get_current())
    }
}

#[exception]
fn SysTick() {
    MILLIS.store(MILLIS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[derive(Clone, Copy)]
struct Line(u16);

// SAFETY: these are numbers of interrupts that the microcontroller has, below 240.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        self.0
    }
}

/// All interrupts but SysTick: a byte is there. Whoever is awake now looks for it.
#[exception]
unsafe fn DefaultHandler(irqn: i16) {
    if let Ok(number) = u16::try_from(irqn) {
        NVIC::mask(Line(number));
    }
}

/// A UART of this board, at [`BAUD`], 8N1. Bytes that nobody reads in time are lost, as on any UART; the frame layer notices.
pub struct Uart(Place);

/// Where a UART is, and what it needs around it.
#[derive(Clone, Copy)]
struct Place {
    base: usize,
    interrupt: u16,
    /// Its bit among the clocks of UARTs, and that of the port with its pins.
    clock: u32,
    pins_clock: u32,
    pins_base: usize,
    /// Its two pins.
    pins: u32,
}

const UART0: Place = Place {
    base: 0x4000_c000,
    interrupt: 5,
    clock: 1 << 0,
    pins_clock: 1 << 0,
    pins_base: 0x4000_4000,
    pins: 0b0011,
};
const UART1: Place = Place {
    base: 0x4000_d000,
    interrupt: 6,
    clock: 1 << 1,
    pins_clock: 1 << 3,
    pins_base: 0x4000_7000,
    pins: 0b1100,
};
const UART2: Place = Place {
    base: 0x4000_e000,
    interrupt: 33,
    clock: 1 << 2,
    pins_clock: 1 << 6,
    pins_base: 0x4002_6000,
    pins: 0b0011,
};

/// Registers of a UART ("Universal Asynchronous Receivers/Transmitters", an ARM PL011).
mod uart {
    pub(super) const DATA: usize = 0x00;
    pub(super) const FLAG: usize = 0x18;
    pub(super) const INTEGER_BAUD: usize = 0x24;
    pub(super) const FRACTIONAL_BAUD: usize = 0x28;
    pub(super) const LINE_CONTROL: usize = 0x2c;
    pub(super) const CONTROL: usize = 0x30;
    pub(super) const INTERRUPT_MASK: usize = 0x38;
    pub(super) const RECEIVER_EMPTY: u32 = 1 << 4;
    pub(super) const TRANSMITTER_FULL: u32 = 1 << 5;
    /// 8 data bits, and FIFOs.
    pub(super) const EIGHT_BITS_FIFO: u32 = 0x70;
    /// UART, transmitter and receiver are on.
    pub(super) const ENABLE: u32 = 1 << 0 | 1 << 8 | 1 << 9;
    /// The FIFO is half full, or has held something for 32 bits' time.
    pub(super) const RECEIVE_INTERRUPTS: u32 = 1 << 4 | 1 << 6;
}

/// Registers of "System Control" and "General-Purpose Input/Outputs".
mod system {
    pub(super) const RAW_INTERRUPT_STATUS: usize = 0x400f_e050;
    pub(super) const PLL_LOCKED: u32 = 1 << 6;
    pub(super) const RUN_CLOCK: usize = 0x400f_e060;
    pub(super) const UART_CLOCKS: usize = 0x400f_e104;
    pub(super) const PIN_CLOCKS: usize = 0x400f_e108;
    pub(super) const ALTERNATE_FUNCTION: usize = 0x420;
    pub(super) const DIGITAL_ENABLE: usize = 0x51c;
    /// The main oscillator with its crystal of 8 MHz, the divider set to 16.
    pub(super) const CRYSTAL_8_MHZ_BY_16: u32 = 0xf << 23 | 0xe << 6;
    pub(super) const USE_DIVIDER: u32 = 1 << 22;
    pub(super) const BYPASS_PLL: u32 = 1 << 11;
}

impl Uart {
    fn start(&self) {
        let place = self.0;
        set_bits(system::UART_CLOCKS, place.clock);
        set_bits(system::PIN_CLOCKS, place.pins_clock);
        // The clocks reach them three cycles later.
        cortex_m::asm::delay(8);
        set_bits(place.pins_base + system::ALTERNATE_FUNCTION, place.pins);
        set_bits(place.pins_base + system::DIGITAL_ENABLE, place.pins);
        self.write_register(uart::CONTROL, 0);
        // The divisor in 64ths: clock / (16 * rate), rounded.
        let divisor = (CORE_HZ * 8 / BAUD).div_ceil(2);
        self.write_register(uart::INTEGER_BAUD, divisor >> 6);
        self.write_register(uart::FRACTIONAL_BAUD, divisor & 0x3f);
        self.write_register(uart::LINE_CONTROL, uart::EIGHT_BITS_FIFO);
        self.write_register(uart::INTERRUPT_MASK, uart::RECEIVE_INTERRUPTS);
        self.write_register(uart::CONTROL, uart::ENABLE);
    }

    fn has_byte(&self) -> bool {
        self.register(uart::FLAG) & uart::RECEIVER_EMPTY == 0
    }

    fn has_room(&self) -> bool {
        self.register(uart::FLAG) & uart::TRANSMITTER_FULL == 0
    }

    fn register(&self, offset: usize) -> u32 {
        read(self.0.base + offset)
    }

    fn write_register(&self, offset: usize, value: u32) {
        write(self.0.base + offset, value);
    }
}

impl ErrorType for Uart {
    /// Bytes that came damaged or too fast are for the frame layer to find.
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        while !self.has_byte() {}
        let mut len = 0;
        for place in buffer {
            if !self.has_byte() {
                break;
            }
            *place = self.register(uart::DATA) as u8;
            len += 1;
        }
        Ok(len)
    }
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.has_byte())
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        while !self.has_room() {}
        let mut len = 0;
        for byte in bytes {
            if !self.has_room() {
                break;
            }
            self.write_register(uart::DATA, u32::from(*byte));
            len += 1;
        }
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for Uart {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.has_room())
    }
}

/// Brings the core to [`CORE_HZ`], in the order that "Clock Control" asks for.
fn start_pll() {
    write(system::RUN_CLOCK, system::CRYSTAL_8_MHZ_BY_16 | system::BYPASS_PLL);
    write(system::RUN_CLOCK, system::CRYSTAL_8_MHZ_BY_16 | system::BYPASS_PLL | system::USE_DIVIDER);
    while read(system::RAW_INTERRUPT_STATUS) & system::PLL_LOCKED == 0 {}
    write(system::RUN_CLOCK, system::CRYSTAL_8_MHZ_BY_16 | system::USE_DIVIDER);
}

fn set_bits(address: usize, bits: u32) {
    write(address, read(address) | bits);
}

/// Reads one of the registers above.
fn read(address: usize) -> u32 {
    // SAFETY: the callers are in this file, and all name registers of 32 bits, aligned, that the data sheet has at these
    // addresses. Reading them has no effect on memory that Rust knows.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes one of the registers above.
fn write(address: usize, value: u32) {
    // SAFETY: as for `read`. No register here makes the hardware write to memory.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// Says where on the third UART, and stops.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console(&mut Uart(UART2)), "{info}\r");
    loop {
        cortex_m::asm::wfi();
    }
}

/// Text for people, on a UART.
pub struct Console<'u>(pub &'u mut Uart);

impl core::fmt::Write for Console<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.write_all(text.as_bytes()).map_err(|_| core::fmt::Error)
    }
}
