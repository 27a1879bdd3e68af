//! Answers on a control socket.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::folder::ControlSocket;
use super::program::Program;
use super::protocol::{Command, CommandError, Hello, REQUEST_MAX_BYTES, VERSION, parse};

/// Clients at once: scripts and people; more would only be a mistake that repeats itself.
const CLIENTS_MAX: usize = 32;
/// Time that a client may take to read an answer. One that never reads is cut off.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a client is looked at whose command takes its time.
const GONE_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Serves clients for ever.
pub(crate) async fn run(socket: ControlSocket, program: Arc<Program>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut clients = JoinSet::new();
    loop {
        // Before the accept, so that those who wait cost nothing here.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                let program = Arc::clone(&program);
                clients.spawn(async move {
                    // A client that goes away, or never reads, is no fault of this program.
                    let _ = serve(stream, &program).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("control socket: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}

async fn serve(stream: UnixStream, program: &Program) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let hello = Hello {
        protocol: VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: program.name().to_owned(),
        command: program.command().to_owned(),
        pid: std::process::id(),
    };
    send(&mut writer, &json!({ "bondwire": hello })).await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = REQUEST_MAX_BYTES as u64 + 1;
        let read = (&mut reader).take(limit).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        if read > REQUEST_MAX_BYTES {
            let error = CommandError::bad(format!("a request has at most {REQUEST_MAX_BYTES} bytes"));
            return send(&mut writer, &json!({ "id": null, "error": error })).await;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (id, command) = parse(&line);
        match command {
            Ok(Command::Events { after }) => {
                return events(&mut reader, &mut writer, program, &id, after).await;
            }
            Ok(command) => {
                let executed = tokio::select! {
                    executed = program.execute(command) => executed,
                    () = gone(&writer) => return Ok(()),
                };
                let answer = match executed {
                    Ok(result) => json!({ "id": id, "result": result }),
                    Err(error) => json!({ "id": id, "error": error }),
                };
                send(&mut writer, &answer).await?;
            }
            Err(error) => send(&mut writer, &json!({ "id": id, "error": error })).await?,
        }
    }
}

/// Waits until the client has gone, so that nothing is done for nobody. One that has only said all it has to say is there.
async fn gone(writer: &OwnedWriteHalf) {
    let mut look = interval(GONE_LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        match writer.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {}
            _ => return,
        }
    }
}

/// Sends messages as they come, until the client goes away.
async fn events(
    reader: &mut (impl AsyncReadExt + Unpin),
    writer: &mut OwnedWriteHalf,
    program: &Program,
    id: &Value,
    after: Option<u64>,
) -> std::io::Result<()> {
    let history = program.history();
    let (missed, mut news) = history.listen(after.unwrap_or_else(|| history.last_number()));
    send(writer, &json!({ "id": id, "result": {} })).await?;
    for entry in missed {
        send(writer, &json!({ "event": entry })).await?;
    }
    loop {
        let mut byte = [0];
        tokio::select! {
            news = news.recv() => match news {
                Ok(entry) => send(writer, &json!({ "event": entry })).await?,
                Err(RecvError::Lagged(count)) => send(writer, &json!({ "missed": count })).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
            // Whatever else the client says is not heard any more; its end is.
            read = reader.read(&mut byte) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, object: &Value) -> std::io::Result<()> {
    let mut line = object.to_string();
    line.push('\n');
    timeout(ANSWER_TIMEOUT, writer.write_all(line.as_bytes())).await?
}
