//! What is measured: plain TCP, kernel MPTCP, or the `bondwire` program, each brought onto a network.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::{Service, Usage, output_of};
use crate::traffic::{Transport, client};

/// Where `bondwire listen` waits.
pub const BOND_PORT: u16 = 7700;

/// Where the measuring server waits.
pub const SERVER_PORT: u16 = 8000;

/// Where `bondwire connect` takes the connections it forwards.
pub const FORWARD_PORT: u16 = 8080;

/// How long a program may take to start.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// How much longer than planned a measurement may take before it counts as stuck.
const SLACK: Duration = Duration::from_secs(30);

/// Seconds at the start that are not measured: slow start is a measurement of its own.
pub const OMIT_SECONDS: u64 = 2;

/// What carries the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// One TCP connection on one link.
    Plain,
    /// One kernel MPTCP connection over all links.
    Mptcp,
    /// One bond over all links.
    Bondwire,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain TCP",
            Self::Mptcp => "kernel MPTCP",
            Self::Bondwire => "Bondwire",
        })
    }
}

/// The programs the scenarios run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This very program, whose `serve` command is the measuring server.
    pub bench: PathBuf,
    /// The `bondwire` program.
    pub bondwire: PathBuf,
    /// Passed to `listen`, `connect` and `speed` as they are, such as `--cipher none --plaintext-over-ip`.
    pub bondwire_arguments: Vec<String>,
    /// Appended to each forward of `connect`, such as `class=interactive`.
    pub forward_options: Option<String>,
    /// Appended to each LINK of `connect` and `speed`, such as `cc=bbr`.
    pub link_options: Option<String>,
}

impl Programs {
    /// The LINK to a listener at that address.
    #[must_use]
    pub fn link(&self, address: Ipv4Addr) -> String {
        let options = self.link_options.iter().map(|options| format!(",{options}")).collect::<String>();
        format!("tcp:{address}:{BOND_PORT}{options}")
    }

    /// Starts the measuring server in `host`, on all its addresses.
    ///
    /// # Errors
    /// With the server's last words.
    pub fn serve(&self, host: &Namespace, transport: Transport) -> Result<Service> {
        let mut command = host.command(&self.bench);
        command.arg("serve").arg(format!("0.0.0.0:{SERVER_PORT}"));
        if transport == Transport::Mptcp {
            command.arg("--mptcp");
        }
        let mut server = Service::start("the measuring server", &mut command)?;
        server.wait_until_listening(SERVER_PORT, START_LIMIT)?;
        Ok(server)
    }
}

/// Key pairs for a listener and its clients, and the folder that holds them and everything else the programs
/// write: they see nothing of the user's own configuration.
#[derive(Debug)]
pub struct Keys {
    folder: TempDir,
    listener: Key,
    clients: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    file: PathBuf,
    public: String,
}

impl Keys {
    /// Makes one key for the listener and `clients` more.
    ///
    /// # Errors
    /// If `bondwire keygen` or `bondwire pubkey` fails.
    pub fn make(programs: &Programs, clients: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = Key::make(programs, folder.path(), "listener")?;
        let clients = (0..clients)
            .map(|index| Key::make(programs, folder.path(), &format!("client{index}")))
            .collect::<Result<_>>()?;
        Ok(Self { folder, listener, clients })
    }

