//! Tests, demo and benchmarks on the lab.
//!
//! What is here helps them: it asks the API server and the LAN, and waits for states. It knows nothing
//! of Herald's insides. Each test has a [`Sandbox`](sandbox::Sandbox) on the cluster that all share:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use herald_e2e::sandbox::sandbox;
//! use serde_json::json;
//!
//! sandbox(|it| {
//!     it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
//!     it.service("web", json!({}))?;
//!     it.expect_addresses("web", &[it.v4(0)])
//! })
//! # }
//! ```

pub mod api;
pub mod asking;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod cost;
pub mod documents;
pub mod fault;
pub mod flows;
pub mod inside;
pub mod metrics;
pub mod netns;
pub mod newcomers;
pub mod object;
pub mod probe;
pub mod prometheus;
pub mod reference;
pub mod sandbox;
pub mod soak;
pub mod stranger;
pub mod streams;
pub mod wait;
