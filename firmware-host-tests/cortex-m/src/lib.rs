//! What the images share: the board, and the sizes of a port.
#![no_std]

pub mod board;
pub mod ports;
