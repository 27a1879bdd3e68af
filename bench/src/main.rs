//! `bondwire-bench`: measures Bondwire beside plain TCP and kernel MPTCP in network namespaces.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::io::BufRead;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bondwire_bench::emulator::{self, Direction, Gate, Shape};
use bondwire_bench::namespace;
use bondwire_bench::network::Network;
use bondwire_bench::report::Report;
use bondwire_bench::scenarios::{self, Options};
use bondwire_bench::subject::{Programs, Subject};
use bondwire_bench::traffic::{Transport, client, server};
use clap::{Args, Parser, Subcommand};

/// Measures Bondwire beside plain TCP and kernel MPTCP, between two network namespaces on this machine.
///
/// Needs root, /dev/net/tun, and the programs `ip` and `curl`.
#[derive(Debug, Parser)]
#[command(name = "bondwire-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Share of the links' sum: rates, delays, queues and loss of many kinds
    Shaped(Measurement),
    /// curl downloads through a port forward while a path dies in five ways and comes back
    ForwardCut(Measurement),
    /// A steady stream while each of two links goes silent: gaps and latencies
    Failover(Measurement),
    /// Echoes of an ssh session beside iperf3 and curl
    Interactive(Measurement),
    /// What links with weights, caps, quotas and in reserve carry
    Policies(Measurement),
    /// The first seconds of new connections on long links
    Startup(Measurement),
    /// 256 bonds on one listener: fairness, and their return after it was killed
    Many(Measurement),
    /// Round trips of small messages
    Latency(Measurement),
    /// Processor time per gigabyte and highest rate, over 1 to 8 loopback links
    Cost(Measurement),
    /// Wake-ups and memory of idle bonds
    Idle(Measurement),
    /// 10 GB to a slow reader: what the programs hold at their peak
    SlowReader(Measurement),
    /// 1000 idle connections, opened and closed again and again: memory and descriptors
    Streams(Measurement),
    /// Serial lines alone, in pairs and beside TCP: which part of a line reaches the application
    Serial(Measurement),
    /// Processor time of 64-byte messages that can travel together
    Messages(Measurement),
    /// One TCP connection within the interfaces of a bond over two unequal links, and pings beside it
    Tun(Measurement),
    /// Joins two namespaces by emulated links, and takes changes on standard input
    ///
    /// Standard input, one command a line, links counted from 1: `1 down`, `1 up`, `1 reset`,
    /// `1 down forth`, `1 rate=10mbit,delay=5ms`, `1 interface down`, `1 interface up`, `stat`, `quit`.
    Emulate {
        /// rate=100mbit,delay=10ms[,jitter=1ms][,loss=1%][,queue=256k]
        #[arg(required = true, value_name = "LINK")]
        links: Vec<Shape>,
    },
    /// The measuring server of all scenarios
    Serve {
        /// Where to listen
        address: SocketAddr,
        /// Take MPTCP connections
        #[arg(long)]
        mptcp: bool,
    },
    /// Sends to the measuring server as fast as it can, and prints what arrived in each tenth of a second as JSON
    Send {
        /// The server
        address: SocketAddr,
        /// For how long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Open an MPTCP connection
        #[arg(long)]
        mptcp: bool,
    },
}

