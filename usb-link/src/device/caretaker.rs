//! Ends the requests of this program in an orderly way even when the program is killed.
//!
//! A program that dies with requests under way leaves them to the kernel, which ends them as it takes the program's memory
//! down. Some kernels (Debian's 6.1.192 for one) hang there, and the controller with them until the next boot: FunctionFS
//! copies what a read has brought into the memory of the program in a queue that does one thing at a time
//! (`ffs_user_copy_worker`, drivers/usb/gadget/function/f_fs.c). If the program dies meanwhile, that copy is the last user of
//! its memory, takes it down, and so waits for the requests that wait in the queue behind it.
//!
//! So a second process uses the same memory. It hears when this program is gone, ends the requests while the memory still
//! has a user, and then goes as well. It has no descriptor of this program's, and no signal of a terminal reaches it. What it
//! cannot help against is something that kills both in the same moment, as when a container is taken down by force.

#![allow(unsafe_code, reason = "a process that shares memory with this one, and what little it may do in it")]

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::limits::{AIO_CONTEXTS_MAX, CARETAKER_STACK_BYTES, DESCRIPTORS_CLOSED_MAX};

/// The AIO contexts of this program, and 0 where there is none.
static CONTEXTS: [AtomicUsize; AIO_CONTEXTS_MAX] = [const { AtomicUsize::new(0) }; AIO_CONTEXTS_MAX];
/// The one that runs, if one does.
static RUNNING: Mutex<Weak<Caretaker>> = Mutex::new(Weak::new());

/// The second process. It ends when this is dropped, or when the program is gone.
#[derive(Debug)]
pub(super) struct Caretaker {
    /// When this is closed without a word, the program was killed.
    alive: OwnedFd,
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        // Nothing is left to clean up, and what the next one has to care for is none of this one's business. Should the
        // second process be gone, nobody need be told.
        let _ = rustix::io::write(&self.alive, b"!");
    }
}

/// Place of an AIO context in the list of those to end.
#[derive(Debug)]
pub(super) struct Registered(Option<usize>);

impl Caretaker {
    /// The one of this program, started if there is none. Without it everything works, and only a kill can do harm: so a
    /// failure is told and is not an error.
    pub(super) fn running() -> Option<Arc<Self>> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caretaker) = running.upgrade() {
            return Some(caretaker);
        }
        match Self::start() {
            Ok(caretaker) => {
                let caretaker = Arc::new(caretaker);
                *running = Arc::downgrade(&caretaker);
                Some(caretaker)
            }
            Err(e) => {
                tracing::warn!(
                    target: "bondwire",
                    "gadget: cannot start the process that cleans up if this one is killed: {e}; \
                     end this program by SIGTERM, and not by SIGKILL"
                );
                None
            }
        }
    }

    fn start() -> io::Result<Self> {
        let (heard, alive) = pipe_with(PipeFlags::CLOEXEC)?;
        let (sender, started) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("usb caretaker".to_owned()).spawn(move || {
            block_signals();
            attend(&heard, |result| drop(sender.send(result)));
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { alive })
    }
}

/// Enters a context among those to end. Beyond the bound of the list it is left out, as without a caretaker.
pub(super) fn register(context: usize) -> Registered {
    Registered(
        CONTEXTS
            .iter()
            .position(|place| place.compare_exchange(0, context, Ordering::SeqCst, Ordering::SeqCst).is_ok()),
    )
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            CONTEXTS[place].store(0, Ordering::SeqCst);
        }
    }
}

/// No handler of this program may run in the second process, and none here while that uses this thread's local storage.
fn block_signals() {
    // SAFETY: the set is initialized by `sigfillset` before it is used.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut());
    }
}

/// Starts the process, tells so, and stays until it has ended: it runs on a stack of this thread's, and with this thread's
/// `errno`.
fn attend(heard: &OwnedFd, tell: impl FnOnce(io::Result<()>)) {
    let mut stack = vec![0_u128; CARETAKER_STACK_BYTES / size_of::<u128>()];
    let descriptor: RawFd = heard.as_raw_fd();
    // SAFETY: the stack grows downwards from its end, which is aligned to 16 bytes, and lives until the process has ended;
    // the function does nothing but system calls, and the descriptor's number is passed as a number.
    let process = unsafe {
        libc::clone(
            wait_and_clean_up,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM,
            ptr::without_provenance_mut(usize::try_from(descriptor).unwrap_or(usize::MAX)),
        )
    };
    if process < 0 {
        return tell(Err(io::Error::last_os_error()));
    }
    tell(Ok(()));
    let mut status = 0;
    // SAFETY: the status is written to; without `__WALL` a process without a signal of its end is not waited for.
    while unsafe { libc::waitpid(process, &raw mut status, libc::__WALL) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            // Somebody else has waited for it, or it cannot be waited for: the stack may still be in use.
            return std::mem::forget(stack);
        }
    }
}

