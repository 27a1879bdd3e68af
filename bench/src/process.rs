//! Programs under test: started in a namespace, watched through `/proc`, and ended with the scenario.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// The kernel's unit in `/proc/PID/stat`: USER_HZ, which is 100 on every architecture Linux runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a program's last words shown in an error.
const LAST_WORDS_BYTES: usize = 2000;

/// A program that runs in the background. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    name: String,
    log: File,
    output: Option<File>,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time in user and kernel mode, in seconds.
    pub cpu_seconds: f64,
    /// Times one of its threads went to sleep or was put aside.
    pub context_switches: u64,
    /// Memory that is in use and its own; shared pages count in part (PSS), in bytes.
    pub memory_bytes: u64,
    /// The most memory it ever had in use, shared pages included (peak RSS), in bytes.
    pub peak_memory_bytes: u64,
    /// Open file descriptors.
    pub open_files: usize,
}

impl Service {
    /// Starts `command`. What it says goes to files that can be asked for later.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let (log, output) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.into(), log, output: Some(output) })
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program, in its namespace, listens on a TCP port.
    ///
    /// # Errors
    /// If it ends before, or takes longer than `limit`; with its last words.
    pub fn wait_until_listening(&mut self, port: u16, limit: Duration) -> Result<()> {
        let since = Instant::now();
        while !listens(self.pid(), port) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, self.last_words());
            }
            let waited = since.elapsed();
            ensure!(waited < limit, "{} listens not on port {port}: {}", self.name, self.last_words());
            sleep(POLL);
        }
        Ok(())
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the program ends by itself. Its standard output, and what it used in all.
    ///
    /// # Errors
    /// If it fails or takes longer than `limit`; with its last words.
    pub fn finish(mut self, limit: Duration) -> Result<(String, Usage)> {
        let since = Instant::now();
        let id = WaitId::Pid(Pid::from_child(&self.child));
        // Without reaping it: `/proc` still tells then what it used.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while rustix::process::waitid(id.clone(), options)?.is_none() {
            let waited = since.elapsed();
            ensure!(waited < limit, "{} has not ended after {limit:?}: {}", self.name, self.last_words());
            sleep(POLL);
        }
        let usage = Usage { cpu_seconds: cpu_seconds(self.pid()).unwrap_or(0.0), ..Usage::default() };
        let status = self.child.wait()?;
        ensure!(status.success(), "{} failed ({status}): {}", self.name, self.last_words());
        let output = self.output.take().map(read_from_start).transpose()?;
        Ok((output.unwrap_or_default(), usage))
    }

    /// What the program has used so far.
    ///
    /// # Errors
    /// If it has ended.
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.pid();
        let read = || {
            Some(Usage {
                cpu_seconds: cpu_seconds(pid)?,
                context_switches: context_switches(pid)?,
                memory_bytes: kib_line(pid, "smaps_rollup", "Pss:")?,
                peak_memory_bytes: kib_line(pid, "status", "VmHWM:")?,
                open_files: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
            })
        };
        read().with_context(|| format!("{} has ended: {}", self.name, self.last_words()))
    }

    /// Kills the program, without any warning to it.
    pub fn kill(&mut self) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }

    /// The end of what the program wrote to its standard error.
    #[must_use]
    pub fn last_words(&self) -> String {
        let said = self.log.try_clone().and_then(|log| read_from_start(log).map_err(std::io::Error::other));
        let said = said.unwrap_or_default();
        let start = said.len().saturating_sub(LAST_WORDS_BYTES);
        let start = (start..=said.len()).find(|&at| said.is_char_boundary(at)).unwrap_or(start);
        if said.trim().is_empty() { "(it said nothing)".into() } else { said[start..].trim().into() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// If it cannot be started or fails, with what it said.
pub fn output_of(name: &str, command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Reads through a duplicate whose position is shared with the writer; the writer is at its end anyway.
fn read_from_start(file: File) -> Result<String> {
    let mut bytes = Vec::new();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    // Opened anew, so that the position the program writes at stays where it is.
    File::open(Path::new(&path))?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the process has reached a namespace of its own, and any socket there listens on the TCP port.
fn listens(pid: u32, port: u16) -> bool {
    const STATE_LISTEN: &str = "0A";
    // Right after its start it is still `ip`, in our namespace, where somebody else may listen on that port.
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if namespace(&pid.to_string()) == namespace("self") {
        return false;
    }
    let wanted = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&wanted) && fields.nth(1) == Some(STATE_LISTEN)
        })
    })
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 and 15; the second one is the program's name and may hold anything.
    let mut fields = stat[stat.rfind(')')?..].split_whitespace().skip(12);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn context_switches(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        sum += counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
    }
    Some(sum)
}

/// The bytes that the line `key` of a file in `/proc/PID` tells in KiB.
fn kib_line(pid: u32, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
