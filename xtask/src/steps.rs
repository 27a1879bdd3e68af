//! Steps of a long check: each with a heading, its time and a one-line verdict; a failed step does not hide later ones.

use std::time::Instant;

use anyhow::Result;

/// What came of a step that could run.
pub(crate) enum Verdict {
    /// Everything is as it must be; what was checked, in a few words.
    Good(String),
    /// The step was left out, and why.
    Skipped(String),
}

impl Verdict {
    pub(crate) fn good(what: &str) -> Result<Self> {
        Ok(Self::Good(what.to_owned()))
    }
}

/// The steps done so far.
#[derive(Default)]
pub(crate) struct Steps {
    failed: Vec<&'static str>,
}

impl Steps {
    /// Runs one step and prints what came of it.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<Verdict>) {
        println!("\n== {name}");
        let start = Instant::now();
        let verdict = work();
        let seconds = start.elapsed().as_secs_f32();
        match verdict {
            Ok(Verdict::Good(what)) => println!("== {name}: good in {seconds:.1} s: {what}"),
            Ok(Verdict::Skipped(why)) => println!("== {name}: SKIPPED: {why}"),
            Err(error) => {
                println!("== {name}: FAILED in {seconds:.1} s: {error:#}");
                self.failed.push(name);
            }
        }
    }

    /// The names of the failed steps.
    pub(crate) fn failed(&self) -> &[&'static str] {
        &self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_remembered_and_the_next_one_runs() {
        let mut steps = Steps::default();
        let mut ran = false;
        steps.step("bad", || anyhow::bail!("as asked"));
        steps.step("left out", || Ok(Verdict::Skipped("as asked".to_owned())));
        steps.step("good", || {
            ran = true;
            Verdict::good("all of it")
        });
        assert!(ran);
        assert_eq!(steps.failed(), ["bad"]);
    }
}
