//! What this node announces and forwards; pure.
