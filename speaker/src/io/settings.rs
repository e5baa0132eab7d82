//! Settings of the node's kernel that decide whether packets pass. They are the administrator's: they are
//! read and told, and never changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use herald_model::InterfaceName;
use herald_speaker_core::{Input, KernelForwarding};
use tokio::sync::mpsc::UnboundedSender;

/// Between two looks at whether the kernel forwards.
const EVERY: Duration = Duration::from_secs(1);

/// By the name that `sysctl` knows each by; those that there are not are left out.
///
/// `rp_filter` of an interface is what counts for it: the greater of its own and that of `all`
/// (Documentation/networking/ip-sysctl.rst). What bridges hand to netfilter is told where an uplink is one.
pub(crate) fn read<'a>(
    uplinks: impl IntoIterator<Item = &'a InterfaceName>,
) -> BTreeMap<String, u8> {
    let mut found = BTreeMap::new();
    let mut note = |name: &str, value: Option<u8>| {
        found.extend(value.map(|value| (name.to_owned(), value)));
    };
    for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        note(name, sysctl(&name.replace('.', "/")));
    }
    for uplink in uplinks {
        // A VLAN interface has a dot in its name.
        let of = |interface: &str| sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"));
        let filter = of("all").max(of(uplink.as_str()));
        note(&format!("net.ipv4.conf.{uplink}.rp_filter"), filter);
        let bridge = Path::new("/sys/class/net").join(uplink.as_str());
        if bridge.join("bridge").exists() {
            for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
                let value = sysctl(&format!("net/bridge/{name}"));
                note(&format!("net.bridge.{name}"), value);
            }
        }
    }
    found
}

/// Says whether the kernel forwards, and again when that changes. Nothing tells of it when somebody writes to a
/// file of `sysctl`, so this is a poll.
pub(crate) async fn watch(inputs: UnboundedSender<Input>) {
    let mut said = None;
    loop {
        let forwards = |path| sysctl(path) != Some(0);
        let now = KernelForwarding {
            ipv4: forwards("net/ipv4/ip_forward"),
            ipv6: forwards("net/ipv6/conf/all/forwarding"),
        };
        if said != Some(now) {
            said = Some(now);
            if inputs.send(Input::KernelForwards(now)).is_err() {
                return;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn sysctl(path: &str) -> Option<u8> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    u8::from_str(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_told_and_what_there_is_not_is_left_out() {
        let settings = read([&"lo".into(), &"no-such-one".into()]);
        assert!(settings["net.ipv4.ip_forward"] <= 1);
        assert!(settings["net.ipv4.conf.lo.rp_filter"] <= 2);
        assert!(!settings.keys().any(|name| name.starts_with("net.bridge.")));
    }
}
