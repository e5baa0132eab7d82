//! Index, allocator, placement and outbox of the controller; pure.
