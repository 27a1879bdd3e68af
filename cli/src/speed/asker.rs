//! The end that asks for a speed test.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bondwire::{Bond, Class, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::data::{self, SharedMeter};
use super::meter::{Measured, Meter};
use super::protocol::{Request, Sender, Verdict};
use crate::service::{self, Refusal, SPEED_LABEL};

/// Behind nothing and ahead of nothing: the middle.
const PRIORITY: u8 = 128;

/// What is to be measured in one direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    pub(crate) sender: Sender,
    pub(crate) omit: Duration,
    pub(crate) measure: Duration,
    pub(crate) streams: u16,
}

/// Why a test has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TestError {
    #[error("speed test {0}")]
    Refused(#[from] Refusal),
    #[error("the speed test broke off: {0}")]
    Broken(#[from] io::Error),
    #[error("no stream for the speed test: {0}")]
    NoStream(#[from] bondwire::error::OpenStreamError),
    #[error(
        "WRONG DATA at byte {wrong_at} of stream {stream}, {direction}; a host's memory may be faulty, or this is a bug: please report it"
    )]
    WrongData { wrong_at: u64, stream: usize, direction: &'static str },
    #[error("the speed test's task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Test {
    /// Runs the test; `progress` counts what arrives here meanwhile.
    pub(crate) async fn run(self, bond: &Bond) -> Result<Measured, TestError> {
        let meter = Arc::new(Mutex::new(Meter::new(self.omit, self.measure)));
        let seed = RandomState::new().hash_one(self.streams);
        let mut streams = JoinSet::new();
        for index in 0..self.streams {
            let request = Request {
                sender: self.sender,
                test: seed as u32,
                omit: self.omit,
                measure: self.measure,
                seed: seed.wrapping_add(index.into()),
            };
            let stream = bond.open_stream_with(Class::Bulk, PRIORITY, SPEED_LABEL).await?;
            let (reader, writer) = stream.split();
            streams.spawn(run_stream(usize::from(index), request, reader, writer, Arc::clone(&meter)));
        }
        // Each stream reads the shared meter when it is done itself, so the last one's reading is the whole.
        let mut measured = Measured::default();
        while let Some(stream) = streams.join_next().await {
            let reading = stream??;
            if reading.bytes >= measured.bytes {
                measured = reading;
            }
        }
        Ok(measured)
    }
}

async fn run_stream(
    index: usize,
    request: Request,
    mut reader: RecvStream,
    mut writer: SendStream,
    meter: Arc<SharedMeter>,
) -> Result<Measured, TestError> {
    writer.write_all(&request.encode()).await?;
    let wrong = |wrong_at, direction| TestError::WrongData { wrong_at, stream: index, direction };
    match request.sender {
        Sender::Asker => {
            let verdict = async {
                service::answer(&mut reader).await?;
                let mut verdict = [0; Verdict::BYTES];
                reader.read_exact(&mut verdict).await?;
                Ok::<_, TestError>(Verdict::decode(verdict))
            };
            // The verdict may come while this end still writes; a sender that was stopped waits for it.
            let sending = async {
                data::send(&mut writer, &request).await?;
                std::future::pending::<io::Result<()>>().await
            };
            let verdict = tokio::select! {
                verdict = verdict => verdict?,
                Err(error) = sending => return Err(error.into()),
            };
            match verdict.wrong_at {
                None => Ok(Measured { bytes: verdict.bytes, time: verdict.time }),
                Some(wrong_at) => Err(wrong(wrong_at, "sent")),
            }
        }
        Sender::Acceptor => {
            service::answer(&mut reader).await?;
            match data::receive(&mut reader, &request, &meter).await? {
                None => Ok(data::lock(&meter).read(Instant::now())),
                Some(wrong_at) => Err(wrong(wrong_at, "received")),
            }
        }
    }
}
