//! The driver: gives the engine time, packets and tasks.
//!
//! Per bond one [`timer`] task; per link a [`writer`] task and a [`reader`] task. All of them, and the application's
//! handles, meet in [`shared`]: the engine behind a mutex that is held for bookkeeping only and never across an
//! `await`. Sealing and opening of packets happens in the links' tasks, outside the lock.

pub(crate) mod attach;
pub(crate) mod handshake;
pub(crate) mod reader;
pub(crate) mod shared;
pub(crate) mod timer;
pub(crate) mod wakes;
pub(crate) mod writer;
