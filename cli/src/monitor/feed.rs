//! Where the news come from: two connections to the running command, one that asks for figures and carries out keys, one that
//! listens to its messages. Both come back by themselves when it was started anew.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::limits::{ANSWER_PATIENCE, HURRY_INTERVAL, RETRY_INTERVAL};
use super::model::Event;
use crate::control::client::{self, Client, ClientError};
use crate::control::protocol::{Command, LinkChange};
use crate::control::status::Status;

/// What there is to hear.
pub(super) enum News {
    Status(Box<Status>),
    Event(Event),
    Missed(u64),
    /// There is no answer, and why.
    Outage(String),
    /// What became of an order.
    Answer(String),
}

/// What a key asks for.
pub(super) struct Order {
    pub(super) change: LinkChange,
    /// What to say when it is done.
    pub(super) done: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("not running at the moment; waiting for it")]
    NotRunning,
    #[error("ended; waiting for it to come back")]
    Ended,
    #[error("no answer within {} s", ANSWER_PATIENCE.as_secs())]
    Late,
    #[error("its status cannot be read: {0}")]
    Status(serde_json::Error),
    #[error(transparent)]
    Other(ClientError),
}

impl From<ClientError> for FeedError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoSuchName { .. } | ClientError::NothingRuns => Self::NotRunning,
            ClientError::Ended(_) => Self::Ended,
            other => Self::Other(other),
        }
    }
}

/// Nobody is there to hear the news.
struct Over;

/// Begins to ask. It ends when the answer is dropped.
pub(super) fn start(
    client: Client,
    interval: Duration,
    news: mpsc::Sender<News>,
    orders: mpsc::Receiver<Order>,
) -> JoinSet<()> {
    let name = client.hello.name.clone();
    let hurry = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let figures =
        Figures { name: name.clone(), interval, news: news.clone(), orders, hurry: Arc::clone(&hurry) };
    tasks.spawn(async move {
        // Its only end is that of the monitor.
        let Over = figures.run(client).await;
    });
    tasks.spawn(async move {
        let Over = messages(&name, &news, &hurry).await;
    });
    tasks
}

struct Figures {
    name: String,
    interval: Duration,
    news: mpsc::Sender<News>,
    orders: mpsc::Receiver<Order>,
    /// Something happened that is worth a look at once.
    hurry: Arc<Notify>,
}

impl Figures {
    async fn run(mut self, client: Client) -> Over {
        let mut client = Some(client);
        loop {
            let looked = self.look(&mut client).await;
            if let Err(error) = looked {
                client = None;
                // A monitor that has ended hears nothing, which is seen below.
                let _ = self.news.send(News::Outage(error.to_string())).await;
                self.refuse_orders_for(RETRY_INTERVAL).await;
            }
            if self.news.is_closed() {
                return Over;
            }
        }
    }

    /// One look at the figures, and the time until the next.
    async fn look(&mut self, client: &mut Option<Client>) -> Result<(), FeedError> {
        let client = match client {
            Some(client) => client,
            none => none.insert(connect(&self.name).await?),
        };
        let status = answer(client, &Command::Status {}).await?;
        let status: Status = serde_json::from_value(status).map_err(FeedError::Status)?;
        let _ = self.news.send(News::Status(Box::new(status))).await;
        self.rest(client, Instant::now() + self.interval).await
    }

    /// Carries out orders until the next look is due: at `next`, or soon after something happened.
    async fn rest(&mut self, client: &mut Client, mut next: Instant) -> Result<(), FeedError> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(next) => return Ok(()),
                Some(order) = self.orders.recv() => {
                    let answered = answer(client, &Command::LinkSet(order.change)).await;
                    let text = match answered {
                        Ok(_) => order.done,
                        Err(FeedError::Other(ClientError::Command(refusal))) => format!("not done: {refusal}"),
                        Err(error) => return Err(error),
                    };
                    let _ = self.news.send(News::Answer(text)).await;
                    next = Instant::now();
                }
                () = self.hurry.notified() => next = next.min(Instant::now() + HURRY_INTERVAL),
            }
        }
    }

    async fn refuse_orders_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                Some(_) = self.orders.recv() => {
                    let text = format!("not done: {} does not answer", self.name);
                    let _ = self.news.send(News::Answer(text)).await;
                }
            }
        }
    }
}

async fn connect(name: &str) -> Result<Client, FeedError> {
    timeout(ANSWER_PATIENCE, client::one(Some(name))).await.map_err(|_| FeedError::Late)?.map_err(Into::into)
}

async fn answer(client: &mut Client, command: &Command) -> Result<Value, FeedError> {
    timeout(ANSWER_PATIENCE, client.ask(command)).await.map_err(|_| FeedError::Late)?.map_err(Into::into)
}

/// Listens to the messages of the command, of one run after the other.
async fn messages(name: &str, news: &mpsc::Sender<News>, hurry: &Notify) -> Over {
    // Process, and number of its last message that was heard.
    let mut heard: Option<(u32, u64)> = None;
    loop {
        // Why there is none is told by the other connection.
        if let Ok(mut client) = connect(name).await {
            let pid = client.hello.pid;
            let after = heard.filter(|(of, _)| *of == pid).map_or(0, |(_, number)| number);
            heard = Some((pid, after));
            if answer(&mut client, &Command::Events { after: Some(after) }).await.is_ok() {
                while let Ok(Some(line)) = client.next().await {
                    let Some(item) = read(line) else { continue };
                    if let News::Event(event) = &item {
                        heard = Some((pid, event.number));
                        if event.state.is_some() {
                            hurry.notify_one();
                        }
                    }
                    if news.send(item).await.is_err() {
                        return Over;
                    }
                }
                hurry.notify_one();
            }
        }
        if news.is_closed() {
            return Over;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// One line of the listening connection; `None` for what this version does not know.
fn read(mut line: Value) -> Option<News> {
    if let Some(event) = line.get_mut("event") {
        return serde_json::from_value(event.take()).ok().map(News::Event);
    }
    line.get("missed").and_then(Value::as_u64).map(News::Missed)
}
