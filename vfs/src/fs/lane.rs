//! Calls that may never return, made without losing the caller.
//!
//! Each mount has one lane, and a lane has at most one thread, which ends when nothing waits in it. A server that stops
//! answering therefore holds one thread per mount, however often it is asked; whoever waited too long goes away and its
//! step, if it has not begun, is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, mpsc};
use std::time::Instant;

use super::cache::MountKey;
use crate::lock::fork::{self, PerProcess};

type Step = Box<dyn FnOnce() + Send>;

struct Waiting {
    step: Step,
    abandoned: Arc<AtomicBool>,
}

#[derive(Default)]
struct Lane {
    running: bool,
    waiting: VecDeque<Waiting>,
    #[cfg(test)]
    threads: u32,
}

type Lanes = HashMap<MountKey, Lane>;

/// A forked child has none of the threads.
static LANES: PerProcess<Lanes> = PerProcess::new(|_| HashMap::new());

/// Runs `step` in the lane of `mount`. `None` if it did not end before `deadline`, or no thread could be had.
pub(super) fn run<T: Send + 'static>(
    mount: MountKey,
    deadline: Instant,
    step: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::sync_channel(1);
    let abandoned = Arc::new(AtomicBool::new(false));
    let waiting = Waiting {
        step: Box::new(move || {
            // The caller may be gone; then nobody wants the answer.
            let _ = send.send(step());
        }),
        abandoned: Arc::clone(&abandoned),
    };
    enqueue(mount, waiting)?;
    let answer = receive.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
    if answer.is_none() {
        abandoned.store(true, Ordering::Relaxed);
    }
    answer
}

/// How many threads the lane of a mount has had since it last was empty.
#[cfg(test)]
fn threads(mount: MountKey) -> u32 {
    lock().get(&mount).map_or(0, |lane| lane.threads)
}

fn lock() -> MutexGuard<'static, Lanes> {
    fork::watch();
    LANES.lock()
}

fn enqueue(mount: MountKey, waiting: Waiting) -> Option<()> {
    let mut lanes = lock();
    let lane = lanes.entry(mount).or_default();
    lane.waiting.retain(|waiting| !waiting.abandoned.load(Ordering::Relaxed));
    lane.waiting.push_back(waiting);
    if !lane.running {
        let name = "hardened-probe".to_owned();
        if std::thread::Builder::new().name(name).stack_size(256 * 1024).spawn(move || serve(mount)).is_err() {
            lane.waiting.pop_back();
            return None;
        }
        lane.running = true;
        #[cfg(test)]
        {
            lane.threads += 1;
        }
    }
    Some(())
}

fn serve(mount: MountKey) {
    loop {
        let next = {
            let mut lanes = lock();
            let Some(lane) = lanes.get_mut(&mount) else { return };
            match lane.waiting.pop_front() {
                Some(next) => next,
                None => {
                    lane.running = false;
                    lanes.remove(&mount);
                    return;
                }
            }
        };
        if !next.abandoned.load(Ordering::Relaxed) {
            // A panic in a step must not leave the lane marked as running with no thread behind it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(next.step));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::time::Duration;

    #[test]
    fn a_lane_that_hangs_costs_each_caller_its_time_limit_and_the_process_one_thread() {
        let mount = MountKey::Device(u64::MAX);
        let gate = Arc::new(Barrier::new(2));
        let held = Arc::clone(&gate);
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(
            run(mount, soon(), move || {
                held.wait();
            }),
            None
        );
        for _ in 0..50 {
            assert_eq!(run(mount, soon(), || 1), None);
        }
        assert_eq!(threads(mount), 1, "no thread per retry");
        gate.wait();
        // The lane serves again, and what was given up has not been run in between.
        assert_eq!(run(mount, Instant::now() + Duration::from_secs(30), || 7), Some(7));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_that_is_forked_while_a_lane_serves_has_lanes_of_its_own() {
        let (mount, gate) = (MountKey::Device(u64::MAX - 2), Arc::new(Barrier::new(2)));
        let held = Arc::clone(&gate);
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(
            run(mount, soon, move || {
                held.wait();
            }),
            None
        );
        // Its thread is the parent's, and so is whoever holds the mutex.
        let lanes = lock();
        let answered = fork::in_child(|| run(mount, Instant::now() + Duration::from_secs(30), || 5) == Some(5));
        drop(lanes);
        gate.wait();
        assert!(answered);
    }

    #[test]
    fn a_panic_in_a_step_leaves_the_lane_working() {
        let mount = MountKey::Device(u64::MAX - 1);
        let deadline = Instant::now() + Duration::from_secs(30);
        assert_eq!(run::<()>(mount, deadline, || std::panic::resume_unwind(Box::new(()))), None);
        assert_eq!(run(mount, deadline, || 3), Some(3));
    }
}
