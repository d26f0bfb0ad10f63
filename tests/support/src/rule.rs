//! Fault rules: on which occasion, for which file, after how many, how often, and what.
//!
//! Rules are tried in the order in which they were added. The first one that matches and has neither
//! occasions to skip nor its number used up decides; the rest do not see the occasion.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// That many times, then never again.
    N(u64),
    /// Until the faults are cleared.
    Forever,
}

#[derive(Debug, Default)]
struct Count {
    matched: AtomicU64,
    seen: AtomicU64,
}

/// Tells what a fault has done; it stays readable after the fault was cleared.
#[derive(Debug, Clone)]
pub struct FaultHandle(Arc<Count>);

impl FaultHandle {
    /// How often the fault has struck.
    pub fn seen(&self) -> u64 {
        self.0.seen.load(Ordering::SeqCst)
    }

    /// How many occasions it has matched, including those it let pass.
    pub fn matched(&self) -> u64 {
        self.0.matched.load(Ordering::SeqCst)
    }
}

/// One rule, for occasions of type `K` and outcomes of type `W`.
#[derive(Debug, Clone)]
pub(crate) struct Rule<K, W> {
    pub(crate) on: K,
    pub(crate) name: Option<String>,
    pub(crate) skip: u64,
    pub(crate) times: Times,
    pub(crate) what: W,
}

/// The rules of one filesystem or VFS.
#[derive(Debug)]
pub(crate) struct Rules<K, W>(Mutex<List<K, W>>);

type List<K, W> = Vec<(Rule<K, W>, Arc<Count>)>;

impl<K, W> Default for Rules<K, W> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: PartialEq, W: Copy> Rules<K, W> {
    fn rules(&self) -> MutexGuard<'_, List<K, W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, rule: Rule<K, W>) -> FaultHandle {
        let count = Arc::new(Count::default());
        self.rules().push((rule, count.clone()));
        FaultHandle(count)
    }

    pub(crate) fn clear(&self) {
        self.rules().clear();
    }

    /// What strikes on this occasion, if anything. `named` tells whether the file concerned has a
    /// name that ends so.
    pub(crate) fn strike(&self, on: K, named: impl Fn(&str) -> bool) -> Option<W> {
        for (rule, count) in self.rules().iter().filter(|(rule, _)| rule.on == on) {
            if !rule.name.as_deref().is_none_or(&named) {
                continue;
            }
            let passed = count.matched.fetch_add(1, Ordering::SeqCst);
            let spent = match rule.times {
                Times::N(n) => count.seen.load(Ordering::SeqCst) >= n,
                Times::Forever => false,
            };
            if passed < rule.skip || spent {
                continue;
            }
            count.seen.fetch_add(1, Ordering::SeqCst);
            return Some(rule.what);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_skips_then_strikes_then_lets_the_next_rule_decide() {
        let rules = Rules::default();
        let (on, name) = ('w', Some("-wal".to_owned()));
        let first = rules.add(Rule { on, name: None, skip: 1, times: Times::N(1), what: 1 });
        let second = rules.add(Rule { on, name, skip: 0, times: Times::Forever, what: 2 });
        let strike = || rules.strike('w', |suffix| "a.db-wal".ends_with(suffix));
        assert_eq!(strike(), Some(2), "the first rule lets one pass");
        assert_eq!(strike(), Some(1));
        assert_eq!(strike(), Some(2), "the first rule is spent");
        assert_eq!(rules.strike('w', |_| false), None);
        assert_eq!(rules.strike('r', |_| true), None);
        assert_eq!((first.seen(), second.seen()), (1, 2));
        assert_eq!((first.matched(), second.matched()), (4, 2));
        rules.clear();
        assert_eq!(strike(), None);
        assert_eq!(first.seen(), 1, "readable after the rule is gone");
    }
}
