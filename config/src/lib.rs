//! API objects to validated domain values.
