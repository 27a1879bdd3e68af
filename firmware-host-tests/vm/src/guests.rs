//! Guests: what all of them are made of, and how one is made for its jobs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{During, SetUpError, read};
use crate::image::Image;
use crate::kernel_modules::KernelModules;
use crate::machine::{Accelerator, Boot, CONSOLE, DISK, IMAGE, QEMU};
use crate::packages::{Packages, find_program, install};
use crate::plan::{Contents, PROGRAM};
use crate::report::{JOBS_FILE, Job, PACKAGE_FILE};
use crate::run::{News, Outcome, not_up, run_boot};

/// Folders of runs begin so; then come the numbers of the process and of the run in it.
const RUN: &str = "run-";
/// Makes the file system on a guest's disk, and the Debian package that has it.
const MKFS: (&str, &str) = ("mkfs.ext4", "e2fsprogs");
/// Length of that disk: it has what changes while a guest runs, a few MB.
const DISK_LENGTH: &str = "64M";
/// How often one job may reboot its guest.
const REBOOTS_MAX: usize = 3;
/// Runs in this process.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// How guests run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What runs the guest's processors.
    pub accelerator: Accelerator,
    /// Memory of the guest, in MiB, beside its file system.
    pub memory_mib: u32,
    /// How long it may take to come up. Ten times what emulation needs on an idle host.
    pub boot_limit: Duration,
    /// How long after its limit the end of a job may be reported. After that the guest itself hangs.
    pub grace: Duration,
    /// Keep the files of the run.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accelerator: Accelerator::Tcg,
            memory_mib: 1024,
            boot_limit: Duration::from_secs(180),
            grace: Duration::from_secs(60),
            keep: false,
        }
    }
}

/// What guests are made of.
#[derive(Debug)]
pub struct Guests {
    contents: Contents,
    options: Options,
    packages: Packages,
    modules: KernelModules,
    /// Files of this run.
    folder: PathBuf,
    /// Where the record of the last boot's console will be.
    console: PathBuf,
}

/// Whether a run would need nothing from the network and install nothing.
#[must_use]
pub fn is_prepared(cache: &Path) -> bool {
    find_program(QEMU.0).is_some() && cache.join("packages/complete").is_file()
}

