//! Field managers: who owns a field under server-side apply.

/// The controller's writes.
pub const CONTROLLER: &str = "herald-controller";
/// A speaker's writes.
pub const SPEAKER: &str = "herald-speaker";
