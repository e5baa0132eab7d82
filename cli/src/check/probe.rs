//! What has to be asked for one by one. What is refused is unknown, and no error.

use std::collections::BTreeMap;
use std::time::Duration;

use herald_api::labels;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, ListParams};

use crate::picture::Picture;

/// No answer that takes longer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where kube-proxy says whether it is well.
const KUBE_PROXY_HEALTH: u16 = 10_256;
/// Where kube-proxy says in which mode it works, if it listens there for others at all.
const KUBE_PROXY_METRICS: u16 = 10_249;
/// Where a speaker counts.
const SPEAKER: u16 = 7_471;

/// What was asked; an error is why there is no answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    /// The API server's version, such as `v1.35.4`.
    pub(crate) server: Option<String>,
    /// The controllers' Lease: who holds it, and when it was renewed, seconds since 1970.
    pub(crate) leader: Option<(String, i64)>,
    /// When each node's kubelet renewed its Lease, by its own clock, in milliseconds since 1970.
    pub(crate) heartbeats: BTreeMap<String, i64>,
    /// What each node's kube-proxy says of its health.
    pub(crate) kube_proxy: BTreeMap<String, Result<(), String>>,
    /// Kube-proxy's mode and, with ipvs, whether strict ARP is on; by the node that said so, or by the
    /// `ConfigMap` of kubeadm under "".
    pub(crate) modes: BTreeMap<String, Mode>,
    /// What each node's speaker counts.
    pub(crate) speakers: BTreeMap<String, Result<Counted, String>>,
}

/// How a kube-proxy works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) name: String,
    /// `None`: nobody says.
    pub(crate) strict_arp: Option<bool>,
}

/// What a speaker counts, as far as it is of use here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// By segment: the speakers that it takes to be up, itself included.
    pub(crate) up: BTreeMap<String, u64>,
    /// The segments on which it could not take anything over.
    pub(crate) without_quorum: Vec<String>,
    /// Settings of its kernel, by the name that `sysctl` knows each by.
    pub(crate) settings: BTreeMap<String, u64>,
}

/// Asks.
pub(crate) async fn probe(client: &Client, picture: &Picture) -> Probes {
    let namespace = picture.objects.installation.namespace.as_deref();
    let nodes: Vec<String> = picture
        .objects
        .nodes
        .iter()
        .filter_map(|node| node.metadata.name.clone())
        .collect();
    let health = nodes.iter().map(|node| async move {
        let path = format!("/api/v1/nodes/{node}:{KUBE_PROXY_HEALTH}/proxy/healthz");
        (node.clone(), get(client, &path).await.map(drop))
    });
    let modes = nodes.iter().map(|node| async move {
        let path = format!("/api/v1/nodes/{node}:{KUBE_PROXY_METRICS}/proxy/proxyMode");
        let name = get(client, &path).await.ok()?.trim().to_owned();
        let strict_arp = None;
        Some((node.clone(), Mode { name, strict_arp }))
    });
    let (server, leader, heartbeats, kube_proxy, modes, config, speakers) = futures::join!(
        patiently(client.apiserver_version()),
        leader(client, namespace),
        heartbeats(client),
        futures::future::join_all(health),
        futures::future::join_all(modes),
        config(client),
        speakers(client, namespace),
    );
    let told = modes.into_iter().flatten();
    let told = told.filter(|(_, mode)| !mode.name.is_empty());
    Probes {
        server: server.ok().map(|version| version.git_version),
        leader,
        heartbeats,
        kube_proxy: kube_proxy.into_iter().collect(),
        modes: told
            .chain(config.map(|mode| (String::new(), mode)))
            .collect(),
        speakers,
    }
}

/// Ends what takes too long.
async fn patiently<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn get(client: &Client, path: &str) -> Result<String, String> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    patiently(client.request_text(request)).await
}

async fn leader(client: &Client, namespace: Option<&str>) -> Option<(String, i64)> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace?);
    let lease = patiently(leases.get("herald-controller")).await.ok()?;
    let spec = lease.spec?;
    let renewed = spec.renew_time?.0.as_second();
    Some((spec.holder_identity.unwrap_or_default(), renewed))
}

