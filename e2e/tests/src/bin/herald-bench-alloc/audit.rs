//! What the controller asked the API server for, as the audit log has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::time::Duration;

use anyhow::{Context as _, Result};
use herald_e2e::object::text;
use herald_lab::{HERALD_NAMESPACE, Lab};
use jiff::Timestamp;
use serde_json::Value;

/// A request that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) received: Timestamp,
    pub(crate) answered: Timestamp,
    /// Verb and resource: `create virtualips`.
    pub(crate) kind: String,
    /// The name of the object.
    pub(crate) name: String,
    pub(crate) code: u64,
}

/// Requests by kind.
pub(crate) type Kinds = BTreeMap<String, usize>;

impl Request {
    fn parse(line: &str, user: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        // A watch has a line when it begins, and one when it ends.
        if text(&event["user"]["username"]) != user || text(&event["stage"]) != "ResponseComplete" {
            return None;
        }
        let object = &event["objectRef"];
        let subresource = match text(&object["subresource"]) {
            "" => String::new(),
            subresource => format!("/{subresource}"),
        };
        Some(Self {
            received: text(&event["requestReceivedTimestamp"]).parse().ok()?,
            answered: text(&event["stageTimestamp"]).parse().ok()?,
            kind: format!(
                "{} {}{subresource}",
                text(&event["verb"]),
                text(&object["resource"])
            ),
            name: text(&object["name"]).to_owned(),
            code: event["responseStatus"]["code"].as_u64()?,
        })
    }

    /// Whether it changed something, or would have, other than the Lease.
    pub(crate) fn is_write(&self) -> bool {
        let verb = self.kind.split(' ').next().unwrap_or_default();
        !matches!(verb, "get" | "list" | "watch") && !self.kind.ends_with(" leases")
    }

    pub(crate) fn is_status(&self) -> bool {
        self.kind == "patch services/status" && self.code < 300
    }
}

/// The log from a moment on.
#[derive(Debug)]
pub(crate) struct Audit {
    reader: BufReader<File>,
    user: String,
    /// The beginning of a line that is not complete.
    half: String,
    pub(crate) requests: Vec<Request>,
}

impl Audit {
    pub(crate) fn from_now(lab: &Lab) -> Result<Self> {
        let path = lab.audit_log_path();
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            reader: BufReader::new(file),
            user: format!("system:serviceaccount:{HERALD_NAMESPACE}:herald-controller"),
            half: String::new(),
            requests: Vec::new(),
        })
    }

    /// Reads what has come since.
    pub(crate) fn read(&mut self) -> Result<()> {
        while self.reader.read_line(&mut self.half)? > 0 && self.half.ends_with('\n') {
            // Most lines are others'; parsing them all would take long.
            if self.half.contains(&self.user) {
                self.requests.extend(Request::parse(&self.half, &self.user));
            }
            self.half.clear();
        }
        Ok(())
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = &Request> + Clone {
        self.requests.iter().filter(|request| request.is_write())
    }
}

/// From the first claim to the moment when the last Service had its address.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) time: Duration,
    /// The writes that were made in it.
    pub(crate) writes: Kinds,
}

/// The window of so many Services; `None`: not all have an address yet.
pub(crate) fn window<'a>(
    writes: impl Iterator<Item = &'a Request> + Clone,
    services: usize,
) -> Option<Window> {
    let claims = writes
        .clone()
        .filter(|write| write.kind == "create virtualips");
    let began = claims.map(|write| write.received).min()?;
    // When each first had a status: what is written later says who announces.
    let mut first: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for write in writes.clone().filter(|write| write.is_status()) {
        let at = first.entry(&write.name).or_insert(write.answered);
        *at = write.answered.min(*at);
    }
    let ended = *first.values().max().filter(|_| first.len() >= services)?;
    let mut kinds = Kinds::new();
    for write in writes.filter(|write| (began..=ended).contains(&write.received)) {
        *kinds.entry(write.kind.clone()).or_default() += 1;
    }
    Some(Window {
        time: Duration::try_from(ended.duration_since(began)).ok()?,
        writes: kinds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, name: &str, second: i64) -> Request {
        let at = |milliseconds| Timestamp::from_millisecond(second * 1000 + milliseconds).unwrap();
        Request {
            received: at(0),
            answered: at(500),
            kind: kind.to_owned(),
            name: name.to_owned(),
            code: 200,
        }
    }

    #[test]
    fn a_window_ends_with_the_first_status_of_the_last_service() {
        let writes = [
            request("create virtualips", "", 1),
            request("create virtualips", "", 2),
            request("patch services/status", "a", 3),
            request("create events", "", 4),
            request("patch services/status", "b", 5),
            request("patch services/status", "a", 9),
            request("create events", "", 10),
        ];
        assert!(window(writes[..4].iter(), 2).is_none());
        let window = window(writes.iter(), 2).unwrap();
        assert_eq!(window.time, Duration::from_millis(4500));
        let expected = [
            ("create events", 1),
            ("create virtualips", 2),
            ("patch services/status", 2),
        ];
        assert_eq!(
            window.writes,
            expected
                .map(|(kind, count)| (kind.to_owned(), count))
                .into()
        );
    }

    #[test]
    fn only_answered_requests_of_the_controller_count_and_leases_are_no_writes() {
        let line = |user: &str, verb: &str, resource: &str| {
            format!(
                r#"{{"stage":"ResponseComplete","verb":"{verb}","user":{{"username":"{user}"}},
                "objectRef":{{"resource":"{resource}","name":"x"}},"responseStatus":{{"code":200}},
                "requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z","stageTimestamp":"2026-01-01T00:00:00.5Z"}}"#
            )
        };
        assert!(Request::parse(&line("other", "create", "virtualips"), "me").is_none());
        let parse = |verb, resource| Request::parse(&line("me", verb, resource), "me").unwrap();
        assert!(parse("create", "virtualips").is_write());
        assert!(!parse("patch", "leases").is_write());
        assert!(!parse("list", "virtualips").is_write());
    }
}