    fn command(&self, programs: &Programs, host: &Namespace, action: &str) -> Command {
        let mut command = host.command(&programs.bondwire);
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(variable, self.folder.path());
        }
        // Last words are shown in part; a trace would push the message out.
        command.env("RUST_BACKTRACE", "0");
        command.arg(action);
        command
    }

    /// Starts `bondwire listen` in `host`, open to all clients and for forwards to anywhere.
    ///
    /// # Errors
    /// With the program's last words.
    pub fn listen(&self, programs: &Programs, host: &Namespace) -> Result<Service> {
        self.listen_with(programs, host, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// With the program's last words.
    pub fn listen_with(
        &self,
        programs: &Programs,
        host: &Namespace,
        arguments: &[String],
    ) -> Result<Service> {
        let mut command = self.command(programs, host, "listen");
        command.arg(format!("tcp:0.0.0.0:{BOND_PORT}")).arg("--key").arg(&self.listener.file);
        for client in &self.clients {
            command.args(["--allow", &client.public]);
        }
        command.args(["--permit-open", "*:*"]).args(&programs.bondwire_arguments).args(arguments);
        let mut listener = Service::start("bondwire listen", &mut command)?;
        listener.wait_until_listening(BOND_PORT, START_LIMIT)?;
        Ok(listener)
    }

    /// Starts `bondwire connect` as client `index`, forwarding `port` to the measuring server. It may take its
    /// time to listen on that port; see [`Service::wait_until_listening`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn connect(
        &self,
        programs: &Programs,
        host: &Namespace,
        index: usize,
        links: &[Ipv4Addr],
        port: u16,
    ) -> Result<Service> {
        let options =
            programs.forward_options.iter().map(|options| format!(",{options}")).collect::<String>();
        let forward = format!("127.0.0.1:{port}:127.0.0.1:{SERVER_PORT}{options}");
        let links: Vec<_> = links.iter().map(|&link| programs.link(link)).collect();
        self.connect_with(programs, host, index, &links, &["-L".into(), forward])
    }

    /// The same over these LINKs, with other forwards or any further arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn connect_with(
        &self,
        programs: &Programs,
        host: &Namespace,
        index: usize,
        links: &[String],
        arguments: &[String],
    ) -> Result<Service> {
        let mut command = self.command(programs, host, "connect");
        self.add_peer(command.args(links), programs, index)?;
        Service::start("bondwire connect", command.args(arguments))
    }

    /// What a running command says when it is asked on its control socket, such as `status connect --json`.
    ///
    /// # Errors
    /// With what the program says.
    pub fn ask(&self, programs: &Programs, host: &Namespace, arguments: &[&str]) -> Result<String> {
        let Some((action, rest)) = arguments.split_first() else { bail!("ask what?") };
        output_of("bondwire", self.command(programs, host, action).args(rest))
    }

    /// Waits until the first bond of the `connect` in `host` has so many links, all of them carry data, and its interfaces, if it has
    /// any, lead somewhere.
    ///
    /// # Errors
    /// If that takes too long; with what there is then.
    pub fn wait_for_links(&self, programs: &Programs, host: &Namespace, count: usize) -> Result<()> {
        let since = Instant::now();
        loop {
            // Nobody answers before it has a bond.
            let said = self.ask(programs, host, &["status", "connect", "--json"]).unwrap_or_default();
            let status: Value = serde_json::from_str(&said).unwrap_or_default();
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let (links, tuns) = (list(&status[0]["bonds"][0]["links"]), list(&status[0]["tuns"]));
            let is_up = links.len() == count && links.iter().all(|link| link["state"] == "active");
            if is_up && tuns.iter().all(|tun| !list(&tun["leads_to"]).is_empty()) {
                return Ok(());
            }
            ensure!(since.elapsed() < START_LIMIT, "not all links came up: {links:?} {tuns:?}");
        }
    }

    /// Runs `bondwire speed` as client 0, sending for `seconds` after `omit_seconds` that do not count.
    ///
    /// # Errors
    /// With the program's last words.
    pub fn speed(
        &self,
        programs: &Programs,
        host: &Namespace,
        links: &[Ipv4Addr],
        omit_seconds: u64,
        seconds: u64,
    ) -> Result<(Speed, Usage)> {
        let mut command = self.command(programs, host, "speed");
        command.args(links.iter().map(|&link| programs.link(link)));
        self.add_peer(&mut command, programs, 0)?;
        command.args(["--direction", "send", "--json"]);
        command.args(["--omit", &omit_seconds.to_string(), "--seconds", &seconds.to_string()]);
        let limit = Duration::from_secs(omit_seconds + seconds) + SLACK;
        let (output, usage) = Service::start("bondwire speed", &mut command)?.finish(limit)?;
        Ok((Speed::parse(&output)?, usage))
    }

    fn add_peer(&self, command: &mut Command, programs: &Programs, index: usize) -> Result<()> {
        let client = self.clients.get(index).context("there is no such client key")?;
        command.arg("--key").arg(&client.file).args(["--peer", &self.listener.public]);
        command.args(&programs.bondwire_arguments);
        Ok(())
    }
}

