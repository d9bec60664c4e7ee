//! The process: its clock, the end of its life, what it tells systemd, and how often it repeats itself in the log.

pub(crate) mod clock;
pub(crate) mod lifecycle;
pub(crate) mod log_throttle;
pub(crate) mod systemd;
