//! Leads jobs through one boot of a guest.

use std::time::{Duration, Instant};

use crate::error::SetUpError;
use crate::guests::Options;
use crate::machine::{Boot, CONSOLE, Machine, Silence, console_tail};
use crate::report::{Ending, Job, REBOOT_CODE, Report};

/// How many lines of the console are shown when the guest dies.
const CONSOLE_LINES: usize = 40;

/// What came of one job.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What people call the job.
    pub name: String,
    /// What it printed.
    pub output: Vec<String>,
    /// Why it failed, if it did, in one line.
    pub failure: Option<String>,
    /// How long it took by the guest's clock, if it came to its end.
    pub duration: Option<Duration>,
}

/// News while jobs run.
#[derive(Debug)]
pub enum News<'a> {
    /// The guest is up, after so long.
    Up(Duration),
    /// A job begins.
    Start(&'a Job),
    /// It printed a line.
    Output(&'a str),
    /// It is over.
    End(&'a Outcome),
    /// The guest died, or hangs; the last lines of its console.
    Died(&'a [String]),
}

/// What came of one boot.
pub(crate) struct Booted {
    /// Of the first jobs, up to the one that the guest did not survive, or that goes on in the next boot.
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether the next job has asked for another boot, and is to be run anew in it.
    pub(crate) reboots: bool,
}

/// One boot, and as many of `jobs` as come to an end in it.
pub(crate) fn run_boot(
    boot: &Boot,
    options: &Options,
    jobs: &[Job],
    news: &mut dyn FnMut(News<'_>),
) -> Result<Booted, SetUpError> {
    let machine = Machine::start(boot)?;
    let start = Instant::now();
    let mut course = Course {
        jobs,
        grace: options.grace,
        outcomes: Vec::new(),
        current: None,
        reboots: false,
        deadline: start + options.boot_limit,
    };
    loop {
        match machine.next(course.deadline) {
            Ok(Report::Up) => {
                course.deadline = Instant::now() + options.grace;
                news(News::Up(start.elapsed()));
            }
            Ok(Report::Broken(detail)) => return Err(not_up(boot, &detail)),
            Ok(Report::Done) => return Ok(course.booted()),
            Ok(report) => course.take(report, news),
            Err(silence) if course.current.is_some() => {
                news(News::Died(&console_tail(&boot.folder, CONSOLE_LINES)));
                course.guest_died(silence, news);
                return Ok(course.booted());
            }
            Err(silence) if course.outcomes.is_empty() && !course.reboots => {
                return Err(not_up(boot, silence.before_jobs()));
            }
            // It turned off after a job that nothing could end, or died between two jobs.
            Err(_) => return Ok(course.booted()),
        }
    }
}

/// How far the jobs of one boot are.
struct Course<'a> {
    jobs: &'a [Job],
    grace: Duration,
    outcomes: Vec<Outcome>,
    current: Option<Outcome>,
    reboots: bool,
    /// When the next report of a start or an end must be here.
    deadline: Instant,
}

impl Course<'_> {
    fn take(&mut self, report: Report, news: &mut dyn FnMut(News<'_>)) {
        match (report, &mut self.current) {
            (Report::Start(number), _) => {
                let Some(job) = self.jobs.get(number) else { return };
                news(News::Start(job));
                self.current = Some(Outcome {
                    name: job.name.clone(),
                    output: Vec::new(),
                    failure: None,
                    duration: None,
                });
                self.deadline = Instant::now() + Duration::from_secs(job.limit_seconds) + self.grace;
            }
            (Report::Output(line), Some(outcome)) => {
                news(News::Output(&line));
                outcome.output.push(line);
            }
            (Report::Kernel(line), Some(outcome)) => {
                outcome.failure.get_or_insert_with(|| format!("the kernel complained: {line}"));
            }
            (Report::End { ending: Ending::Code(REBOOT_CODE), .. }, Some(outcome))
                if outcome.failure.is_none() =>
            {
                self.current = None;
                self.reboots = true;
                self.deadline = Instant::now() + self.grace;
            }
            (Report::End { ending, milliseconds }, Some(outcome)) => {
                outcome.duration = Some(Duration::from_millis(milliseconds));
                // The kernel's complaint explains more than an exit code.
                outcome.failure = outcome.failure.take().or(failure(&ending));
                self.end(news);
            }
            // Scraps from before the first job.
            _ => {}
        }
    }

    fn guest_died(&mut self, silence: Silence, news: &mut dyn FnMut(News<'_>)) {
        if let Some(outcome) = &mut self.current {
            outcome.failure = Some(silence.during_job().to_owned());
        }
        self.end(news);
    }

    fn booted(self) -> Booted {
        Booted { outcomes: self.outcomes, reboots: self.reboots }
    }

    fn end(&mut self, news: &mut dyn FnMut(News<'_>)) {
        if let Some(outcome) = self.current.take() {
            news(News::End(&outcome));
            self.outcomes.push(outcome);
        }
        self.deadline = Instant::now() + self.grace;
    }
}

/// Why a job that ended so failed, if it did.
fn failure(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Code(0) => None,
        Ending::Code(code) => Some(format!("exit code {code}")),
        Ending::Signal(signal) => Some(format!("ended by signal {signal}")),
        Ending::TimedOut => Some("hung: killed when its time was up".to_owned()),
        Ending::Unkillable => Some("hung in the kernel: its time was up, and it cannot be killed".to_owned()),
        Ending::NotStarted(why) => Some(format!("could not be started: {why}")),
    }
}

impl Silence {
    fn during_job(self) -> &'static str {
        match self {
            Self::TimedOut => "the guest hung while it ran",
            Self::Gone => "the guest died while it ran",
        }
    }

    fn before_jobs(self) -> &'static str {
        match self {
            Self::TimedOut => "its time was up",
            Self::Gone => "QEMU ended",
        }
    }
}

pub(crate) fn not_up(boot: &Boot, detail: &str) -> SetUpError {
    SetUpError::NotUp { detail: detail.to_owned(), console: boot.folder.join(CONSOLE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(jobs: &[Job]) -> Course<'_> {
        let grace = Duration::from_secs(1);
        Course { jobs, grace, outcomes: Vec::new(), current: None, reboots: false, deadline: Instant::now() }
    }

    fn job() -> Job {
        Job { name: "job".to_owned(), command: vec!["true".to_owned()], limit_seconds: 1 }
    }

    #[test]
    fn a_complaint_of_the_kernel_fails_a_job_that_succeeds() {
        let jobs = [job()];
        let mut course = course(&jobs);
        let reports = [
            Report::Output("scrap".to_owned()),
            Report::Start(0),
            Report::Output("line".to_owned()),
            Report::Kernel("WARNING: CPU: 0".to_owned()),
            Report::Kernel("WARNING: CPU: 1".to_owned()),
            Report::End { ending: Ending::Code(0), milliseconds: 5 },
        ];
        reports.into_iter().for_each(|report| course.take(report, &mut |_| {}));
        let outcome = &course.outcomes[0];
        assert_eq!(outcome.failure.as_deref(), Some("the kernel complained: WARNING: CPU: 0"));
        assert_eq!(outcome.output, ["line"]);
    }

    #[test]
    fn a_job_that_reboots_has_not_ended() {
        let jobs = [job()];
        let mut course = course(&jobs);
        course.take(Report::Start(0), &mut |_| {});
        course.take(Report::End { ending: Ending::Code(REBOOT_CODE), milliseconds: 5 }, &mut |_| {});
        assert!(course.current.is_none());
        let booted = course.booted();
        assert!(booted.reboots && booted.outcomes.is_empty());
    }

    #[test]
    fn reports_about_no_job_change_nothing() {
        let mut course = course(&[]);
        for report in [Report::Start(7), Report::End { ending: Ending::Code(0), milliseconds: 5 }] {
            course.take(report, &mut |_| {});
        }
        course.guest_died(Silence::Gone, &mut |_| {});
        assert!(course.current.is_none() && course.outcomes.is_empty());
    }
}
