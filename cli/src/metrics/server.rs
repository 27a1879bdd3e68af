//! HTTP/1 for one answer. What comes in is not trusted, and costs little.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::families;
use super::limits::{ACCEPT_PAUSE, CONNECTION_TIMEOUT, CONNECTIONS_MAX, REQUEST_MAX_BYTES, REQUEST_TIMEOUT};
use crate::control::program::Program;
use crate::failure::Failure;

/// Where the metrics are.
const PATH: &str = "/metrics";

/// A port for metrics, on which nothing is answered yet.
pub(crate) struct OpenMetrics {
    listener: TcpListener,
    address: SocketAddr,
}

impl OpenMetrics {
    /// Opens the port.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let opened = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok::<_, std::io::Error>(Self { listener, address })
        };
        opened.await.map_err(|error| {
            Failure::configuration(format!(
                "cannot serve metrics on {address}: {error}; another command may do so: name another ADDR:PORT"
            ))
        })
    }

    /// Begins to answer for `program`.
    pub(crate) fn start(self, program: &Arc<Program>) -> Metrics {
        let Self { listener, address } = self;
        tracing::info!("metrics on http://{address}{PATH}");
        if !address.ip().is_loopback() {
            tracing::warn!(
                "metrics on {address}: whoever reaches it can read addresses, peers and traffic of this host"
            );
        }
        Metrics(tokio::spawn(run(listener, address, Arc::clone(program))))
    }
}

/// Metrics that are served for as long as this lives.
pub(crate) struct Metrics(JoinHandle<()>);

impl Drop for Metrics {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(listener: TcpListener, address: SocketAddr, program: Arc<Program>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Before the accept, so that those who wait cost nothing here.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let program = Arc::clone(&program);
                connections.spawn(async move {
                    // One that goes away, is too slow, or speaks no HTTP is no fault of this program.
                    let _ = timeout(CONNECTION_TIMEOUT, serve(stream, address.ip(), &program)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("metrics: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, at: IpAddr, program: &Program) -> Result<(), hyper::Error> {
    let answer = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, at, program)) });
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(REQUEST_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

fn answer(request: &Request<Incoming>, at: IpAddr, program: &Program) -> Response<Full<Bytes>> {
    if at.is_loopback() && !is_named_as_itself(request.headers().get(HOST)) {
        // A web page whose name was made to lead here must not read through its visitor's browser.
        return words(StatusCode::MISDIRECTED_REQUEST, "ask for localhost, or by address\n");
    }
    if request.uri().path() != PATH {
        return words(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return words(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
    }
    match families::text(program.status_since(&program.look())) {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            let kind = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(_) => words(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
    }
}

/// Whether the request is for an address or for localhost, and for no other name.
fn is_named_as_itself(host: Option<&HeaderValue>) -> bool {
    // Before HTTP/1.1 there was no such header, and a browser always sends it.
    let Some(host) = host else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    host.parse::<SocketAddr>().is_ok()
        || name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
}

fn words(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_hosts_own_names_are_answered_on_loopback() {
        let named = |host: &'static str| is_named_as_itself(Some(&HeaderValue::from_static(host)));
        for own in ["localhost", "LOCALHOST:7701", "127.0.0.1", "127.0.0.1:7701", "[::1]:7701"] {
            assert!(named(own), "{own}");
        }
        for other in
            ["example.com", "example.com:7701", "localhost.example.com", "127.0.0.1.example.com:80", ""]
        {
            assert!(!named(other), "{other}");
        }
        assert!(is_named_as_itself(None));
    }
}
