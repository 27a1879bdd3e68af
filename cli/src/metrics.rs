//! Figures for Prometheus: whoever asks over HTTP gets what `status` has at that moment, as `docs/METRICS.md` describes it.
//!
//! | part | job |
//! |---|---|
//! | [`families`] | a status as metrics; pure |
//! | [`server`] | HTTP/1, as little as a scrape needs |
//! | [`limits`] | every bound |

mod families;
mod limits;
mod server;

pub(crate) use self::server::{Metrics, OpenMetrics};

/// Where metrics are served unless an address is given: on this host alone.
pub(crate) const ADDRESS: &str = "127.0.0.1:7701";
