//! The status for people.

use herald_lab::{Cable, ComponentState, Loss, NodeStatus, Status};

/// The whole status as text.
pub(crate) fn status(status: &Status) -> String {
    let title = format!(
        "lab {}: kube-proxy {}, family {:?}{}\n",
        status.name,
        status.kube_proxy.as_str(),
        status.family,
        if status.complete {
            ""
        } else {
            ", NOT COMPLETE: its `up` has not come to its end"
        },
    );
    let api = if status.api_ready {
        "API server ready"
    } else {
        "API server NOT READY"
    };
    let unusual = status
        .components
        .iter()
        .filter_map(|(name, state)| match state {
            ComponentState::Running => None,
            ComponentState::Stopped => Some(format!("{name} STOPPED")),
            ComponentState::Frozen => Some(format!("{name} FROZEN")),
            ComponentState::Dead => Some(format!("{name} DEAD")),
        });
    let words: Vec<_> = std::iter::once(api.to_owned()).chain(unusual).collect();
    let mut parts = vec![title, format!("control plane: {}\n", words.join(", "))];
    if !status.partition.is_empty() {
        let groups: Vec<_> = status.partition.iter().map(|part| part.join(",")).collect();
        parts.push(format!("LAN SPLIT: {}\n", groups.join(" / ")));
    }

    let mut legs = vec![row(&["PLACE", "ADDRESSES", "MAC", "READY", "STATE"])];
    for node in &status.nodes {
        let ready = if node.ready.is_empty() {
            "-"
        } else {
            &node.ready
        };
        let addresses = node.address.all().join(", ");
        legs.push(row(&[
            &node.name,
            &addresses,
            &node.address.mac,
            ready,
            &node_state(node),
        ]));
    }
    for leg in &status.others {
        let addresses = leg.address.all().join(", ");
        legs.push(row(&[
            &leg.name,
            &addresses,
            &leg.address.mac,
            "-",
            &joined(vec![cable(leg.cable).to_owned(), lost(leg.loss)]),
        ]));
    }
    parts.push(table(&legs));

    if !status.services.is_empty() {
        let mut rows = vec![row(&["LOADBALANCER", "ADDRESSES"])];
        for service in &status.services {
            let name = format!("{}/{}", service.namespace, service.name);
            let addresses = service.addresses.join(", ");
            let addresses = if addresses.is_empty() {
                "none"
            } else {
                &addresses
            };
            rows.push(row(&[&name, addresses]));
        }
        parts.push(table(&rows));
    }
    if !status.pods.is_empty() {
        let mut rows = vec![row(&[
            "POD",
            "NODE",
            "ADDRESSES",
            "READY",
            "RESTARTS",
            "STATE",
        ])];
        for pod in &status.pods {
            let name = format!("{}/{}", pod.namespace, pod.name);
            let node = if pod.node.is_empty() { "-" } else { &pod.node };
            let ready = if pod.ready { "yes" } else { "NO" };
            let restarts = pod.restarts.to_string();
            rows.push(row(&[
                &name,
                node,
                &pod.addresses.join(", "),
                ready,
                &restarts,
                &pod.reason,
            ]));
        }
        parts.push(table(&rows));
    }
    parts.join("\n")
}

fn node_state(node: &NodeStatus) -> String {
    if !node.on {
        return "OFF".to_owned();
    }
    let mut state = vec![cable(node.cable).to_owned(), lost(node.loss)];
    if node.frozen {
        state.push("FROZEN".to_owned());
    }
    state.extend(
        node.stopped
            .iter()
            .map(|program| format!("{program} FROZEN")),
    );
    state.extend(
        node.held
            .iter()
            .map(|program| format!("{program} HELD DOWN")),
    );
    joined(state)
}

fn lost(loss: Loss) -> String {
    if loss.is_none() {
        "ok".to_owned()
    } else {
        format!("LOSES {loss}")
    }
}

fn joined(mut words: Vec<String>) -> String {
    words.retain(|word| word != "ok");
    if words.is_empty() {
        "ok".to_owned()
    } else {
        words.join(", ")
    }
}

fn cable(cable: Option<Cable>) -> &'static str {
    match cable {
        Some(Cable::Plugged) => "ok",
        Some(Cable::NoCarrier) => "CUT",
        Some(Cable::Silent) => "CUT SILENTLY",
        None => "GONE",
    }
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}  "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(&["A", "B"]), row(&["long", "x"])];
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