async fn heartbeats(client: &Client) -> BTreeMap<String, i64> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let found = patiently(leases.list(&ListParams::default())).await;
    let renewed = |lease: Lease| {
        let renewed = lease.spec?.renew_time?.0.as_millisecond();
        Some((lease.metadata.name?, renewed))
    };
    found
        .map(|found| found.items.into_iter().filter_map(renewed).collect())
        .unwrap_or_default()
}

/// The mode that kubeadm configured.
async fn config(client: &Client) -> Option<Mode> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = patiently(maps.get("kube-proxy")).await.ok()?;
    mode_of(map.data?.get("config.conf")?)
}

fn mode_of(config: &str) -> Option<Mode> {
    let config: serde_json::Value = serde_saphyr::from_str(config).ok()?;
    let name = match config["mode"].as_str() {
        // What kube-proxy takes on Linux if nothing is said.
        None | Some("") => "iptables",
        Some(name) => name,
    };
    Some(Mode {
        name: name.to_owned(),
        strict_arp: config["ipvs"]["strictARP"].as_bool(),
    })
}

async fn speakers(
    client: &Client,
    namespace: Option<&str>,
) -> BTreeMap<String, Result<Counted, String>> {
    let Some(namespace) = namespace else {
        return BTreeMap::new();
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = format!("{}={}", labels::COMPONENT, labels::SPEAKER);
    let found = patiently(pods.list(&ListParams::default().labels(&selector))).await;
    let asked = found.map_or_else(|_| Vec::new(), |found| found.items);
    let asked = asked.into_iter().filter_map(|pod| {
        let node = pod.spec?.node_name?;
        Some((node, pod.metadata.name?))
    });
    let counted = asked.map(|(node, pod)| async move {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{SPEAKER}/proxy/metrics");
        let page = get(client, &path).await;
        (node, page.map(|page| counted(&page)))
    });
    futures::future::join_all(counted)
        .await
        .into_iter()
        .collect()
}

/// What of a page of metrics is of use.
fn counted(page: &str) -> Counted {
    let mut counted = Counted::default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or_default();
        if name == "herald_speaker_kernel_setting" {
            let setting = label(series, "name").zip(value.parse().ok());
            counted
                .settings
                .extend(setting.map(|(name, value)| (name.to_owned(), value)));
        }
        let Some(segment) = label(series, "segment") else {
            continue;
        };
        if name == "herald_speaker_ring_members" && label(series, "state") == Some("up") {
            let up = value.parse().unwrap_or_default();
            counted.up.insert(segment.to_owned(), up);
        } else if name == "herald_speaker_ring_quorum" && value == "0" {
            counted.without_quorum.push(segment.to_owned());
        }
    }
    counted
}

fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let (_, labels) = series.split_once('{')?;
    let mut labels = labels.trim_end_matches('}').split(',');
    labels.find_map(|label| {
        let (key, value) = label.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_speaker_counts_is_read_from_its_metrics() {
        let page = "\
# HELP herald_speaker_ring_members Speakers.
herald_speaker_ring_members{segment=\"192.0.2.0/24\",state=\"up\"} 3
herald_speaker_ring_members{segment=\"192.0.2.0/24\",state=\"node_down\"} 1
herald_speaker_ring_quorum{segment=\"192.0.2.0/24\"} 0
herald_speaker_ring_quorum{segment=\"198.51.100.0/24\"} 1
herald_speaker_ready 1
herald_speaker_kernel_setting{name=\"net.ipv4.ip_forward\"} 1
# EOF
";
        let expected = Counted {
            up: [("192.0.2.0/24".to_owned(), 3)].into(),
            without_quorum: vec!["192.0.2.0/24".to_owned()],
            settings: [("net.ipv4.ip_forward".to_owned(), 1)].into(),
        };
        assert_eq!(counted(page), expected);
    }

    #[test]
    fn the_mode_of_kube_proxy_is_read_from_its_configuration() {
        let mode = |text: &str| mode_of(text).unwrap();
        let ipvs = mode("mode: ipvs\nipvs:\n  strictARP: false\n");
        assert_eq!((ipvs.name.as_str(), ipvs.strict_arp), ("ipvs", Some(false)));
        assert_eq!(mode("mode: \"\"\n").name, "iptables");
        assert_eq!(mode("mode: nftables\n").name, "nftables");
    }
}