/// The second process. It shares memory with a program that may die, or be in the middle of anything: it allocates nothing,
/// takes no lock, and cannot panic.
extern "C" fn wait_and_clean_up(descriptor: *mut c_void) -> c_int {
    let descriptor = descriptor.addr() as c_int;
    // SAFETY: system calls on descriptors of this process's own table, which is a copy, and with memory of this stack.
    unsafe {
        close_all_but(descriptor);
        // Signals to the program's group, as from a terminal, do not reach it.
        libc::syscall(libc::SYS_setsid);
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, c"usb-caretaker".as_ptr());
        libc::syscall(libc::SYS_chdir, c"/".as_ptr());
        let mut byte = [0_u8; 1];
        // All signals are blocked, so that nothing interrupts it.
        let farewell = libc::syscall(libc::SYS_read, descriptor, byte.as_mut_ptr(), 1 as c_long);
        if farewell != 1 {
            for context in CONTEXTS.iter().map(|place| place.load(Ordering::SeqCst)).filter(|id| *id != 0) {
                libc::syscall(libc::SYS_io_destroy, context as libc::c_ulong);
            }
        }
        libc::syscall(libc::SYS_exit_group, 0 as c_long);
    }
    0
}

/// Closes the copies of the program's descriptors, which would keep its files and sockets open.
///
/// # Safety
///
/// Only in a process with a descriptor table of its own.
unsafe fn close_all_but(kept: c_int) {
    let (first, last): (c_int, c_int) = (kept - 1, kept + 1);
    // SAFETY: as the caller says. Kernels before 5.9 have no `close_range`.
    unsafe {
        let below = first < 0 || libc::syscall(libc::SYS_close_range, 0 as c_long, first, 0 as c_long) == 0;
        let above = libc::syscall(libc::SYS_close_range, last, c_int::MAX, 0 as c_long) == 0;
        if !(below && above) {
            for other in (0..DESCRIPTORS_CLOSED_MAX).filter(|other| *other != kept) {
                libc::syscall(libc::SYS_close, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Makes this test program a child to be killed.
    const CHILD: &str = "BONDWIRE_TEST_CARETAKER_CHILD";

    /// Whether a process is a caretaker that runs.
    fn runs(process: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.contains("Name:\tusb-caretaker\n") && !status.contains("State:\tZ")
    }

    /// The caretaker of a program, once it has its name.
    fn caretaker_of(program: u32) -> Option<u32> {
        let is_its = |process: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            runs(*process) && status.contains(&format!("PPid:\t{program}\n"))
        };
        let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).find(is_its)
    }

    fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..1000 {
            if let Some(seen) = look() {
                return seen;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("never: {what}");
    }

    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let _caretaker = Caretaker::running().unwrap();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn it_lives_as_long_as_it_is_held_or_the_program_runs() {
        let own = std::process::id();
        let (one, other) = (Caretaker::running().unwrap(), Caretaker::running().unwrap());
        assert!(Arc::ptr_eq(&one, &other), "one is enough");
        let process = wait_for("there is one", || caretaker_of(own));
        drop((one, other));
        wait_for("it is gone", || (!runs(process)).then_some(()));

        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "device::caretaker::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = wait_for("there is the child's", || caretaker_of(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("it is gone with its program", || (!runs(process)).then_some(()));
    }

    /// Another may have been started, and requests begun, before it has ended.
    #[tokio::test]
    async fn one_that_is_let_go_ends_no_request() {
        use crate::device::sys::{Operation, Requests};
        let caretaker = Caretaker::running().unwrap();
        let process = wait_for("there is one", || caretaker_of(std::process::id()));
        let file = tempfile::tempfile().unwrap();
        let mut requests = Requests::new(file.into(), Operation::Read, 1, 1).unwrap();
        drop(caretaker);
        wait_for("it is gone", || (!runs(process)).then_some(()));
        requests.submit(1).unwrap();
    }

    #[test]
    fn a_list_that_is_full_leaves_out() {
        let all: Vec<_> = (0..AIO_CONTEXTS_MAX + 3).map(|context| register(context + 1)).collect();
        assert!(all.iter().any(|registered| registered.0.is_none()));
        drop(all);
        assert!(register(1).0.is_some());
    }
}
