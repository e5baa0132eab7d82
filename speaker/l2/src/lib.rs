//! Whom the speaker answers and what it announces on layer 2; pure.
