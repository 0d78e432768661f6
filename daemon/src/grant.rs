//! PURE: the life of one grant.

pub mod record;
