//! An own link in 30 lines: packets through two channels of this process, checked by the conformance kit, in use by a
//! bond. A real one would talk to a device.

use std::io;

use bondwire::link::{LinkDescription, PacketBatch, PacketLink, PacketReader, PacketWriter};
use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

struct ChannelLink(mpsc::Receiver<BytesMut>, mpsc::Sender<BytesMut>);
struct Reader(mpsc::Receiver<BytesMut>);
struct Writer(mpsc::Sender<BytesMut>);

impl PacketLink for ChannelLink {
    type Reader = Reader;
    type Writer = Writer;

    fn describe(&self) -> LinkDescription {
        LinkDescription::new("channel", "channel in this process", 1500)
    }

    fn split(self) -> (Reader, Writer) {
        (Reader(self.0), Writer(self.1))
    }
}

impl PacketReader for Reader {
    async fn receive(&mut self, out: &mut Vec<BytesMut>) -> io::Result<()> {
        match self.0.recv_many(out, 64).await {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl PacketWriter for Writer {
    async fn ready(&mut self) -> io::Result<()> {
        self.0.reserve().await.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn send(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        for packet in batch.packets() {
            self.0.send(packet.into()).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }
}

fn pair() -> (ChannelLink, ChannelLink) {
    let ((to_b, from_a), (to_a, from_b)) = (mpsc::channel(64), mpsc::channel(64));
    (ChannelLink(from_b, to_b), ChannelLink(from_a, to_a))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "conformance")]
    bondwire::conformance::check(|| async { pair() }).await?;

    let (here, there) = (Identity::generate()?, Identity::generate()?);
    let listener = Listener::new(&there, ListenConfig::allow([here.public_key()]))?;
    let bond = Bond::connect(&here, there.public_key(), BondConfig::default())?;
    let (near, far) = pair();
    listener.add_link(far);
    bond.add_link(near).await?;

    bond.open_stream(Class::Bulk).await?.write_all(b"hello").await?;
    let mut text = String::new();
    listener.accept().await.accept_stream().await?.read_to_string(&mut text).await?;
    assert_eq!(text, "hello");
    Ok(())
}
