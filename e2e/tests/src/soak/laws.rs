//! What must hold at every moment, whatever fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::api::{Api, Recording};
use crate::object::{ingress, items, text};

/// The addresses that statuses have shown: none is of two Services at one time, and none changes.
#[derive(Debug, Default)]
pub(super) struct Laws {
    /// By uid: the name, and what the status shows.
    shown: BTreeMap<String, (String, Vec<IpAddr>)>,
    pub(super) states: usize,
}

impl Laws {
    /// One state of a Service, in the order of the API server.
    fn take(&mut self, kind: &str, service: &Value) -> Result<()> {
        self.states += 1;
        let uid = text(&service["metadata"]["uid"]);
        if kind == "DELETED" {
            self.shown.remove(uid);
            return Ok(());
        }
        let name = text(&service["metadata"]["name"]);
        let now = ingress(service);
        if let Some((_, before)) = self.shown.get(uid)
            && !before.is_empty()
            && *before != now
        {
            bail!("{name} had {before:?}, and has {now:?} without a reason in its spec");
        }
        for (other, (theirs, addresses)) in &self.shown {
            if let Some(address) = now.iter().find(|it| addresses.contains(it))
                && other != uid
            {
                bail!("{address} is given to {theirs} and to {name}");
            }
        }
        self.shown.insert(uid.to_owned(), (name.to_owned(), now));
        Ok(())
    }

    /// All Services there are now; what came between was not seen.
    fn take_all(&mut self, services: &[Value]) -> Result<()> {
        let uids: BTreeSet<&str> = services
            .iter()
            .map(|service| text(&service["metadata"]["uid"]))
            .collect();
        self.shown.retain(|uid, _| uids.contains(uid.as_str()));
        services
            .iter()
            .try_for_each(|service| self.take("LISTED", service))
    }
}

/// Feeds the laws with every state of a namespace's Services, for as long as the API server tells.
#[derive(Debug)]
pub(super) struct Watch {
    path: String,
    recording: Option<Recording>,
    taken: usize,
    pub(super) laws: Laws,
}

impl Watch {
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            recording: None,
            taken: 0,
            laws: Laws::default(),
        }
    }

    /// Takes what has come since. That the API server is away is no error.
    pub(super) fn pump(&mut self, api: &Api) -> Result<()> {
        if let Some(recording) = &self.recording {
            let live = recording.is_live();
            for event in recording.events().iter().skip(self.taken) {
                self.taken += 1;
                if text(&event["type"]) == "ERROR" {
                    break;
                }
                self.laws.take(text(&event["type"]), &event["object"])?;
            }
            if !live {
                self.recording = None;
            }
        }
        if self.recording.is_none()
            && let Ok(list) = api.get(&self.path)
        {
            self.laws.take_all(items(&list["items"]))?;
            let version = text(&list["metadata"]["resourceVersion"]);
            self.recording = api.record_from(&self.path, version).ok();
            self.taken = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, address: &str) -> Value {
        let ingress = match address {
            "" => json!([]),
            address => json!([{"ip": address}]),
        };
        json!({
            "metadata": {"name": name, "uid": name},
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    }

    #[test]
    fn an_address_is_of_one_service_at_a_time() {
        let mut laws = Laws::default();
        laws.take("ADDED", &service("a", "192.0.2.1")).unwrap();
        laws.take("ADDED", &service("b", "192.0.2.2")).unwrap();
        let twice = laws.take("ADDED", &service("c", "192.0.2.1"));
        assert_eq!(
            twice.unwrap_err().to_string(),
            "192.0.2.1 is given to a and to c"
        );
        laws.take("DELETED", &service("a", "192.0.2.1")).unwrap();
        laws.take("ADDED", &service("c", "192.0.2.1")).unwrap();
        // Deleted while nobody looked.
        let now = [service("d", "192.0.2.1"), service("b", "192.0.2.2")];
        laws.take_all(&now).unwrap();
    }

    #[test]
    fn an_address_neither_changes_nor_goes() {
        let mut laws = Laws::default();
        laws.take("ADDED", &service("a", "")).unwrap();
        laws.take("MODIFIED", &service("a", "192.0.2.1")).unwrap();
        for wrong in ["192.0.2.2", ""] {
            laws.take("MODIFIED", &service("a", wrong)).unwrap_err();
        }
        laws.take_all(&[service("a", "")]).unwrap_err();
        laws.take("MODIFIED", &service("a", "192.0.2.1")).unwrap();
    }
}
