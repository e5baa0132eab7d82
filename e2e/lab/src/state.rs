use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::address::{Family, LanAddress};
use crate::error::{Error, Result};
use crate::layout::{Layout, write};
use crate::options::{KubeProxy, Options};

/// What a lab was built as; kept in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Set at the end of `up`: without it the lab is the rest of a killed run.
    pub(crate) complete: bool,
    pub(crate) nodes: u8,
    pub(crate) kube_proxy: KubeProxy,
    pub(crate) family: Family,
    /// In the order of their addresses.
    pub(crate) clients: Vec<String>,
}

/// One node of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// "node1", "node2", …
    pub name: String,
    /// From 1.
    pub index: u8,
    /// Its `eth0`.
    #[serde(flatten)]
    pub address: LanAddress,
}

impl State {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            complete: false,
            nodes: options.nodes,
            kube_proxy: options.kube_proxy,
            family: options.family,
            clients: vec!["client".to_owned()],
        }
    }

    /// `None` when there is no such lab.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.path("lab.json");
        match fs::read(&path) {
            Ok(json) => {
                let from = path.display().to_string();
                serde_json::from_slice(&json)
                    .map(Some)
                    .map_err(Error::json(&from))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    pub(crate) fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.path("lab.json");
        let json = serde_json::to_vec_pretty(self).map_err(Error::json("the lab's state"))?;
        write(&path, json)
    }

    pub(crate) fn all_nodes(&self) -> Vec<Node> {
        let node = |index| Node {
            name: format!("node{index}"),
            index,
            address: LanAddress::node(self.family, index),
        };
        (1..=self.nodes).map(node).collect()
    }

    pub(crate) fn node(&self, name: &str) -> Result<Node> {
        let nodes = self.all_nodes();
        let known = || {
            nodes
                .iter()
                .map(|node| node.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = nodes.iter().find(|node| node.name == name).cloned();
        found.ok_or_else(|| Error::NoSuchPlace {
            name: name.to_owned(),
            known: known(),
        })
    }

    /// Everything with a leg on the LAN.
    pub(crate) fn legs(&self) -> Vec<String> {
        let nodes = self.all_nodes().into_iter().map(|node| node.name);
        ["cp".to_owned()]
            .into_iter()
            .chain(nodes)
            .chain(self.clients.clone())
            .collect()
    }

    pub(crate) fn leg(&self, name: &str) -> Result<String> {
        let legs = self.legs();
        if legs.iter().any(|leg| leg == name) {
            return Ok(name.to_owned());
        }
        Err(Error::NoSuchPlace {
            name: name.to_owned(),
            known: legs.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_place_is_answered_with_the_known_ones() {
        let state = State::new(&Options {
            nodes: 2,
            ..Options::default()
        });
        assert_eq!(
            state.node("node2").expect("there is").address.primary(),
            "172.30.0.12"
        );
        let error = state.node("node3").expect_err("there is none").to_string();
        assert_eq!(
            error,
            "no place named \"node3\" in this lab; there are node1, node2"
        );
        let error = state.leg("x").expect_err("there is none").to_string();
        assert!(
            error.ends_with("there are cp, node1, node2, client"),
            "{error}"
        );
    }
}