#[derive(Debug, Args)]
struct Measurement {
    /// How often each measurement is repeated, interleaved
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement takes after its warm-up (failover: how long a link is silent)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// The `bondwire` program
    #[arg(long, env = "BONDWIRE", default_value = "target/release/bondwire", value_name = "PATH")]
    bondwire: PathBuf,
    /// What to measure; repeatable [default: all that make sense in the scenario]
    #[arg(long = "subject", value_enum)]
    subjects: Vec<Subject>,
    /// Only the case of this name; repeatable
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Congestion control of TCP and MPTCP [default: the machine's]
    #[arg(long = "cc", value_name = "NAME")]
    congestion_control: Option<String>,
    /// More arguments for `bondwire listen`, `connect` and `speed`, such as "--cipher none --plaintext-over-ip"
    #[arg(long, default_value = "", allow_hyphen_values = true, value_name = "ARGUMENTS")]
    bondwire_args: String,
    /// Options for each forward of `bondwire connect`, such as class=interactive
    #[arg(long, value_name = "KEY=VALUE,…")]
    forward_options: Option<String>,
    /// Options for each LINK given to `bondwire`, such as cc=bbr
    #[arg(long, value_name = "KEY=VALUE,…")]
    link_options: Option<String>,
}

impl Measurement {
    fn options(&self) -> Result<Options> {
        let all = vec![Subject::Plain, Subject::Mptcp, Subject::Bondwire];
        let subjects = if self.subjects.is_empty() { all } else { self.subjects.clone() };
        let bondwire = std::path::absolute(&self.bondwire)?;
        ensure!(
            bondwire.is_file() || !subjects.contains(&Subject::Bondwire),
            "{} does not exist: build it with `cargo build --release`, or name it with --bondwire",
            bondwire.display()
        );
        let bondwire_arguments = self.bondwire_args.split_whitespace().map(str::to_owned).collect();
        Ok(Options {
            programs: Programs {
                bench: std::env::current_exe()?,
                bondwire,
                bondwire_arguments,
                forward_options: self.forward_options.clone(),
                link_options: self.link_options.clone(),
            },
            subjects,
            rounds: self.rounds,
            seconds: self.seconds,
            congestion_control: self.congestion_control.clone(),
            cases: self.cases.clone(),
        })
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bondwire-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False if a measurement failed.
fn run(command: Command) -> Result<bool> {
    let (scenario, measurement): (fn(&Options) -> Result<Report>, _) = match command {
        Command::Shaped(measurement) => (scenarios::shaped::run, measurement),
        Command::ForwardCut(measurement) => (scenarios::forward_cut::run, measurement),
        Command::Failover(measurement) => (scenarios::failover::run, measurement),
        Command::Interactive(measurement) => (scenarios::interactive::run, measurement),
        Command::Policies(measurement) => (scenarios::policies::run, measurement),
        Command::Startup(measurement) => (scenarios::startup::run, measurement),
        Command::Many(measurement) => (scenarios::many::run, measurement),
        Command::Latency(measurement) => (scenarios::latency::run, measurement),
        Command::Cost(measurement) => (scenarios::cost::run, measurement),
        Command::Idle(measurement) => (scenarios::idle::run, measurement),
        Command::SlowReader(measurement) => (scenarios::slow_reader::run, measurement),
        Command::Streams(measurement) => (scenarios::streams::run, measurement),
        Command::Messages(measurement) => (scenarios::messages::run, measurement),
        Command::Tun(measurement) => (scenarios::tun::run, measurement),
        Command::Serial(measurement) => {
            // Both ends are in this process, and pseudo-terminals are everybody's.
            let json = measurement.json;
            let options = Measurement { subjects: vec![Subject::Plain], ..measurement }.options()?;
            return Ok(print(scenarios::serial::run(&options)?, &options, json));
        }
        Command::Emulate { links } => return emulate(&links).map(|()| true),
        Command::Serve { address, mptcp } => return server::serve(address, transport(mptcp)).map(|()| true),
        Command::Send { address, seconds, mptcp } => {
            let series = client::send_bulk(address, transport(mptcp), Duration::from_secs(seconds))?;
            println!("{}", serde_json::to_string(&series)?);
            return Ok(true);
        }
    };
    emulator::is_available().context("the scenarios need root and /dev/net/tun")?;
    namespace::remove_on_interrupt()?;
    let options = measurement.options()?;
    Ok(print(scenario(&options)?, &options, measurement.json))
}

/// Prints a report. False if a measurement failed.
fn print(mut report: Report, options: &Options, json: bool) -> bool {
    report.conditions.extend(surroundings(options));
    if json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    report.failures.is_empty()
}

/// What holds for every scenario and may differ from one run to the next.
fn surroundings(options: &Options) -> Vec<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let machine = format!("Linux {} with {processors} processors, shared by all that runs.", kernel.trim());
    let Programs { bondwire_arguments, link_options, forward_options, .. } = &options.programs;
    let given: Vec<&str> =
        bondwire_arguments.iter().chain(link_options).chain(forward_options).map(String::as_str).collect();
    let bondwire = format!("bondwire runs with {}.", given.join(" "));
    let is_default = given.is_empty() || !options.subjects.contains(&Subject::Bondwire);
    std::iter::once(machine).chain((!is_default).then_some(bondwire)).collect()
}

fn transport(mptcp: bool) -> Transport {
    if mptcp { Transport::Mptcp } else { Transport::Plain }
}

fn emulate(links: &[Shape]) -> Result<()> {
    namespace::remove_on_interrupt()?;
    let network = Network::emulated(links, None)?;
    network.enable_mptcp()?;
    println!("near: ip netns exec {} …   with the addresses 10.77.LINK.1", network.near.name());
    println!("far:  ip netns exec {} …   with the addresses 10.77.LINK.2", network.far.name());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["quit"] {
            break;
        }
        if let Err(error) = change(&network, &words) {
            println!("{line}: {error:#}");
        }
    }
    Ok(())
}

/// Does what one line on standard input asks for.
fn change(network: &Network, words: &[&str]) -> Result<()> {
    let emulator = &network.emulator;
    if words == ["stat"] {
        for index in 0..emulator.link_count() {
            let counters = Direction::BOTH.map(|direction| emulator.counters(index, direction));
            println!("{}: forth {:?}\n   back  {:?}", index + 1, counters[0], counters[1]);
        }
        return Ok(());
    }
    let [link, words @ ..] = words else { return Ok(()) };
    let index = link.parse::<usize>()?.checked_sub(1).filter(|&index| index < emulator.link_count());
    let index = index.with_context(|| format!("there is no link {link}"))?;
    match *words {
        ["interface", "up"] => network.set_interface(index, true)?,
        ["interface", "down"] => network.set_interface(index, false)?,
        [action, ref direction @ ..] => {
            let directions = match direction {
                [] => Direction::BOTH.to_vec(),
                ["forth"] => vec![Direction::Forth],
                ["back"] => vec![Direction::Back],
                _ => bail!("want forth, back or nothing after {action}"),
            };
            for direction in directions {
                match action {
                    "up" => emulator.set_gate(index, direction, Gate::Open),
                    "down" => emulator.set_gate(index, direction, Gate::Blackhole),
                    "reset" => emulator.set_gate(index, direction, Gate::Reset),
                    settings => {
                        let shape = emulator.shape(index, direction).changed_by(settings)?;
                        emulator.set_shape(index, direction, shape);
                    }
                }
            }
        }
        [] => bail!("what about link {link}?"),
    }
    Ok(())
}
