//! Copies a file over a bond of two TCP links, both ends in one process:
//! `cargo run -p bondwire-tcp --example file_copy -- FROM TO`.

use bondwire::{Bond, BondConfig, Class, Identity, ListenConfig, Listener};
use bondwire_tcp::{TcpAcceptor, TcpAddress, TcpDialer};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, copy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments are needed: the file to copy, and its copy".into());
    };
    let (sender, receiver) = (Identity::generate()?, Identity::generate()?);

    let listener = Listener::new(&receiver, ListenConfig::allow([sender.public_key()]))?;
    let acceptor = TcpAcceptor::bind(&TcpAddress::new("127.0.0.1", 0)).await?;
    let address = TcpAddress::new("127.0.0.1", acceptor.local_addr()?.port());
    listener.add_acceptor(acceptor);

    let bond = Bond::connect(&sender, receiver.public_key(), BondConfig::default())?;
    bond.add_dialer(TcpDialer::new(address.clone()));
    bond.add_dialer(TcpDialer::new(address));

    let receive = async {
        let mut stream = listener.accept().await.accept_stream().await?;
        copy(&mut stream, &mut File::create(to).await?).await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let send = async {
        let mut stream = bond.open_stream(Class::Bulk).await?;
        copy(&mut File::open(from).await?, &mut stream).await?;
        stream.shutdown().await?;
        Ok(())
    };
    tokio::try_join!(receive, send)?;
    bond.close(0x100, "done").await;
    Ok(())
}
