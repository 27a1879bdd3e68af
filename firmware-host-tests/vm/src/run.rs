//! Leads jobs through the guest, boot after boot if it must be.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::{During, SetUpError, read};
use crate::image::Image;
use crate::kernel_modules::KernelModules;
use crate::machine::{Accelerator, Boot, Machine, QEMU, Silence, console_tail};
use crate::packages::{Packages, find_program, install};
use crate::plan::{Programs, guest_path};
use crate::report::{Ending, JOBS_FILE, Job, Report};

/// How long the guest may take to come up: ten times what it takes under emulation on an idle host.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long after its limit a job's end may be reported. Then the guest itself hangs.
const GRACE: Duration = Duration::from_secs(60);
/// How many lines of the console are shown when the guest dies.
const CONSOLE_LINES: usize = 40;

/// What a guest is made of, and how it runs.
#[derive(Debug)]
pub struct Guests {
    /// Files that outlast a run; may be removed at any time.
    cache: PathBuf,
    /// Files of this run.
    folder: PathBuf,
    packages: Packages,
    modules: KernelModules,
    accelerator: Accelerator,
    /// Memory of each guest, in MiB.
    memory_mib: u32,
}

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
    /// The guest died; the last lines of its console.
    Died(&'a [String]),
}

impl Guests {
    /// Fetches and prepares what every guest needs. `cache` is kept for the next time.
    ///
    /// # Errors
    ///
    /// QEMU or a package cannot be had; see [`SetUpError`].
    pub fn set_up(cache: &Path, accelerator: Accelerator) -> Result<Self, SetUpError> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(SetUpError::Processor(std::env::consts::ARCH));
        }
        let (program, package) = QEMU;
        install(program, package)?;
        fs::create_dir_all(cache).during(format_args!("create {}", cache.display()))?;
        let lock = File::create(cache.join("lock")).during("create the lock of the cache")?;
        lock.lock().during("lock the cache")?;
        let packages = Packages::fetch(cache)?;
        let modules = KernelModules::prepare(cache, &packages)?;
        let folder = cache.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&folder).during(format_args!("create {}", folder.display()))?;
        Ok(Self { cache: cache.to_owned(), folder, packages, modules, accelerator, memory_mib: 1024 })
    }

    /// Runs `jobs` one after the other. Whatever a job does to its guest, the next one gets a guest that works.
    ///
    /// # Errors
    ///
    /// The guest cannot be made, or not even be booted.
    pub fn run(
        &self,
        programs: &Programs,
        rules: &Path,
        jobs: &[Job],
        news: &mut dyn FnMut(News<'_>),
    ) -> Result<Vec<Outcome>, SetUpError> {
        let mut outcomes = Vec::new();
        while outcomes.len() < jobs.len() {
            let left = &jobs[outcomes.len()..];
            let boot = self.boot(programs, rules, left)?;
            let done = run_guest(&boot, left, news)?;
            outcomes.extend(done);
        }
        Ok(outcomes)
    }

    /// Boots a guest with a shell on this terminal.
    ///
    /// # Errors
    ///
    /// The guest cannot be made.
    pub fn shell(&self, programs: &Programs, rules: &Path) -> Result<(), SetUpError> {
        self.boot(programs, rules, &[])?.shell()
    }

    /// Writes the file system of a guest with these jobs.
    fn boot(&self, programs: &Programs, rules: &Path, jobs: &[Job]) -> Result<Boot, SetUpError> {
        let mut image = Image::new(&self.packages, &self.modules)?;
        image.program("init", &self.stripped(&programs.init)?)?;
        for (name, file) in programs.tests.iter().chain(&programs.others) {
            image.program(&guest_path(name), &self.stripped(file)?)?;
            // Tests know the programs of their package by their path on the host.
            image.link(&file.display().to_string(), &guest_path(name));
        }
        for entry in fs::read_dir(rules).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".rules") {
                let text = fs::read_to_string(entry.path()).during(format_args!("read {name}"))?;
                image.text(&format!("etc/udev/rules.d/{name}"), &text);
            }
        }
        image.text(JOBS_FILE, &serde_json::to_string(jobs).unwrap_or_default());
        let file = self.folder.join("image.cpio");
        image.write(&file)?;
        let kernel = self.packages.kernel()?.join("boot").join(format!("vmlinuz-{}", self.modules.release));
        Ok(Boot {
            kernel,
            image: file,
            console: self.cache.join("console.log"),
            accelerator: self.accelerator,
            memory_mib: self.memory_mib,
            kernel_words: String::new(),
        })
    }

    /// A program without what only debuggers read: that would fill the guest's memory.
    fn stripped(&self, program: &Path) -> Result<PathBuf, SetUpError> {
        if find_program("strip").is_none() {
            return Ok(program.to_owned());
        }
        let stripped = self.folder.join(program.file_name().unwrap_or_default());
        if !stripped.exists() {
            read(Command::new("strip").arg("--strip-debug").arg("-o").args([&stripped, program]))?;
        }
        Ok(stripped)
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        // What is left of it is of no use, but does no harm either.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One boot: the outcomes of the first jobs, up to the one that the guest did not survive.
fn run_guest(boot: &Boot, jobs: &[Job], news: &mut dyn FnMut(News<'_>)) -> Result<Vec<Outcome>, SetUpError> {
    let start = Instant::now();
    let machine = Machine::start(boot)?;
    let mut outcomes = Vec::new();
    let mut current: Option<Outcome> = None;
    let mut deadline = start + BOOT_LIMIT;
    loop {
        match machine.next(deadline) {
            Ok(Report::Up) => news(News::Up(start.elapsed())),
            Ok(Report::Start(number)) => {
                let Some(job) = jobs.get(number) else { continue };
                news(News::Start(job));
                current = Some(Outcome::of(job));
                deadline = Instant::now() + Duration::from_secs(job.limit_seconds) + GRACE;
            }
            Ok(Report::Output(line)) => {
                news(News::Output(&line));
                current.iter_mut().for_each(|outcome| outcome.output.push(line.clone()));
            }
            Ok(Report::Kernel(line)) => {
                let complaint = format!("the kernel complained: {line}");
                current.iter_mut().for_each(|outcome| _ = outcome.failure.get_or_insert(complaint.clone()));
            }
            Ok(Report::End { ending, milliseconds }) => {
                let Some(mut outcome) = current.take() else { continue };
                outcome.duration = Some(Duration::from_millis(milliseconds));
                let limit_seconds = jobs.get(outcomes.len()).map_or(0, |job| job.limit_seconds);
                outcome.failure = outcome.failure.or(failure(&ending, limit_seconds));
                news(News::End(&outcome));
                outcomes.push(outcome);
                deadline = Instant::now() + GRACE;
                if ending == Ending::Unkillable {
                    return Ok(outcomes);
                }
            }
            Ok(Report::Broken(detail)) => return Err(did_not_come_up(boot, &detail)),
            Ok(Report::Done) => return Ok(outcomes),
            Err(silence) => {
                let Some(mut outcome) = current.take() else {
                    if outcomes.is_empty() {
                        return Err(did_not_come_up(boot, silence_before_jobs(silence)));
                    }
                    return Ok(outcomes);
                };
                outcome.failure = Some(death(silence).to_owned());
                news(News::Died(&console_tail(&boot.console, CONSOLE_LINES)));
                news(News::End(&outcome));
                outcomes.push(outcome);
                return Ok(outcomes);
            }
        }
    }
}

impl Outcome {
    fn of(job: &Job) -> Self {
        Self { name: job.name.clone(), output: Vec::new(), failure: None, duration: None }
    }
}

/// Why a job that ended so failed, if it did.
fn failure(ending: &Ending, limit_seconds: u64) -> Option<String> {
    match ending {
        Ending::Code(0) => None,
        Ending::Code(code) => Some(format!("exit code {code}")),
        Ending::Signal(signal) => Some(format!("ended by signal {signal}")),
        Ending::TimedOut => Some(format!("hung: killed after {limit_seconds} s")),
        Ending::Unkillable => {
            Some(format!("hung in the kernel: not over after {limit_seconds} s, and cannot be killed"))
        }
        Ending::NotStarted(why) => Some(format!("could not be started: {why}")),
    }
}

fn death(silence: Silence) -> &'static str {
    match silence {
        Silence::TimedOut => "the guest hung while it ran",
        Silence::Gone => "the guest died while it ran (panic?)",
    }
}

fn silence_before_jobs(silence: Silence) -> &'static str {
    match silence {
        Silence::TimedOut => "time is up",
        Silence::Gone => "QEMU ended",
    }
}

fn did_not_come_up(boot: &Boot, detail: &str) -> SetUpError {
    let tail = console_tail(&boot.console, CONSOLE_LINES).join("\n");
    SetUpError::NotUp { detail: detail.to_owned(), console: tail }
}
