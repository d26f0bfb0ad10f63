//! Where the guard's record is kept, as the keeper sees it.
//!
//! Invariant: of several processes that open a record at once, one is told to judge what was left in it, and the others are
//! told that it was judged only after it was.

use super::log::Time;

/// Who else has the record open, or has judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    Alone,
    Others,
    /// Locks do not work there.
    Unknown,
}

/// The file of the record. Errors are SQLite's codes.
pub(crate) trait Store: Send {
    /// Opens it; `false` if there is none and none is to be created.
    fn open(&mut self, create: bool) -> Result<bool, i32>;
    fn size(&self) -> Result<u64, i32>;
    /// When it was last changed, if that can be told.
    fn changed(&self) -> Option<Time>;
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), i32>;
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), i32>;
    /// Makes it empty.
    fn truncate(&mut self) -> Result<(), i32>;
    fn sync(&mut self) -> Result<(), i32>;
    /// Asks who else has it open. Alone, it stays locked for others until [`Store::welcome`].
    fn company(&self) -> Company;
    /// Asks who else has judged it, or has had no need to, and has it open; of several who come at once one is told that it
    /// is alone. Until [`Store::judged`] the others are busy.
    fn judge(&self) -> Result<Company, i32>;
    /// It has been judged, as others will be told for as long as it is open.
    fn judged(&self);
    fn welcome(&self);
    /// Takes the turn to add to it, until [`Store::welcome`].
    fn turn(&self) -> bool;
    fn remove(&mut self);
    fn close(&mut self);
}
