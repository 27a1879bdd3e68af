//! What all hosts share: the cables, the plan, and the record of the run.

use crate::net::Net;
use crate::plan::Plan;
use crate::report::Report;
use crate::trace::Trace;
use crate::work::Work;
use bondwire_core::event::Event;
use std::fmt;
use std::rc::Rc;

/// Shared by all hosts of a world.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) net: Net,
    pub(crate) plan: Plan,
    pub(crate) report: Report,
    /// Which bond of the two hosts is the current one; each has its own work.
    pub(crate) generation: u64,
    work: Rc<Work>,
}

impl Stage {
    pub(crate) fn new(plan: Plan, trace: Trace) -> Self {
        Self {
            net: Net::new(&plan, trace),
            report: Report { seed: plan.seed, ..Report::default() },
            generation: 0,
            work: Rc::new(plan.work(0)),
            plan,
        }
    }

    /// The work of the current bond.
    pub(crate) fn work(&self) -> Rc<Work> {
        Rc::clone(&self.work)
    }

    /// A bond was lost with one of its hosts: the next one has work of its own.
    pub(crate) fn next_generation(&mut self) {
        self.generation += 1;
        self.work = Rc::new(self.plan.work(self.generation));
    }

    /// The run has failed; the first failure is the one that counts.
    pub(crate) fn fail(&mut self, host: &str, failure: String) {
        self.line(host, format_args!("FAILURE: {failure}"));
        if self.report.failure.is_none() {
            self.report.failure = Some(format!("{host} at {:?}: {failure}", self.net.elapsed()));
        }
    }

    /// Counts an error that ended a handshake or a link.
    pub(crate) fn error(&mut self, host: &str, error: &dyn fmt::Display) {
        let text = error.to_string();
        self.line(host, format_args!("error: {text}"));
        *self.report.errors.entry(without_details(&text)).or_default() += 1;
    }

    pub(crate) fn event(&mut self, host: &str, event: &Event) {
        if let Event::Link { id, to, .. } = event {
            self.net.trace.note(20, u64::from(id.0), *to as u64);
        }
        self.line(host, format_args!("{event:?}"));
    }

    pub(crate) fn line(&mut self, host: &str, line: fmt::Arguments<'_>) {
        self.net.trace.line(host, line);
    }
}

/// A message without its numbers and keys, so that equal causes are counted together.
fn without_details(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        if has_digit || word.contains('(') { "…" } else { word }
    });
    let text: Vec<&str> = words.take(14).collect();
    text.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_do_not_split_the_count() {
        assert_eq!(
            without_details("nothing within 10 s of link 7"),
            without_details("nothing within 8 s of link 12")
        );
    }
}
