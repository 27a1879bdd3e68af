//! Placeholder of the crate being built.
