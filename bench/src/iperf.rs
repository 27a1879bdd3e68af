//! One TCP connection of `iperf3`, counted at its receiver.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::Service;
use crate::subject::START_LIMIT;

/// Port of the server.
pub const PORT: u16 = 5201;
/// How much longer than planned a client may take.
const SLACK: Duration = Duration::from_secs(30);

/// What came of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What arrived each second after the warm-up, in 10⁶ bytes.
    pub mbytes_per_second: f64,
    /// Segments that were sent again.
    pub retransmissions: f64,
}

/// Starts the server in `host`, at all of its addresses.
///
/// # Errors
/// With the program's last words.
pub fn serve(host: &Namespace) -> Result<Service> {
    let mut command = host.command(Path::new("iperf3"));
    let mut server = Service::start("iperf3 -s", command.args(["-s", "-p", &PORT.to_string()]))?;
    server.wait_until_listening(PORT, START_LIMIT)?;
    Ok(server)
}

/// Runs a client in `host` for so long after the warm-up; it sends, or the server does.
///
/// # Errors
/// With the program's last words.
pub fn run(
    host: &Namespace,
    server: &str,
    sends: bool,
    warm_up: Duration,
    length: Duration,
) -> Result<Outcome> {
    let mut command = host.command(Path::new("iperf3"));
    command.args(["-c", server, "-p", &PORT.to_string(), "--json"]);
    command.args(["-O", &warm_up.as_secs().to_string(), "-t", &length.as_secs().to_string()]);
    if !sends {
        command.arg("-R");
    }
    let (output, _) = Service::start("iperf3", &mut command)?.finish(warm_up + length + SLACK)?;
    let report: Value = serde_json::from_str(&output).context("the report of iperf3 makes no sense")?;
    let end = &report["end"];
    let bits_per_second = end["sum_received"]["bits_per_second"].as_f64();
    Ok(Outcome {
        mbytes_per_second: bits_per_second.with_context(|| format!("iperf3 reports no rate: {output}"))?
            / 8e6,
        retransmissions: end["sum_sent"]["retransmits"].as_f64().unwrap_or_default(),
    })
}