impl Guests {
    /// Fetches and prepares what every guest needs. It is kept in `cache` for the next time.
    ///
    /// # Errors
    ///
    /// QEMU or a package cannot be had; see [`SetUpError`].
    pub fn set_up(cache: &Path, contents: Contents, options: Options) -> Result<Self, SetUpError> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(SetUpError::Processor(std::env::consts::ARCH));
        }
        let (program, package) = QEMU;
        install(program, package)?;
        let cache = &std::path::absolute(cache).during(format_args!("find {}", cache.display()))?;
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let folder = cache.join(format!("{RUN}{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).during(format_args!("create {}", folder.display()))?;
        let lock = File::create(cache.join("lock")).during("create the lock of the cache")?;
        lock.lock().during("lock the cache")?;
        remove_abandoned(cache);
        let packages = Packages::fetch(cache)?;
        let modules = KernelModules::prepare(cache, &packages)?;
        Ok(Self { contents, options, packages, modules, folder, console: cache.join(CONSOLE) })
    }

    /// Runs `jobs` one after the other. Whatever a job does to its guest, the next one gets a guest that works.
    ///
    /// # Errors
    ///
    /// A guest cannot be made, or does not come up.
    pub fn run(&self, jobs: &[Job], news: &mut dyn FnMut(News<'_>)) -> Result<Vec<Outcome>, SetUpError> {
        let mut outcomes = Vec::new();
        let mut reboots = 0;
        while outcomes.len() < jobs.len() {
            let left = same_kind(&jobs[outcomes.len()..]);
            let boot = self.boot(left)?;
            if boot.systemd && reboots == 0 {
                self.make_disk()?;
            }
            let booted = run_boot(&boot, &self.options, left, news).map_err(|error| self.explained(error))?;
            outcomes.extend(booted.outcomes);
            reboots = if booted.reboots { reboots + 1 } else { 0 };
            if reboots > REBOOTS_MAX {
                return Err(self.explained(not_up(&boot, "it is rebooted again and again")));
            }
        }
        Ok(outcomes)
    }

    /// Boots a guest with a shell on this terminal, and waits for its end.
    ///
    /// # Errors
    ///
    /// The guest cannot be made.
    pub fn shell(&self) -> Result<(), SetUpError> {
        self.boot(&[])?.shell()
    }

    /// Names the place where the console's record outlasts this value.
    fn explained(&self, error: SetUpError) -> SetUpError {
        match error {
            SetUpError::NotUp { detail, .. } => SetUpError::NotUp { detail, console: self.console.clone() },
            other => other,
        }
    }

    /// Writes the file system of a guest with these jobs.
    fn boot(&self, jobs: &[Job]) -> Result<Boot, SetUpError> {
        let systemd = jobs.first().is_some_and(needs_systemd);
        let mut image = Image::new(&self.packages, &self.modules)?;
        if systemd {
            image.systemd(&self.packages)?;
            image.dpkg(&self.packages)?;
            if let Some(package) = &self.contents.package {
                image.file(PACKAGE_FILE, package);
            }
        }
        image.program("init", &self.stripped(&self.contents.init)?)?;
        for (name, file) in &self.contents.programs {
            let path = format!("/usr/bin/{name}");
            // Under systemd the package brings it, in the right place or not.
            if !(systemd && name == PROGRAM) {
                image.program(&path, &self.stripped(file)?)?;
            }
            // Tests know the programs of their package by their path on the host.
            image.link(&file.display().to_string(), &path);
        }
        // Under systemd the package has them, too.
        let rules = if systemd { Vec::new() } else { rules(&self.contents.rules)? };
        for (name, text) in rules {
            image.text(&format!("etc/udev/rules.d/{name}"), &text);
        }
        image.text(JOBS_FILE, &serde_json::to_string(jobs).unwrap_or_default());
        let file = self.folder.join(IMAGE);
        image.write(&file)?;
        let image_bytes = fs::metadata(&file).during("look at the guest's file system")?.len();
        // While the kernel unpacks it, it is there twice.
        let image_mib = u32::try_from(2 * image_bytes / (1024 * 1024)).unwrap_or(u32::MAX);
        let kernel = self.packages.kernel()?.join("boot").join(format!("vmlinuz-{}", self.modules.release));
        Ok(Boot {
            kernel,
            folder: self.folder.clone(),
            accelerator: self.options.accelerator,
            memory_mib: self.options.memory_mib.saturating_add(image_mib),
            systemd,
        })
    }

    /// An empty disk, in place of that of an earlier guest.
    fn make_disk(&self) -> Result<(), SetUpError> {
        let (program, package) = MKFS;
        install(program, package)?;
        let program = find_program(program).ok_or(SetUpError::ProgramMissing { program, package })?;
        let disk = self.folder.join(DISK);
        if disk.exists() {
            fs::remove_file(&disk).during("remove the disk of the last guest")?;
        }
        read(Command::new(program).arg("-q").arg(&disk).arg(DISK_LENGTH)).map(drop)
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
        // There is none yet if nothing was booted.
        let _ = fs::copy(self.folder.join(CONSOLE), &self.console);
        if !self.options.keep {
            // What is left of it is of no use, but does no harm either.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Tests of programs with such names run in a guest with systemd.
const SYSTEMD_TESTS: &str = "vm_systemd";

/// Whether a job runs in a guest with systemd, which has the package.
#[must_use]
pub fn needs_systemd(job: &Job) -> bool {
    job.name.starts_with(SYSTEMD_TESTS)
}

/// The first of these jobs, and those after it that run in the same kind of guest.
fn same_kind(jobs: &[Job]) -> &[Job] {
    let kind = jobs.first().is_some_and(needs_systemd);
    let count = jobs.iter().take_while(|job| needs_systemd(job) == kind).count();
    &jobs[..count]
}

/// Removes folders of runs that were killed, and those that were kept by earlier runs.
fn remove_abandoned(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(RUN).and_then(|numbers| numbers.split('-').next());
        let process = process.map(|number| Path::new("/proc").join(number));
        if process.is_some_and(|process| !process.exists()) {
            // Somebody may have removed it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The project's own rules for udev: their file names and texts. None yet if the folder has none.
fn rules(folder: &Path) -> Result<Vec<(String, String)>, SetUpError> {
    let mut rules = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rules") {
            let text = fs::read_to_string(entry.path()).during(format_args!("read {name}"))?;
            rules.push((name, text));
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_runs_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        // Process numbers end below this one (PID_MAX_LIMIT of the kernel is 2^22).
        let (dead, alive) = ("run-4194305-0".to_owned(), format!("run-{}-7", std::process::id()));
        for name in [&dead, &alive] {
            fs::create_dir(cache.path().join(name)).unwrap();
        }
        remove_abandoned(cache.path());
        assert!(!cache.path().join(dead).exists());
        assert!(cache.path().join(alive).exists());
    }

    #[test]
    fn rules_are_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("70-cable.rules"), "# nothing\n").unwrap();
        fs::write(folder.path().join("README.md"), "no rule").unwrap();
        assert_eq!(rules(folder.path()).unwrap(), [("70-cable.rules".to_owned(), "# nothing\n".to_owned())]);
    }
}
