use std::sync::Arc;

use super::shared::{Shared, State};

/// The task of a bond: sleeps until the engine's next deadline, and ends with the bond. Nothing wakes it in vain.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let (deadline, over) = shared.with(|state, _| (state.arm(), state.connection.is_closed()));
        if over {
            break;
        }
        tokio::select! {
            biased;
            () = shared.signals.timer.notified() => {}
            () = shared.clock.sleep_until(deadline) => {
                // After a pause of the whole process packets may be waiting that make the deadline void: let the
                // links' readers go first.
                tokio::task::yield_now().await;
                shared.with(State::handle_timeout);
            }
        }
    }
    // Links end by themselves: the engine tells each to. One that is stuck is cut off when its time is up.
    let links: Vec<_> = shared.look(|state| state.links.values().cloned().collect());
    links.iter().for_each(|link| link.end());
}
