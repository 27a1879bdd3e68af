//! Both ends of a bond in one process, over real sockets and paced paths that are cut and returned.

pub(crate) mod lane;
pub(crate) mod plan;
pub(crate) mod relay;
pub(crate) mod report;
pub(crate) mod stage;
pub(crate) mod traffic;
