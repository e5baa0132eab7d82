//! How the controller reads the API server's objects: for the controller itself, and for `kubectl herald`,
//! which answers from the same values.

pub mod kinds;
pub mod watch;