impl Key {
    fn make(programs: &Programs, folder: &Path, name: &str) -> Result<Self> {
        let file = folder.join(name);
        output_of("bondwire keygen", Command::new(&programs.bondwire).args(["keygen", "-o"]).arg(&file))?;
        let public = output_of("bondwire pubkey", Command::new(&programs.bondwire).arg("pubkey").arg(&file))?;
        Ok(Self { file, public: public.trim().into() })
    }
}

/// What `bondwire speed --json` reports.
#[derive(Clone, Debug)]
pub struct Speed {
    /// At the receiver, after the warm-up.
    pub mbytes_per_second: f64,
    /// Bytes received in the time that counts.
    pub bytes: u64,
    /// The whole report.
    pub report: Value,
}

impl Speed {
    fn parse(output: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(output.trim())
            .with_context(|| format!("bondwire speed --json printed no JSON object: {output:?}"))?;
        let of = |key: &str| {
            let value = &report[key];
            value.as_f64().or_else(|| value["send"].as_f64())
        };
        let mbytes_per_second = of("mbytes_per_second").context("the report has no mbytes_per_second")?;
        let bytes = of("bytes").unwrap_or(0.0);
        ensure!(bytes >= 0.0 && mbytes_per_second >= 0.0, "the report has negative numbers: {report}");
        // A float holds every whole number up to 9 PB.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked right above")]
        Ok(Self { mbytes_per_second, bytes: bytes as u64, report })
    }
}

/// A way from the near host to the measuring server on the far host, over a subject.
#[derive(Debug)]
pub struct Route {
    /// Where clients on the near host connect to.
    pub address: SocketAddr,
    /// What they speak.
    pub transport: Transport,
    /// The programs that make the way, for those who want to know what they use.
    pub services: Vec<Service>,
    _keys: Option<Keys>,
}

impl Route {
    /// Brings `subject` onto two hosts whose links have these far addresses. Plain TCP takes the last of them.
    ///
    /// # Errors
    /// If a program fails to start.
    pub fn open(
        subject: Subject,
        programs: &Programs,
        [near, far]: [&Namespace; 2],
        links: &[Ipv4Addr],
    ) -> Result<Self> {
        let transport = if subject == Subject::Mptcp { Transport::Mptcp } else { Transport::Plain };
        let server = programs.serve(far, transport)?;
        let direct = match subject {
            Subject::Plain => links.last(),
            Subject::Mptcp => links.first(),
            Subject::Bondwire => None,
        };
        if let Some(&direct) = direct {
            let address = (direct, SERVER_PORT).into();
            let route = Self { address, transport, services: vec![server], _keys: None };
            return route.once_answering(near);
        }
        let keys = Keys::make(programs, 1)?;
        let listener = keys.listen(programs, far)?;
        let mut connector = keys.connect(programs, near, 0, links, FORWARD_PORT)?;
        connector.wait_until_listening(FORWARD_PORT, START_LIMIT)?;
        let address = (Ipv4Addr::LOCALHOST, FORWARD_PORT).into();
        let services = vec![server, listener, connector];
        Self { address, transport, services, _keys: Some(keys) }.once_answering(near)
    }

    /// Hands the way out once it works: a program may listen before its bond is up.
    fn once_answering(self, near: &Namespace) -> Result<Self> {
        let answers = near.run(|| client::wait_until_answering(self.address, START_LIMIT));
        let last_words = || self.services.iter().map(Service::last_words).collect::<Vec<_>>().join("; ");
        answers.with_context(|| format!("the programs said: {}", last_words()))?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_reports_of_one_and_of_both_directions() {
        let one = Speed::parse(r#"{"bytes": 1000, "mbytes_per_second": 1.5, "links": []}"#).unwrap();
        assert_eq!((one.bytes, one.mbytes_per_second), (1000, 1.5));
        let both = Speed::parse(r#"{"bytes": 9, "mbytes_per_second": {"send": 2.5, "receive": 1}}"#).unwrap();
        assert_eq!(both.mbytes_per_second, 2.5);
        for bad in ["", "{}", "[]", r#"{"mbytes_per_second": "fast"}"#, r#"{"mbytes_per_second": -1}"#] {
            assert!(Speed::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
