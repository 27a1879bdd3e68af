//! The recording of a bond that runs in another process: what its control socket tells.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::file::RecordFile;
use super::limits::{NEWS_QUEUE_MAX, REMOTE_INTERVAL};
use super::recorder::Sink;
use crate::control::client::{self, Client};
use crate::control::protocol::{Command, Hello};
use crate::control::status::{BondStatus, Status};
use crate::failure::Failure;

/// A recording that goes on.
pub(crate) struct RemoteRecording {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

/// What the control socket tells.
enum News {
    Figures(Vec<BondStatus>),
    Message(Value),
    Missed(u64),
}

impl RemoteRecording {
    /// Begins to record the bond `number` of the command that has said `hello`.
    pub(crate) async fn start(file: RecordFile, hello: &Hello, number: u64) -> Result<Self, Failure> {
        let name = Some(hello.name.as_str());
        let (figures, mut messages) = (client::one(name).await?, client::one(name).await?);
        messages.ask(&Command::Events { after: None }).await?;
        let sink = Sink::start(file.start(), (&hello.name, &hello.command, hello.pid), REMOTE_INTERVAL);
        let (sender, news) = mpsc::channel(NEWS_QUEUE_MAX);
        let mut asking = JoinSet::new();
        asking.spawn(ask(figures, number, sender.clone()));
        asking.spawn(listen(messages, sender));
        let (end, ended) = oneshot::channel();
        Ok(Self { task: tokio::spawn(record(sink, asking, news, ended)), end })
    }

    /// Waits until all is written or the file has had its time.
    pub(crate) async fn end(self) {
        // If it ended before, that was said.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

async fn record(
    mut sink: Sink,
    asking: JoinSet<()>,
    mut news: mpsc::Receiver<News>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut goes_on = true;
    while goes_on {
        goes_on = tokio::select! {
            biased;
            _ = &mut ended => false,
            news = news.recv() => match news {
                Some(News::Figures(bonds)) => sink.sample(&bonds),
                Some(News::Message(entry)) => sink.event(&entry),
                Some(News::Missed(count)) => sink.miss(count),
                None => false,
            },
        };
    }
    drop(asking);
    sink.finish().await;
}

/// Asks for figures, each of which takes its time there, until nobody wants them.
async fn ask(mut client: Client, number: u64, news: mpsc::Sender<News>) {
    while let Ok(status) = client.ask(&Command::Status {}).await {
        let Ok(Status { mut bonds, .. }) = serde_json::from_value(status) else { return };
        bonds.retain(|bond| bond.number == number);
        if news.send(News::Figures(bonds)).await.is_err() {
            return;
        }
    }
}

async fn listen(mut client: Client, news: mpsc::Sender<News>) {
    while let Ok(Some(mut line)) = client.next().await {
        let item = match (line.get_mut("event").map(Value::take), line.get("missed").and_then(Value::as_u64))
        {
            (Some(entry), _) => News::Message(entry),
            (None, Some(count)) => News::Missed(count),
            (None, None) => continue,
        };
        if news.send(item).await.is_err() {
            return;
        }
    }
}
