//! The guest from within.
//!
//! Process 1 gathers every process that loses its parent, so it must not wait for one of its own at the same time: a child
//! of it, the worker, does all the work.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use bondwire_vm::report::{
    Ending, IN_GUEST, JOBS_FILE, Job, REBOOT_CODE, REBOOTS_FILE, REPORT_PORT, Report, SHELL_FLAG,
    SYSTEMD_FLAG, is_complaint,
};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Pid, Signal, WaitOptions, chroot, getpid, kill_process_group, wait};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The argument of the worker.
const WORKER: &str = "work";
/// The same under systemd.
const JOBS: &str = "jobs";
/// Where words on the kernel's command line are read, from the first mount on.
const COMMAND_LINE: &str = "/proc/cmdline";
/// What is mounted where, in this order.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];
/// Longest line that is passed on in one piece, in bytes.
const LINE_BYTES_MAX: u64 = 8192;
/// The disk of a guest with systemd, and what it needs of the kernel.
const DISK: &str = "/dev/vda";
const DISK_MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "overlay"];
/// How long the disk may take to appear.
const DISK_LIMIT: Duration = Duration::from_secs(20);
/// How long a killed job may take to die. One that does not hangs in the kernel.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// How long output may come after the end of a job; a process that it left behind can hold its pipe for ever.
const OUTPUT_LIMIT: Duration = Duration::from_secs(2);
/// How many lines of the kernel's are passed on with a failure.
const KERNEL_LINES: usize = 60;
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) fn main() {
    match env::args().nth(1).as_deref() {
        Some(WORKER) => work(set_up),
        Some(JOBS) => {
            work(set_up_more);
            turn_off();
        }
        _ if getpid() == Pid::INIT => {
            first_program();
            turn_off();
        }
        _ => eprintln!("bondwire-vm-init is the first program of a guest; start it with: cargo xtask vm"),
    }
}

fn first_program() {
    let begun = set_up_mounts().and_then(|()| {
        if has_flag(SYSTEMD_FLAG) {
            enter_disk()?;
            // It mounts anew what it needs; this returns only if it cannot be started.
            return Err(Command::new("/lib/systemd/systemd").env_clear().exec());
        }
        Command::new("/proc/self/exe").arg(WORKER).spawn()
    });
    match begun {
        Ok(worker) => gather(worker.id()),
        Err(error) => eprintln!("bondwire-vm-init: {error}"),
    }
}

fn turn_off() {
    // Nothing is left to do when this fails; the kernel panics, and the host hears that the guest is gone.
    let _ = reboot(RebootCommand::PowerOff);
}

fn has_flag(flag: &str) -> bool {
    fs::read_to_string(COMMAND_LINE).is_ok_and(|words| words.contains(flag))
}

/// Has systemd stop all that runs and start anew; this process is among what it stops.
fn shut_down() {
    if let Err(error) = good(command("systemctl").arg("reboot")) {
        return eprintln!("bondwire-vm-init: {error}");
    }
    loop {
        thread::park();
    }
}

/// Waits for orphans until the worker is among the dead.
fn gather(worker: u32) {
    while let Ok(dead) = wait(WaitOptions::empty()) {
        if dead.is_some_and(|(pid, _)| pid.as_raw_nonzero().get().unsigned_abs() == worker) {
            return;
        }
    }
}

fn set_up_mounts() -> io::Result<()> {
    for (kind, path) in MOUNTS {
        fs::create_dir_all(path)?;
        mount(kind, path, kind, MountFlags::empty(), None)?;
    }
    Ok(())
}

