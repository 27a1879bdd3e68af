//! stub
#![allow(dead_code)]
mod climb;
mod diagnosis;
mod endpoint;
pub mod limits;
