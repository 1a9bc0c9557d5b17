//! Threads of another process that stand still while the rest of it goes on, as a thread does that
//! hangs. A signal would stop the whole process; a tracer stops the thread that it is told to.
//!
//! Called by the suite about stalls. Linux only, like the product.

use anyhow::{Context, Result, ensure};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked whether a thread has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Threads that stand still until this value goes.
pub struct Held {
    release: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Held {
    /// Stops all threads of a child process of this one whose name begins so.
    ///
    /// # Errors
    /// Where there is none, or the kernel refuses.
    pub fn stop(process: u32, name: &str) -> Result<Self> {
        let threads = named(process, name)?;
        ensure!(
            !threads.is_empty(),
            "no thread of {process} is named {name}"
        );
        let (release, released) = channel();
        let (stopped, answer) = channel();
        // A tracer is a thread, and what it stops goes on when it ends.
        let tracer = std::thread::spawn(move || hold(&threads, &stopped, &released));
        answer.recv().context("the tracer panicked")??;
        Ok(Self {
            release: Some(release),
            tracer: Some(tracer),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release.take();
        if let Some(tracer) = self.tracer.take() {
            // It can only have ended.
            let _ended = tracer.join();
        }
    }
}

fn named(process: u32, name: &str) -> Result<Vec<i32>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let is_named = std::fs::read_to_string(entry.path().join("comm"))?.starts_with(name);
        if is_named {
            threads.push(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(threads)
}

fn hold(threads: &[i32], stopped: &Sender<Result<()>>, released: &Receiver<()>) {
    let all: Result<()> = threads.iter().try_for_each(|thread| seize(*thread));
    // The receiver is gone only with the test.
    let _sent = stopped.send(all);
    while released.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        threads.iter().for_each(|thread| reap(*thread));
    }
}

/// Takes note of what a thread has come to, without waiting: a process whose threads are dead has not
/// ended before their tracer knows.
#[allow(unsafe_code)]
fn reap(thread: i32) {
    let mut status = 0;
    // SAFETY: the call writes a status, or nothing, where the pointer says.
    unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL | libc::WNOHANG) };
}

#[allow(unsafe_code)]
fn seize(thread: i32) -> Result<()> {
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes through the two pointers.
        let answer = unsafe { libc::ptrace(request, thread, nothing, nothing) };
        ensure!(
            answer == 0,
            "ptrace of thread {thread}: {}",
            std::io::Error::last_os_error()
        );
    }
    Ok(())
}
