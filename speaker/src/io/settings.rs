//! Settings of the node's kernel that decide whether packets pass. They are the administrator's: they are
//! read and told, and never changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use herald_model::InterfaceName;

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
