//! The cluster metadata image, its deltas and read views
