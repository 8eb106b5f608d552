//! Kernel settings (sysctl): the running values, beside the values that the next apply would set.
//!
//! Two programs apply the files: systemd-sysctl at boot, and `sysctl --system` of procps by hand and
//! in scripts. They read different files in different orders. `tree` finds the files, `line`
//! reads their lines, `plan` computes the writes of each program, `value` compares as the kernel
//! would, and [`check`] reports.

pub mod check;
mod faults;
mod remedy;
pub mod plan;
mod tree;
mod line;
mod value;

pub use line::Tool;
