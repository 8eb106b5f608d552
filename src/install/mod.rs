//! An installation: a new chain, and its key, in the places of a site's pair. The command `pintle install` and the running
//! process both make it of these parts.
//!
//! 1. [`plan`](plan::plan) says which file goes where.
//! 2. [`judge`](judge::judge) says whether the pair may be served, before anything is written.
//! 3. [`KeptFiles`](kept::KeptFiles) keeps the old files, and [`write`](kept::write) puts the new ones in their places.
//! 4. [`leaf`](probe::leaf) fetches the certificate that clients get now.
//! 5. The old files become the [previous pair](previous), for a way back; or they come back at once.
//!
//! [`settle`](unfinished::settle) finishes or undoes an installation that was interrupted.

mod copies;
pub mod judge;
pub mod kept;
mod pair_file;
pub mod plan;
pub mod previous;
pub mod probe;
pub mod unfinished;