/// Makes the files of the image, with what was changed on the disk, the file system of this process and all that it starts.
fn enter_disk() -> io::Result<()> {
    for module in DISK_MODULES {
        good(command("modprobe").arg(module))?;
    }
    let deadline = Instant::now() + DISK_LIMIT;
    while !Path::new(DISK).exists() && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
    let [changes, system] = ["/mnt/disk", "/mnt/system"];
    fs::create_dir_all(changes)?;
    fs::create_dir_all(system)?;
    mount(DISK, changes, "ext4", MountFlags::empty(), None)?;
    fs::create_dir_all(format!("{changes}/upper"))?;
    fs::create_dir_all(format!("{changes}/work"))?;
    let layers = format!("lowerdir=/,upperdir={changes}/upper,workdir={changes}/work");
    mount("overlay", system, "overlay", MountFlags::empty(), Some(&*CString::new(layers)?))?;
    env::set_current_dir(system)?;
    mount_move(".", "/")?;
    chroot(".")?;
    Ok(())
}

fn work(set_up: fn() -> io::Result<()>) {
    if has_flag(SHELL_FLAG) {
        if let Err(error) = set_up() {
            eprintln!("bondwire-vm-init: {error}");
        }
        let _ = command("setsid").args(["cttyhack", "sh", "-l"]).status();
        return;
    }
    let port = match Port::open() {
        Ok(port) => port,
        Err(error) => return eprintln!("bondwire-vm-init: {REPORT_PORT}: {error}"),
    };
    let jobs = set_up().and_then(|()| Ok(serde_json::from_slice::<Vec<Job>>(&fs::read(JOBS_FILE)?)?));
    match jobs.and_then(|jobs| Ok((jobs, KernelLog::open()?))) {
        Ok((jobs, mut log)) => {
            port.send(&Report::Up);
            for (number, job) in jobs.iter().enumerate() {
                port.send(&Report::Start(number));
                // What hung or made the kernel complain may have left it in a state that is not the next job's fault. The
                // host starts another guest for the rest.
                match run(job, &port, &mut log) {
                    After::Goes => {}
                    After::IsSpoilt => return,
                    After::Reboots => return shut_down(),
                }
                // It is over, and the next one has not rebooted.
                let _ = fs::remove_file(REBOOTS_FILE);
            }
            port.send(&Report::Done);
        }
        Err(error) => port.send(&Report::Broken(error.to_string())),
    }
}

/// What systemd leaves to do.
fn set_up_more() -> io::Result<()> {
    commands()?;
    good(command("udevadm").arg("settle"))
}

fn commands() -> io::Result<()> {
    good(Command::new("/bin/busybox").args(["--install", "-s", "/usr/sbin"]))
}

/// Commands, network, configfs and udevd.
fn set_up() -> io::Result<()> {
    commands()?;
    good(command("hostname").arg("guest"))?;
    good(command("ip").args(["link", "set", "lo", "up"]))?;
    good(command("modprobe").arg("configfs"))?;
    mount("configfs", "/sys/kernel/config", "configfs", MountFlags::empty(), None)?;
    good(command("/lib/systemd/systemd-udevd").arg("--daemon"))?;
    good(command("udevadm").args(["trigger", "--action=add"]))?;
    good(command("udevadm").arg("settle"))
}

/// A command in the environment that all programs of the guest have.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/usr/sbin").env("HOME", "/root").env("TERM", "vt100");
    command.env("RUST_BACKTRACE", "1").env(IN_GUEST, "1");
    command
}

fn good(command: &mut Command) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let program = command.get_program().to_string_lossy();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("{program}: {status}"))),
        Err(error) => Err(io::Error::other(format!("{program}: {error}"))),
    }
}

/// What becomes of the guest after a job.
enum After {
    /// It is as before.
    Goes,
    /// The job hung in it, or made the kernel complain.
    IsSpoilt,
    /// The job goes on in it after a reboot.
    Reboots,
}

