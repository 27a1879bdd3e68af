//! Datagrams of a bond, each to the flow that it belongs to.
//!
//! A flow has the number of the stream that opened it, so the numbers of the two ends cannot collide.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bondwire::{Bond, StreamId};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// Flows of one bond, or of one forward.
const FLOWS_MAX: usize = 1024;
/// Datagrams that wait in one flow; more are dropped, as a full socket does.
const QUEUE_DATAGRAMS: usize = 64;
/// Bytes that wait in all flows of one bond, or of one forward.
const QUEUE_BYTES: usize = 4 << 20;
/// What each waiting datagram counts beyond its own bytes.
const OVERHEAD_BYTES: usize = 128;

/// A datagram that waits; it gives its room back when it is dropped.
pub(crate) struct Waiting {
    pub(crate) data: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Room for datagrams that wait.
struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(QUEUE_BYTES)))
    }
}

impl Room {
    /// Puts `data` into `queue`, or drops it where there is no room.
    fn put(&self, queue: &mpsc::Sender<Waiting>, data: Bytes) {
        let cost = u32::try_from(data.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&self.0).try_acquire_many_owned(cost) {
            // A full queue drops it.
            let _ = queue.try_send(Waiting { data, _room: room });
        }
    }
}

/// The flows of one bond.
#[derive(Default)]
pub(crate) struct Flows {
    queues: Mutex<HashMap<u64, mpsc::Sender<Waiting>>>,
    room: Room,
}

impl Flows {
    /// Takes the datagrams of the flow that the stream `id` stands for; `None` if there are too many flows.
    pub(crate) fn open(self: &Arc<Self>, id: StreamId) -> Option<Flow> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() >= FLOWS_MAX {
            return None;
        }
        let (sender, incoming) = mpsc::channel(QUEUE_DATAGRAMS);
        queues.insert(id.0, sender);
        Some(Flow { id: id.0, incoming, flows: Arc::clone(self) })
    }

    /// Hands the datagrams of `bond` to their flows until it ends. Those of no flow are dropped: theirs has ended.
    pub(crate) async fn run(&self, bond: &Bond) {
        while let Ok((id, data)) = bond.recv_datagram().await {
            let queue = self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
            if let Some(queue) = queue {
                self.room.put(&queue, data);
            }
        }
    }
}

/// One flow, until it is dropped.
pub(crate) struct Flow {
    pub(crate) id: u64,
    pub(crate) incoming: mpsc::Receiver<Waiting>,
    flows: Arc<Flows>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.flows.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Flows that begin with a datagram of somebody on this host: one task for each key.
pub(crate) struct FlowTasks<K> {
    queues: HashMap<K, mpsc::Sender<Waiting>>,
    tasks: JoinSet<K>,
    room: Room,
}

impl<K: Clone + Eq + Hash + Send + 'static> FlowTasks<K> {
    pub(crate) fn new() -> Self {
        Self { queues: HashMap::new(), tasks: JoinSet::new(), room: Room::default() }
    }

    /// Hands `data` to the flow of `key`; `start` begins it where there is none. `false` if there are too many.
    pub(crate) fn deliver<F>(
        &mut self,
        key: &K,
        data: Bytes,
        start: impl FnOnce(mpsc::Receiver<Waiting>) -> F,
    ) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(key) = ended
                && self.queues.get(&key).is_some_and(mpsc::Sender::is_closed)
            {
                self.queues.remove(&key);
            }
        }
        if let Some(queue) = self.queues.get(key).filter(|queue| !queue.is_closed()) {
            self.room.put(queue, data);
            return true;
        }
        if self.queues.len() >= FLOWS_MAX {
            return false;
        }
        let (queue, incoming) = mpsc::channel(QUEUE_DATAGRAMS);
        self.room.put(&queue, data);
        self.queues.insert(key.clone(), queue);
        let (key, flow) = (key.clone(), start(incoming));
        self.tasks.spawn(async move {
            flow.await;
            key
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_in_number_and_bytes() {
        let mut flows = FlowTasks::new();
        let mut kept = Vec::new();
        for key in 0..FLOWS_MAX {
            assert!(flows.deliver(&key, Bytes::from_static(&[0; 60_000]), |queue| {
                kept.push(queue);
                std::future::pending()
            }));
        }
        assert!(!flows.deliver(&FLOWS_MAX, Bytes::new(), |_| async {}), "one flow too many");
        let waiting: usize = kept.iter().map(mpsc::Receiver::len).sum();
        assert_eq!(waiting, QUEUE_BYTES / (60_000 + OVERHEAD_BYTES));
        // What is taken makes room.
        assert!(kept[0].try_recv().is_ok());
        assert!(flows.deliver(&7, Bytes::from_static(&[0; 50_000]), |_| async {}));
        assert_eq!(kept[7].len(), 2);
    }

    #[tokio::test]
    async fn a_flow_that_ended_begins_anew() {
        let mut flows = FlowTasks::new();
        let (ended, mut seen) = mpsc::channel(1);
        let first = ended.clone();
        flows.deliver(&1, Bytes::new(), |queue| async move {
            drop(queue);
            let _ = first.send(1).await;
        });
        assert_eq!(seen.recv().await, Some(1));
        flows.deliver(&1, Bytes::new(), |_| async move {
            let _ = ended.send(2).await;
        });
        assert_eq!(seen.recv().await, Some(2));
        assert!(flows.queues.len() <= 1);
    }
}
