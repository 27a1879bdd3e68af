//! Asks a running command over its control socket.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::folder;
use super::protocol::{Command, CommandError, DATA_WRONG, GONE, Hello, NOT_WANTED, VERSION};
use super::status::{BondStatus, Status};
use crate::failure::{Exit, Failure};

/// Longest line of an answer, in bytes: far above a report with all that is kept.
const ANSWER_MAX_BYTES: u64 = 16 << 20;

/// A connection to a running command.
pub(crate) struct Client {
    pub(crate) hello: Hello,
    lines: Lines,
    writer: OwnedWriteHalf,
}

/// Lines of a bounded length.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    /// What has come of the next one.
    line: Vec<u8>,
}

/// Why a running command did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no bondwire runs here under the name {name:?}{}", running(.others))]
    NoSuchName { name: String, others: Vec<String> },
    #[error("no bondwire of this user runs here; start one with `bondwire connect` or `bondwire listen`")]
    NothingRuns,
    #[error("several run here: {}; name one of them", .0.join(", "))]
    WhichOne(Vec<String>),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0} ended before it answered")]
    Ended(String),
    #[error(
        "{name} speaks version {theirs} of the control protocol, this program {VERSION}; use the same version of bondwire"
    )]
    Version { name: String, theirs: u32 },
    #[error("{0} sent what is no answer: {1}")]
    Answer(String, serde_json::Error),
    #[error("{0} sent a line of more than {ANSWER_MAX_BYTES} bytes, which is no answer")]
    Endless(String),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Command(command) if command.code == "bad-request" => Exit::Usage,
            ClientError::Command(command) if command.code == "refused" => Exit::Refused,
            ClientError::Command(command) if command.code == DATA_WRONG => Exit::DataWrong,
            ClientError::Command(command) if [GONE, NOT_WANTED].contains(&command.code.as_str()) => {
                Exit::NotAttached
            }
            _ => Exit::Configuration,
        };
        Self::new(exit, error)
    }
}

#[derive(Deserialize)]
struct FirstLine {
    bondwire: Hello,
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Value>,
    error: Option<CommandError>,
}

/// What runs here, in the order of its names. Sockets of dead programs are passed over.
pub(crate) async fn all() -> Result<Vec<Client>, ClientError> {
    let mut clients = Vec::new();
    for folder in folder::to_look_in() {
        let names = folder::names(&folder).map_err(|error| ClientError::Io(folder.clone(), error))?;
        for name in names {
            match Client::connect(&folder, &name).await {
                Ok(client) => clients.push(client),
                Err(ClientError::Io(_, error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(clients)
}

/// The running command `name`, or the only one that runs.
pub(crate) async fn one(name: Option<&str>) -> Result<Client, ClientError> {
    if let Some(name) = name {
        for folder in folder::to_look_in() {
            match Client::connect(&folder, name).await {
                Err(ClientError::Io(_, error)) if is_absent(&error) => {}
                connected => return connected,
            }
        }
        let others = all().await?.into_iter().map(|client| client.hello.name).collect();
        return Err(ClientError::NoSuchName { name: name.to_owned(), others });
    }
    let mut clients = all().await?;
    match (clients.pop(), clients.is_empty()) {
        (None, _) => Err(ClientError::NothingRuns),
        (Some(client), true) => Ok(client),
        (Some(client), false) => {
            clients.push(client);
            Err(ClientError::WhichOne(clients.into_iter().map(|client| client.hello.name).collect()))
        }
    }
}

/// The `connect` or service that runs under the name `name`, or whose peer has that name, with the number of the bond that it
/// opened there; `None` if there is none.
pub(crate) async fn connecting_to(name: &str) -> Result<Option<(Client, u64)>, ClientError> {
    let mut clients = all().await?;
    clients.retain(|client| ["connect", "up"].contains(&client.hello.command.as_str()));
    // A command of that name goes before one with such a peer.
    clients.sort_by_key(|client| client.hello.name != name);
    for mut client in clients {
        let status: Status = match client.ask(&Command::Status {}).await {
            Ok(status) => serde_json::from_value(status)
                .map_err(|error| ClientError::Answer(client.hello.name.clone(), error))?,
            // It ended between our two looks.
            Err(ClientError::Ended(_)) => continue,
            Err(error) => return Err(error),
        };
        let is_meant = client.hello.name == name && status.bonds.len() == 1;
        let is_opened = |bond: &&BondStatus| bond.links.iter().any(|link| link.dialled.is_some());
        let mut opened = status.bonds.iter().filter(is_opened);
        if let Some(bond) = opened.find(|bond| is_meant || bond.peer_name.as_deref() == Some(name)) {
            return Ok(Some((client, bond.number)));
        }
    }
    Ok(None)
}

impl Client {
    async fn connect(folder: &Path, name: &str) -> Result<Self, ClientError> {
        let path = folder::socket(folder, name);
        let stream = UnixStream::connect(&path).await.map_err(|error| ClientError::Io(path, error))?;
        let (reader, writer) = stream.into_split();
        let mut lines = Lines { reader: BufReader::new(reader), line: Vec::new() };
        let first: FirstLine = next(&mut lines, name).await?;
        let hello = first.bondwire;
        if hello.protocol != VERSION {
            return Err(ClientError::Version { name: hello.name, theirs: hello.protocol });
        }
        Ok(Self { hello, lines, writer })
    }

    /// Has a command carried out.
    pub(crate) async fn ask(&mut self, command: &Command) -> Result<Value, ClientError> {
        let name = &self.hello.name;
        let ended = |_| ClientError::Ended(name.clone());
        let mut line = json!(command).to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes()).await.map_err(ended)?;
        let answer: Answer = next(&mut self.lines, name).await?;
        match answer.error {
            Some(error) => Err(error.into()),
            None => Ok(answer.result.unwrap_or_default()),
        }
    }

    /// The next line that the running command sends by itself, after [`Command::Events`]; `None` when it ends.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        match next(&mut self.lines, &self.hello.name).await {
            Err(ClientError::Ended(_)) => Ok(None),
            line => line.map(Some),
        }
    }
}

async fn next<T: for<'a> Deserialize<'a>>(lines: &mut Lines, name: &str) -> Result<T, ClientError> {
    let ended = |_| ClientError::Ended(name.to_owned());
    let room = ANSWER_MAX_BYTES.saturating_sub(lines.line.len() as u64);
    // What has come stays in `line` when this is dropped, so that the next call goes on behind it.
    (&mut lines.reader).take(room).read_until(b'\n', &mut lines.line).await.map_err(ended)?;
    let line = std::mem::take(&mut lines.line);
    match line.strip_suffix(b"\n") {
        Some(line) => {
            serde_json::from_slice(line).map_err(|error| ClientError::Answer(name.to_owned(), error))
        }
        None if line.len() as u64 >= ANSWER_MAX_BYTES => Err(ClientError::Endless(name.to_owned())),
        None => Err(ClientError::Ended(name.to_owned())),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn running(others: &[String]) -> String {
    if others.is_empty() { String::new() } else { format!("; there are {}", others.join(", ")) }
}
