//! What the tests of the log share: a database of a test's own ([`database`]), events and batches
//! to append ([`events`]), futures that stop half-way ([`interrupt`]), a network that fails at the
//! worst moment ([`proxy`]), a server that lets nobody in ([`refusing_server`]) and one that may be crashed
//! ([`private_server`]).
#![allow(dead_code)] // Each test binary uses its part.

pub mod database;
pub mod events;
pub mod interrupt;
pub mod private_server;
pub mod proxy;
pub mod refusing_server;
