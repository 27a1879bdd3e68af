//! A screen that follows a running command: what its links carry, and why one carries nothing.
//!
//! | part | job |
//! |---|---|
//! | [`model`] | samples become rates and rows; pure |
//! | [`view`] | the model as characters; pure |
//! | [`input`] | keys become what is wanted |
//! | [`feed`] | asks the running command, again and again, also after it was started anew |
//! | [`screen`] | the terminal: taken, and given back however this ends |
//! | [`once`] | the same figures as a plain table |

mod feed;
mod input;
pub(crate) mod limits;
mod model;
pub(crate) mod once;
mod screen;
mod view;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::feed::{News, Order};
use self::input::Wish;
use self::limits::{FRAME_INTERVAL, NEWS_QUEUE_MAX, ORDERS_QUEUE_MAX};
use self::model::{Model, Toggle};
use self::screen::Screen;
pub(crate) use self::screen::{TerminalKind, is_terminal, terminal_kind};
use crate::control::client::{self, Client};
use crate::control::protocol::LinkChange;
use crate::failure::Failure;
use crate::signals::{Interrupt, hang_up};

/// Shows the running command `name`, or the only one that runs, until the user has seen enough.
pub(crate) async fn run(
    name: Option<&str>,
    interval: Duration,
    mut interrupt: Interrupt,
) -> Result<(), Failure> {
    // What is wrong from the beginning is told as everywhere, before the terminal is taken.
    let client = interrupt.or(first(name)).await?;
    let (news, mut incoming) = mpsc::channel(NEWS_QUEUE_MAX);
    let (orders, ordered) = mpsc::channel(ORDERS_QUEUE_MAX);
    let feed = feed::start(client, interval, news, ordered);
    let mut monitor = Monitor { model: Model::new(interval), orders, started: Instant::now() };
    let mut screen = Screen::open()?;
    let ended = tokio::select! {
        biased;
        ended = interrupt.wait() => Err(ended),
        () = hang_up() => Err(Failure::interrupted()),
        ended = monitor.follow(&mut screen, &mut incoming) => ended,
    };
    drop(feed);
    screen.close();
    ended
}

async fn first(name: Option<&str>) -> Result<Client, Failure> {
    let asked = name.unwrap_or("the running command").to_owned();
    let client = tokio::time::timeout(limits::ANSWER_PATIENCE, client::one(name)).await;
    Ok(client.map_err(|_| Failure::configuration(format!("{asked} does not answer")))??)
}

/// The model at work.
struct Monitor {
    model: Model,
    orders: mpsc::Sender<Order>,
    started: Instant,
}

impl Monitor {
    /// Draws what there is to see until the user has seen enough.
    async fn follow(
        &mut self,
        screen: &mut Screen,
        incoming: &mut mpsc::Receiver<News>,
    ) -> Result<(), Failure> {
        loop {
            self.model.tick(self.now());
            screen.draw(&self.model)?;
            let next_frame = Instant::now() + FRAME_INTERVAL;
            tokio::select! {
                news = incoming.recv() => match news {
                    Some(news) => self.hear(news),
                    None => return Err(Failure::configuration("the monitor lost its own tasks")),
                },
                wish = screen.wish() => if self.fulfil(wish?, screen)? {
                    return Ok(());
                },
            }
            // All that comes until the next screen goes into it; whoever floods this end does not keep keys from it.
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(next_frame) => break,
                    wish = screen.wish() => if self.fulfil(wish?, screen)? {
                        return Ok(());
                    },
                    Some(news) = incoming.recv() => self.hear(news),
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn hear(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Status(status) => self.model.handle_status(now, *status),
            News::Event(event) => self.model.handle_event(event),
            News::Missed(count) => self.model.handle_missed(count),
            News::Outage(why) => self.model.handle_outage(now, why),
            News::Answer(text) => self.model.set_note(text),
        }
    }

    /// Does what a key asks for; answers whether that is the end.
    fn fulfil(&mut self, wish: Wish, screen: &mut Screen) -> Result<bool, Failure> {
        if wish != Wish::Redraw {
            self.model.clear_note();
        }
        match wish {
            Wish::Quit => return Ok(true),
            Wish::Interrupt => return Err(Failure::interrupted()),
            Wish::Back if !self.model.shows_help => return Ok(true),
            Wish::Back => self.model.shows_help = false,
            Wish::Help => self.model.shows_help ^= true,
            Wish::Select(step) => self.model.select(step),
            Wish::Pause => self.toggle(Toggle::Pause),
            Wish::Backup => self.toggle(Toggle::Backup),
            Wish::Anew => screen.clear()?,
            Wish::Redraw => {}
        }
        Ok(false)
    }

    fn toggle(&mut self, toggle: Toggle) {
        let Some(change) = self.model.change(toggle) else {
            return self.model.set_note("there is no link to change".to_owned());
        };
        let LinkChange { link, policy, .. } = &change;
        let text = format!("link {link}: policy {}", policy.as_deref().unwrap_or_default());
        self.model.set_note(format!("{text} asked for"));
        if self.orders.try_send(Order { change, done: text }).is_err() {
            self.model.set_note("not done: the running command does not answer".to_owned());
        }
    }
}