/// Runs one job and reports its output, the kernel's complaints, and its end.
fn run(job: &Job, port: &Port, log: &mut KernelLog) -> After {
    let start = Instant::now();
    let ending = match start_job(job, port) {
        Ok((child, output)) => {
            let ending = finish(child, start + Duration::from_secs(job.limit_seconds));
            // It ends at once unless a process that the job left behind holds the pipe.
            let _ = output.recv_timeout(OUTPUT_LIMIT);
            ending
        }
        Err(error) => Ending::NotStarted(error.to_string()),
    };
    let milliseconds = start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    let messages = log.messages();
    let complaint = messages.iter().position(|message| is_complaint(message));
    let hung = matches!(ending, Ending::TimedOut | Ending::Unkillable);
    // A complaint is followed by the calls that led to it; of a job that hung, what it waits for comes last.
    let telling = match complaint {
        Some(first) => &messages[first..],
        None if hung => &messages[messages.len().saturating_sub(KERNEL_LINES)..],
        None => &[],
    };
    for message in telling.iter().take(KERNEL_LINES) {
        port.send(&Report::Output(format!("kernel: {message}")));
    }
    if let Some(first) = complaint {
        port.send(&Report::Kernel(messages[first].clone()));
    }
    let reboots = matches!(ending, Ending::Code(REBOOT_CODE));
    port.send(&Report::End { ending, milliseconds });
    match complaint {
        None if reboots => After::Reboots,
        None if !hung => After::Goes,
        _ => After::IsSpoilt,
    }
}

/// Starts a job in a process group of its own, with both outputs in one pipe. The receiver hears when that is empty.
fn start_job(job: &Job, port: &Port) -> io::Result<(Child, Receiver<()>)> {
    let (program, arguments) = job.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (reader, writer) = io::pipe()?;
    let mut command = command(program);
    command.args(arguments).current_dir("/tmp").process_group(0);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // It holds the writing ends of the pipe, without which the reader would never come to an end.
    drop(command);
    let port = port.clone();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        pass_on(reader, &port);
        // Nobody listens any more if this took too long.
        let _ = sender.send(());
    });
    Ok((child, receiver))
}

fn pass_on(output: impl Read, port: &Port) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(1..) = output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        port.send(&Report::Output(text.trim_end_matches(['\n', '\r']).to_owned()));
        line.clear();
    }
}

/// Waits for the end of a job, and brings it about at the deadline. Nothing of its process group remains.
fn finish(mut child: Child, deadline: Instant) -> Ending {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Gone already is what should be.
    let kill = || group.map(|group| kill_process_group(group, Signal::KILL));
    let ended = wait_until(&mut child, deadline);
    if ended.is_none() {
        // What all hanging tasks wait for, onto the console.
        let _ = fs::write("/proc/sysrq-trigger", "w");
    }
    kill();
    match ended {
        Some(status) => status.signal().map_or(Ending::Code(status.code().unwrap_or(-1)), Ending::Signal),
        None if wait_until(&mut child, Instant::now() + DEATH_LIMIT).is_some() => Ending::TimedOut,
        None => Ending::Unkillable,
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

/// The way to the host.
#[derive(Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn open() -> io::Result<Self> {
        let port = OpenOptions::new().read(true).write(true).open(REPORT_PORT)?;
        let mut settings = tcgetattr(&port)?;
        settings.make_raw();
        tcsetattr(&port, OptionalActions::Now, &settings)?;
        Ok(Self(Arc::new(Mutex::new(port))))
    }

    fn send(&self, report: &Report) {
        let line = report.to_line() + "\n";
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = port.write_all(line.as_bytes()) {
            eprintln!("bondwire-vm-init: {REPORT_PORT}: {error}");
        }
    }
}

/// The kernel's messages from here on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut log = Self(OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?);
        // What was said during the boot is nobody's fault.
        drop(log.messages());
        Ok(log)
    }

    /// What it said since the last look.
    fn messages(&mut self) -> Vec<String> {
        let mut record = [0; 8192];
        let mut messages = Vec::new();
        loop {
            // One record in each read: "priority,number,time,flags;message", then lines of details.
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    messages.push(message.lines().next().unwrap_or_default().to_owned());
                }
                // Records were overwritten before this look.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => return messages,
            }
        }
    }
}
