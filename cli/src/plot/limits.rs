//! Every bound of a plot, with its unit and its reason.

/// Longest line of a recording, in bytes: hundreds of links in one sample.
pub(super) const LINE_MAX_BYTES: usize = 4 << 20;
/// Latest time in a recording, in seconds: thirty years.
pub(super) const SECONDS_MAX: f64 = 1e9;
/// Links drawn: more lines than these nobody tells apart.
pub(super) const LINKS_MAX: usize = 16;
/// Points kept of each link; then neighbours become one. A picture has fewer columns.
pub(super) const POINTS_MAX: usize = 1000;
/// Changes of state kept of each link: a storm of them would be a black bar.
pub(super) const CHANGES_MAX: usize = 500;
/// Changes of state that have a line through all panels; with more, only the lanes show them.
pub(super) const CHANGE_LINES_MAX: usize = 80;
/// Columns of the sum of all links.
pub(super) const COLUMNS_MAX: usize = 500;
/// Longest name of a link in a picture, in characters.
pub(super) const NAME_MAX: usize = 80;
