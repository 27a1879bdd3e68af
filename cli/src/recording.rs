//! A recording of what a command does: every link's figures and all messages, while it runs, as `docs/RECORD.md` has it.
//!
//! | part | job |
//! |---|---|
//! | [`format`] | the lines |
//! | [`file`] | the file: made, and written by a thread of its own |
//! | [`recorder`] | looks at the figures, and hands lines over; never waits for the file |
//! | `remote` | the same of another process, over its control socket |
//! | [`limits`] | every bound |

pub(crate) mod file;
pub(crate) mod format;
pub(crate) mod limits;
mod recorder;
#[cfg(unix)]
mod remote;

pub(crate) use self::file::RecordFile;
pub(crate) use self::recorder::{BondRecording, Recording};
#[cfg(unix)]
pub(crate) use self::remote::RemoteRecording;
