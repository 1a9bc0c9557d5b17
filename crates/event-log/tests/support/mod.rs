//! What the tests of the log share: a database of a test's own ([`database`]), events and batches
//! to append ([`events`]), futures that stop half-way ([`interrupt`]) and a network that fails at
//! the worst moment ([`proxy`]).
#![allow(dead_code)] // Each test binary uses its part.

pub mod database;
pub mod events;
pub mod interrupt;
pub mod proxy;
