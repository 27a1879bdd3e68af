//! The device side of a cable: a FunctionFS function of a Linux gadget.

mod acceptor;
mod address;
mod caretaker;
mod controllers;
mod descriptors;
mod endpoints;
mod error;
mod follow;
mod function;
mod gadget;
mod sys;

pub use acceptor::{GadgetAcceptor, GadgetEndpoints};
pub use address::{Companion, GadgetAddress, GadgetAddressError, MaxSpeed};
pub use controllers::{Controller, ControllerUser, choose, controllers};
pub use endpoints::{DeviceInlet, DeviceOutlet};
pub use error::GadgetError;
pub use gadget::{Gadget, GadgetConfig, kept, ours, remove};
