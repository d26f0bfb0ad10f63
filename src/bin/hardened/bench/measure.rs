//! Two sides in turn.
//!
//! Invariant: in every round both sides do the same operations, and who begins changes; so a machine that is busy with something
//! else slows both, and the ratio of a round says more than the times.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::result::{Outcome, Ratio, Row, Times};
use super::subject::Subject;
use super::workload::{Operation, Workload};

/// Rounds that are aimed at.
const ROUNDS: u32 = 100;

/// Fewer have no median to speak of, however slow the operation is.
const FEWEST: usize = 3;

/// Operations of a side in one round at most.
const BATCH: u128 = 5_000;

/// It was told to stop.
pub(crate) struct Stopped;

/// What one side has done.
struct Run<'a> {
    operation: Operation<'a>,
    number: u64,
    times: Vec<Duration>,
    rates: Vec<f64>,
}

/// A side, or why it does not go on.
type Side<'a> = Result<Run<'a>, String>;

impl<'a> Run<'a> {
    fn new(workload: &Workload, subject: &'a Subject) -> Side<'a> {
        let operation = (workload.prepare)(subject)?;
        Ok(Run { operation, number: 0, times: Vec::new(), rates: Vec::new() })
    }

    fn once(&mut self) -> Result<Duration, String> {
        self.number += 1;
        (self.operation)(self.number)
    }
}

/// Measures one row for about `limit`. `watch` is asked after each operation, with how much of `limit` is over.
pub(crate) fn measure(
    workload: &Workload,
    subjects: &[Subject; 2],
    limit: Duration,
    watch: &mut dyn FnMut(Duration) -> ControlFlow<()>,
) -> Result<Row, Stopped> {
    let begun = Instant::now();
    let mut sides = [&subjects[0], &subjects[1]].map(|subject| Run::new(workload, subject));
    let mut asked = |begun: Instant| match watch(begun.elapsed().min(limit)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stopped),
    };
    // The first of each side fills caches; by the second a batch is judged, with what it does untimed.
    let mut slowest = Duration::ZERO;
    for warm in [false, true] {
        for side in &mut sides {
            let one = Instant::now();
            attempt(side, Run::once);
            slowest = if warm { slowest.max(one.elapsed()) } else { slowest };
            asked(begun)?;
        }
    }
    let share = limit / ROUNDS / 2;
    let batch = (share.as_nanos() / slowest.as_nanos().max(1)).clamp(1, BATCH) as u32;
    let measured = Instant::now();
    let mut round = 0;
    while round < FEWEST || measured.elapsed() < limit {
        for turn in 0..2 {
            let side = &mut sides[(turn + round) % 2];
            let mut total = Duration::ZERO;
            for _ in 0..batch {
                let Some(took) = attempt(side, Run::once) else { break };
                total += took;
                asked(begun)?;
                if let Ok(run) = side {
                    run.times.push(took);
                }
            }
            if let Ok(run) = side {
                run.rates.push(f64::from(batch) / total.as_secs_f64().max(1e-9));
            }
        }
        round += 1;
        if sides.iter().all(Result::is_err) {
            break;
        }
    }
    let ratio = match &sides {
        [Ok(stock), Ok(hardened)] => {
            let ratios = hardened.rates.iter().zip(&stock.rates).map(|(hardened, stock)| hardened / stock);
            Some(Ratio::of(ratios.collect()))
        }
        _ => None,
    };
    let [stock, hardened] = sides.map(|side| match side {
        Ok(run) => Outcome::Measured(Times::of(run.times, run.rates)),
        Err(error) => Outcome::Failed { error },
    });
    Ok(Row { operation: workload.name.to_owned(), stock, hardened, ratio, rounds: round })
}

/// Nothing from a side that has failed, or does now.
fn attempt<'a, T>(side: &mut Side<'a>, work: impl FnOnce(&mut Run<'a>) -> Result<T, String>) -> Option<T> {
    match work(side.as_mut().ok()?) {
        Ok(done) => Some(done),
        Err(error) => {
            *side = Err(error);
            None
        }
    }
}
