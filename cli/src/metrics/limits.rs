//! Every bound of the metrics, with its unit and its reason.

use std::time::Duration;

/// Connections at once: a few Prometheus servers; further ones wait.
pub(super) const CONNECTIONS_MAX: usize = 8;
/// Longest head of a request, in bytes: a scrape has some hundreds. The library takes no less.
pub(super) const REQUEST_MAX_BYTES: usize = 8 << 10;
/// Time for the head of a request to arrive.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all of a connection: Prometheus gives up after ten seconds itself.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after a failed accept, such as when no descriptor is left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
