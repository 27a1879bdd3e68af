//! Every bound of the monitor, with its unit and its reason.

use std::time::Duration;

/// Time between two looks at the counters, unless `--interval` says otherwise.
pub(crate) const INTERVAL_SECONDS: f64 = 1.0;
/// Shortest such time: one answer takes 0.2 s.
pub(crate) const INTERVAL_MIN_SECONDS: f64 = 0.25;
/// Longest such time: an hour between two looks is no monitor any more.
pub(crate) const INTERVAL_MAX_SECONDS: f64 = 3600.0;
/// Rates kept for each direction of a link: the width of a wide terminal.
pub(super) const HISTORY_MAX: usize = 300;
/// Messages kept: more than a high terminal has lines.
pub(super) const EVENTS_MAX: usize = 200;
/// Links shown of one bond: far above what a bond can have, in case that what answers is no Bondwire.
pub(super) const LINKS_MAX: usize = 256;
/// Bonds shown.
pub(super) const BONDS_MAX: usize = 256;
/// Time for which a link is still shown that has left its bond and is not dialled here.
pub(super) const CLOSED_KEPT: Duration = Duration::from_secs(60);
/// Time for which a message about a key stays, unless another key comes first.
pub(super) const NOTE_KEPT: Duration = Duration::from_secs(10);
/// Longest wait for an answer; a status takes 0.2 s, on a busy host more.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two attempts to find a command that has ended.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Least time between two looks that messages asked for: a storm of them must not be one of looks.
pub(super) const HURRY_INTERVAL: Duration = Duration::from_millis(200);
/// Least time between two screens, so that a storm of messages does not fill a slow line.
pub(super) const FRAME_INTERVAL: Duration = Duration::from_millis(50);
/// News that wait for the screen; then whoever brings more waits.
pub(super) const NEWS_QUEUE_MAX: usize = 256;
/// Orders that wait for the running command; more keys than that are refused.
pub(super) const ORDERS_QUEUE_MAX: usize = 16;
/// Smallest terminal that has room for a link's line.
pub(super) const WIDTH_MIN: u16 = 48;
/// Title, a bond, a link with its reason, and the keys, with room to move.
pub(super) const HEIGHT_MIN: u16 = 8;
