//! Two ends of a bond on this machine, and servers behind them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::user::{PATIENCE, Running, User};

/// A listener and a connector, with a bond of two links between them.
pub(crate) struct Pair {
    pub(crate) server: User,
    pub(crate) client: User,
    pub(crate) listening: Running,
    pub(crate) connecting: Running,
    pub(crate) link: String,
}

impl Pair {
    /// Starts both with these arguments.
    pub(crate) fn start(listen: &[&str], connect: &[&str]) -> Self {
        let (server, client) = (User::new(), User::new());
        let client_key = client.public_key();
        let arguments: Vec<_> = ["--allow", &client_key].iter().chain(listen).copied().collect();
        let (listening, link) = server.listen(&arguments);
        let server_key = server.public_key();
        let both = ["connect", &link, &link, "--peer", &server_key];
        let arguments: Vec<_> = both.iter().chain(connect).copied().collect();
        let connecting = client.start(&arguments);
        Self { server, client, listening, connecting, link }
    }

    /// The same with one `-L` to `target`, and its local address.
    pub(crate) fn forwarding(target: &str, listen: &[&str], options: &str) -> (Self, SocketAddr) {
        let pair = Self::start(listen, &["-L", &format!("127.0.0.1:0:{target}{options}")]);
        let local = address_behind("forwarding ", &pair.connecting.wait_for("forwarding 127.0.0.1:"));
        pair.connecting.wait_for("connected to ");
        (pair, local)
    }
}

/// The address that stands behind `words` in a line of the log.
#[track_caller]
pub(crate) fn address_behind(words: &str, line: &str) -> SocketAddr {
    let rest = line.split(words).nth(1).unwrap();
    let word = rest.split([' ', ';']).next().unwrap();
    word.replace("localhost", "127.0.0.1").trim_start_matches("udp/").parse().unwrap()
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Serves each connection of a fresh port with `serve`.
pub(crate) fn server(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve_on(listener, serve);
    address
}

/// Serves each connection of a port with `serve`.
pub(crate) fn serve_on(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
}

/// A web server with one page of `length` bytes.
pub(crate) fn web_server(length: usize) -> SocketAddr {
    server(move |stream| serve_page(stream, length))
}

/// Answers one request with a page of `length` bytes.
pub(crate) fn serve_page(mut stream: TcpStream, length: usize) -> io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&page(length))
}

pub(crate) fn page(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub(crate) fn get(address: SocketAddr) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    answer.split_off(body)
}

/// Sends back what comes in, and ends when the client does.
pub(crate) fn echo_server() -> SocketAddr {
    server(|stream| io::copy(&mut &stream, &mut &stream).map(drop))
}

/// A port where nobody listens.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
