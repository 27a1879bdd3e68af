//! Bounds of attaching, each with its reason.

use std::time::Duration;

/// Time for a USB device's interfaces to appear after it was announced: the kernel announces the device first, and chooses its
/// configuration then.
pub(crate) const INTERFACES_PATIENCE: Duration = Duration::from_secs(2);
/// How often they are looked for meanwhile.
pub(crate) const INTERFACES_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Hubs in a row that USB allows, and the device's own port behind them.
pub(crate) const PORTS_IN_A_ROW_MAX: usize = 7;
