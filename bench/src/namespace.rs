//! Network namespaces that go away again: when dropped, when the program panics or is interrupted, and at
//! the latest when a later run starts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal};
use rustix::thread::LinkNameSpaceType;

/// What the names of all namespaces made here begin with.
const NAME_PREFIX: &str = "bwbench-";

/// Where `ip netns` keeps its namespaces.
const NAMESPACE_FOLDER: &str = "/run/netns";

/// The namespaces to remove when this program is interrupted.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A network namespace of this process, with its loopback device up. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with a name of its own. The first one also removes what earlier runs left behind.
    ///
    /// # Errors
    /// Without root, or without the `ip` program.
    pub fn create() -> Result<Self> {
        static FIRST: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        FIRST.call_once(remove_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let birth = birth_ticks(pid).context("cannot read /proc: the benchmarks need Linux")?;
        let name = format!("{NAME_PREFIX}{pid}-{birth}-{count}");
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let namespace = Self { name };
        run("ip", &["netns", "add", &namespace.name])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace, with the arguments given in one line.
    ///
    /// # Errors
    /// With what `ip` says.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        run("ip", &all)
    }

    /// A command that will run in this namespace.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` on a thread in this namespace. Sockets and devices it makes stay in the namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or with what `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(anyhow!("the work in namespace {} panicked", self.name)))
        })
    }

    /// Sets a network parameter, such as `ipv4/tcp_congestion_control`, in this namespace.
    ///
    /// # Errors
    /// If there is no such parameter or the kernel refuses the value.
    pub fn set_parameter(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        // The kernel shows each thread the parameters of its own namespace.
        self.run(|| {
            fs::write(&path, value).with_context(|| format!("cannot set {} to {value}", path.display()))
        })
    }

    /// The value of a network parameter in this namespace.
    ///
    /// # Errors
    /// If there is no such parameter.
    pub fn parameter(&self, key: &str) -> Result<String> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| {
            let value =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(value.trim().into())
        })
    }

    fn enter(&self) -> Result<()> {
        let namespace = File::open(Path::new(NAMESPACE_FOLDER).join(&self.name))?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP remove this program's namespaces, with the processes in them,
/// before the program ends with code 130.
///
/// # Errors
/// If called twice.
pub fn remove_on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        for name in LIVE.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            remove(name);
        }
        std::process::exit(130);
    })
    .context("cannot watch for interrupts")
}

/// Removes the namespaces of earlier runs that were killed.
pub fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(NAMESPACE_FOLDER) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if name.strip_prefix(NAME_PREFIX).is_some_and(|owner| !owner_lives(owner)) {
            remove(&name);
        }
    }
}

/// Whether the process `PID-BIRTH-…` runs. The time of birth tells it from a later one with the same number.
fn owner_lives(owner: &str) -> bool {
    let mut parts = owner.split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let birth = parts.next().and_then(|birth| birth.parse::<u64>().ok());
    pid.and_then(birth_ticks).is_some_and(|found| Some(found) == birth)
}

/// When a process was started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
fn birth_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    // The second field is the program's name and may hold anything; count from behind it.
    let after_name = &stat[stat.rfind(')')?..];
    after_name.split_whitespace().nth(20)?.parse().ok()
}

/// Removes a namespace and ends the processes in it. Best effort: it also runs while the program dies.
fn remove(name: &str) {
    let listed = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&listed).lines().filter_map(|line| line.trim().parse().ok()) {
        // Threads of this very process that are at work inside are listed, too.
        if let Some(pid) = Pid::from_raw(pid).filter(|&pid| pid != rustix::process::getpid()) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
