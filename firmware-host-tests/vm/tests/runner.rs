//! Whatever happens in the guest, the runner says it in one line, and nothing of the guest remains.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bondwire_vm::error::SetUpError;
use bondwire_vm::guests::{Guests, Options, is_prepared};
use bondwire_vm::plan::Contents;
use bondwire_vm::report::Job;

/// Guests without programs of the project. `None`, loudly, where they cannot be had and need not be.
fn guests(options: Options) -> Option<Guests> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("vm");
    let required = std::env::var_os("BONDWIRE_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
    if !required && !is_prepared(&cache) {
        println!("SKIPPED: no virtual machine; `cargo xtask vm` sets one up");
        return None;
    }
    let contents = Contents { init: env!("CARGO_BIN_EXE_bondwire-vm-init").into(), ..Contents::default() };
    Some(Guests::set_up(&cache, contents, options).unwrap())
}

fn job(script: &str) -> Job {
    let command = ["sh", "-c", script].map(str::to_owned).into();
    Job { name: script.to_owned(), command, limit_seconds: 60 }
}

/// One guest at a time, so that none that runs is taken for one that was left.
static ONE: Mutex<()> = Mutex::new(());

/// Whether a process of this one's guests is left.
fn qemu_runs() -> bool {
    let run = format!("run-{}-", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut command_lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    command_lines.any(|line| String::from_utf8_lossy(&line).contains(&run))
}

#[test]
fn every_end_of_a_job_is_told() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = Options::default();
    // Long enough for a job that must be killed, on a busy host.
    options.grace = Duration::from_secs(30);
    let Some(guests) = guests(options) else { return };
    let hangs = Job { limit_seconds: 1, ..job("sleep 1000") };
    let missing = Job { command: vec!["no-such-program".to_owned()], ..job("missing") };
    let jobs = [
        (job("echo one; echo two >&2; test $BONDWIRE_VM = 1"), None),
        (job("exit 3"), Some("exit code 3")),
        (job("kill -SEGV $$"), Some("ended by signal 11")),
        (missing, Some("could not be started: No such file or directory (os error 2)")),
        (hangs, Some("hung: killed when its time was up")),
        // What it leaves behind holds its output, but not the next job.
        (job("setsid sleep 1000 & echo left"), None),
        (
            job("echo 'WARNING: a test of it' > /dev/kmsg"),
            Some("the kernel complained: WARNING: a test of it"),
        ),
        (job("echo c > /proc/sysrq-trigger; sleep 1000"), Some("the guest died while it ran")),
        // In a new guest. Stopping what reports stands for a kernel that does not go on.
        (job("cat /proc/uptime"), None),
        (Job { limit_seconds: 1, ..job("kill -STOP $PPID") }, Some("the guest hung while it ran")),
    ];
    let list: Vec<_> = jobs.iter().map(|(job, _)| job.clone()).collect();
    let outcomes = guests.run(&list, &mut |_| {}).unwrap();
    let told: Vec<_> = outcomes.iter().map(|outcome| (&*outcome.name, outcome.failure.as_deref())).collect();
    let expected: Vec<_> = jobs.iter().map(|(job, failure)| (&*job.name, *failure)).collect();
    assert_eq!(told, expected);
    assert_eq!(outcomes[0].output, ["one", "two"]);
    assert_eq!(outcomes[5].output, ["left"]);
    assert!(!qemu_runs());
}

#[test]
fn a_guest_that_does_not_come_up_is_given_up() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = Options::default();
    options.boot_limit = Duration::from_millis(100);
    let Some(guests) = guests(options) else { return };
    let error = guests.run(&[job("true")], &mut |_| {}).unwrap_err();
    assert!(matches!(error, SetUpError::NotUp { .. }), "{error}");
    let words = error.to_string();
    assert!(words.starts_with("the guest did not come up: its time was up; see its console, /"), "{words}");
    assert!(!qemu_runs());
}
