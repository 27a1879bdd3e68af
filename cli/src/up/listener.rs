//! The listening end of a service.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::ListenConfig;
use crate::control::program::Program;
use crate::failure::Failure;
use crate::forward::drain::Drain;
use crate::listening::{ListenPlan, Listening};

/// A listening end in a task of its own.
pub(super) struct RunningListener {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

enum Order {
    Change(Box<ListenConfig>, oneshot::Sender<Result<(), Failure>>),
    /// Ends each bond when its peer has everything, or after so much time.
    End(Duration),
}

impl RunningListener {
    pub(super) async fn start(
        plan: ListenPlan,
        program: &Arc<Program>,
        drain: &Drain,
    ) -> Result<Self, Failure> {
        let listening = Listening::start(plan, drain.clone()).await?;
        program.show_tunnel(listening.tunnel());
        let (orders, given) = mpsc::channel(1);
        let task = tokio::spawn(serve(listening, Arc::clone(program), given));
        Ok(Self { orders, task })
    }

    /// Becomes as `config` says; if it cannot, it stays as it was.
    pub(super) async fn change(&self, config: ListenConfig) -> Result<(), Failure> {
        let (reply, changed) = oneshot::channel();
        let gone = || Failure::configuration("the listener has ended; restart the service");
        self.orders.send(Order::Change(Box::new(config), reply)).await.map_err(|_| gone())?;
        changed.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends each bond when its peer has everything or after `patience`, and waits until all ports are free.
    pub(super) async fn end(self, patience: Duration) {
        // When the task has ended already, nothing is left to do.
        let _ = self.orders.send(Order::End(patience)).await;
        let _ = self.task.await;
    }
}

async fn serve(mut listening: Listening, program: Arc<Program>, mut orders: mpsc::Receiver<Order>) {
    loop {
        let order = tokio::select! {
            biased;
            () = listening.run(&program) => continue,
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Change(config, reply)) => {
                let ListenConfig { links, grants, told, .. } = *config;
                // Nobody waits for the answer only when the service has ended.
                let _ = reply.send(listening.change(&links, grants, told).await);
            }
            Some(Order::End(patience)) => return listening.finish(patience).await,
            None => return listening.end().await,
        }
    }
}
