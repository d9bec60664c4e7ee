//! The process: its clock, its shutdown, its notifications to systemd, files that it may not read, and the throttling of repeated log events.

pub(crate) mod clock;
pub(crate) mod file_access;
pub(crate) mod lifecycle;
pub(crate) mod log_throttle;
pub(crate) mod systemd;
