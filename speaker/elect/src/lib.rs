//! Who announces an address; pure.
