//! The end that answers speed tests.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use bondwire::{BondStream, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::data::{self, SharedMeter};
use super::meter::Meter;
use super::protocol::{Request, Sender, Verdict};
use crate::service::{self, Status};

/// The speed tests of one bond.
#[derive(Default)]
pub(crate) struct SpeedService {
    /// Meters of the tests whose data comes in, by the test's name.
    meters: Mutex<HashMap<u32, Weak<SharedMeter>>>,
}

impl SpeedService {
    /// Serves one stream of a test. When it fails, the asker sees the stream end.
    pub(crate) async fn serve(&self, stream: BondStream) {
        let (mut reader, writer) = stream.split();
        let mut request = [0; Request::BYTES];
        if reader.read_exact(&mut request).await.is_err() {
            return;
        }
        let served = match Request::decode(request) {
            Ok(request) => self.run(&request, reader, writer).await,
            Err(error) => {
                service::refuse(writer, Status::BadRequest, &error.to_string()).await;
                return;
            }
        };
        if let Err(error) = served {
            tracing::debug!("speed test: {error}");
        }
    }

    async fn run(&self, request: &Request, mut reader: RecvStream, mut writer: SendStream) -> io::Result<()> {
        service::accept(&mut writer).await?;
        match request.sender {
            Sender::Acceptor => data::send(&mut writer, request).await,
            Sender::Asker => {
                let meter = self.meter(request);
                let wrong_at = data::receive(&mut reader, request, &meter).await?;
                let measured = data::lock(&meter).read(Instant::now());
                let verdict = Verdict { bytes: measured.bytes, time: measured.time, wrong_at };
                writer.write_all(&verdict.encode()).await?;
                writer.shutdown().await
            }
        }
    }

    /// The meter of the test that `request` belongs to; it lives as long as a stream of that test.
    fn meter(&self, request: &Request) -> Arc<SharedMeter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|_, meter| meter.strong_count() > 0);
        if let Some(meter) = meters.get(&request.test).and_then(Weak::upgrade) {
            return meter;
        }
        let meter = Arc::new(Mutex::new(Meter::new(request.omit, request.measure)));
        meters.insert(request.test, Arc::downgrade(&meter));
        meter
    }
}
