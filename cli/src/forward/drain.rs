//! An end without haste: nothing new is taken, and what is carried goes on to its end.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared by all that carries connections for one program. A program that never drains never begins.
#[derive(Clone, Default)]
pub(crate) struct Drain(Arc<State>);

#[derive(Default)]
struct State {
    begun: watch::Sender<bool>,
    /// Connections that are carried.
    carried: watch::Sender<usize>,
}

/// One connection that is carried, for as long as this lives.
pub(crate) struct Carried(Drain);

impl Drain {
    /// Takes nothing new from now on.
    pub(crate) fn begin(&self) {
        self.0.begun.send_replace(true);
    }

    /// Whether nothing new is to be taken.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.begun.borrow()
    }

    /// Waits until nothing new is to be taken. Cancel safe.
    pub(crate) async fn begun(&self) {
        // It fails only without a sender, and `self` has that.
        let _ = self.0.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Counts a connection.
    pub(crate) fn carry(&self) -> Carried {
        self.0.carried.send_modify(|carried| *carried += 1);
        Carried(self.clone())
    }

    /// How many connections are carried.
    pub(crate) fn carried(&self) -> usize {
        *self.0.carried.borrow()
    }

    /// Waits until no connection is carried. Cancel safe.
    pub(crate) async fn done(&self) {
        // As above.
        let _ = self.0.carried.subscribe().wait_for(|carried| *carried == 0).await;
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.0.carried.send_modify(|carried| *carried -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_done_when_the_last_connection_is() {
        let drain = Drain::default();
        drain.done().await;
        let (first, second) = (drain.carry(), drain.carry());
        drain.begin();
        drain.begun().await;
        assert!(drain.has_begun());
        drop(first);
        assert_eq!(drain.carried(), 1);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.done().await }
        });
        drop(second);
        waiting.await.unwrap();
    }
}
