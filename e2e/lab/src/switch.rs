//! What the LAN's switch drops: frames between the parts of a partition, and by chance on lossy links.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lan::LAN;
use crate::layout::{Layout, write};
use crate::process::{command, run_with};

/// The bridge itself, which answers as the LAN's gateway.
pub(crate) const GATEWAY: &str = "gateway";
const TABLE: &str = "herald-lab";

/// A share of frames that are lost, in steps of a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Loss {
    per_10_000: u16,
}

impl Loss {
    /// A whole number of percent; more than 100 is 100.
    pub fn percent(percent: u8) -> Self {
        Self {
            per_10_000: u16::from(percent.min(100)) * 100,
        }
    }

    /// Whether nothing is lost.
    pub fn is_none(self) -> bool {
        self.per_10_000 == 0
    }
}

impl From<Loss> for f64 {
    /// In percent.
    fn from(loss: Loss) -> Self {
        Self::from(loss.per_10_000) / 100.0
    }
}

impl TryFrom<f64> for Loss {
    type Error = Error;

    fn try_from(percent: f64) -> Result<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::InvalidOption(format!(
                "loss of {percent} %: not 0 to 100"
            )));
        }
        // The check above is what makes it fit.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 10,000"
        )]
        let per_10_000 = (percent * 100.0).round() as u16;
        Ok(Self { per_10_000 })
    }
}

impl FromStr for Loss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim_end_matches('%').trim_end().parse::<f64>() {
            Ok(percent) => percent.try_into(),
            Err(_) => Err(Error::InvalidOption(format!(
                "loss {text:?}: not a number of percent"
            ))),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(*self))
    }
}

/// All that is dropped; kept in the lab's folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Drops {
    /// Nothing passes between two of these. A place in none of them sees all.
    pub(crate) partition: Vec<Vec<String>>,
    /// By place, each way for itself.
    pub(crate) loss: BTreeMap<String, Loss>,
}

impl Drops {
    pub(crate) fn load(layout: &Layout) -> Result<Self> {
        let path = layout.path("lan.json");
        match fs::read(&path) {
            Ok(json) => {
                let from = path.display().to_string();
                serde_json::from_slice(&json).map_err(Error::json(&from))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Has the switch drop this, and nothing else.
    pub(crate) fn put_in_force(&self, layout: &Layout) -> Result<()> {
        let net = format!("--net=/run/netns/{}", layout.netns(LAN));
        let nft = &mut command("nsenter", [&net, "--", "nft", "-f", "-"]);
        run_with(nft, &self.ruleset())?;
        let path = layout.path("lan.json");
        let json = serde_json::to_vec_pretty(self).map_err(Error::json("what is dropped"))?;
        write(&path, json)
    }

    /// Takes a place out of what is dropped.
    pub(crate) fn forget(&mut self, place: &str) {
        self.loss.remove(place);
        for group in &mut self.partition {
            group.retain(|member| member != place);
        }
        self.partition.retain(|group| !group.is_empty());
        // One part has nothing to be parted from.
        if self.partition.len() < 2 {
            self.partition.clear();
        }
    }

    /// In one transaction: what was before goes, what is to be comes.
    fn ruleset(&self) -> String {
        let mut rules = format!("table bridge {TABLE}\ndelete table bridge {TABLE}\n");
        if *self == Self::default() {
            return rules;
        }
        let lossy = |end: &str| -> Vec<String> {
            let rule = |(place, loss): (&String, &Loss)| {
                let share = loss.per_10_000;
                format!("{end} \"{place}\" numgen random mod 10000 < {share} drop")
            };
            self.loss.iter().map(rule).collect()
        };
        let (mut forward, mut input, mut output) = (Vec::new(), Vec::new(), Vec::new());
        for (index, group) in self.partition.iter().enumerate() {
            let others = self.partition.iter().enumerate();
            let others = others.filter(|(other, _)| *other != index);
            let Some(others) = ports(others.flat_map(|(_, group)| group)) else {
                continue;
            };
            if let Some(own) = ports(group) {
                forward.push(format!("iifname {own} oifname {others} drop"));
            }
            if group.iter().any(|member| member == GATEWAY) {
                input.push(format!("iifname {others} drop"));
                output.push(format!("oifname {others} drop"));
            }
        }
        rules.extend(["table bridge ", TABLE, " {\n"]);
        for (name, lines) in [
            ("prerouting", lossy("iifname")),
            ("postrouting", lossy("oifname")),
            ("forward", forward),
            ("input", input),
            ("output", output),
        ] {
            if lines.is_empty() {
                continue;
            }
            rules.extend(["  chain ", name, " {\n"]);
            rules.extend(["    type filter hook ", name, " priority 0\n"]);
            for line in &lines {
                rules.extend(["    ", line, "\n"]);
            }
            rules += "  }\n";
        }
        rules + "}\n"
    }
}

/// Ports of the bridge as a set; `None` without any.
fn ports<'a>(places: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let ports: Vec<_> = places
        .into_iter()
        .filter(|place| *place != GATEWAY)
        .map(|place| format!("\"{place}\""))
        .collect();
    (!ports.is_empty()).then(|| format!("{{ {} }}", ports.join(", ")))
}

/// That these are parts of a LAN with such places: two at least, none empty, no place in two.
pub(crate) fn check_partition(groups: &[Vec<String>], places: &[String]) -> Result<()> {
    let wrong = |text: &str| Err(Error::InvalidOption(format!("partition: {text}")));
    if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
        return wrong("two parts at least, each with a place");
    }
    let mut seen = BTreeSet::new();
    for place in groups.iter().flatten() {
        if place != GATEWAY && !places.contains(place) {
            return Err(Error::NoSuchPlace {
                name: place.clone(),
                known: [places, &[GATEWAY.to_owned()]].concat().join(", "),
            });
        }
        if !seen.insert(place) {
            return wrong(&format!("{place} is in it twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<Vec<String>> {
        let group = |group: &str| group.split(',').map(str::to_owned).collect();
        text.split('/').map(group).collect()
    }

    #[test]
    fn loss_is_read_in_percent_and_shown_in_percent() {
        for (text, shown) in [
            ("5", "5 %"),
            ("2.5%", "2.5 %"),
            ("0.01", "0.01 %"),
            ("100 %", "100 %"),
        ] {
            assert_eq!(text.parse::<Loss>().expect(text).to_string(), shown);
        }
        for text in ["-1", "101", "NaN", "much", ""] {
            text.parse::<Loss>().expect_err(text);
        }
        assert_eq!(Loss::percent(30), "30".parse().expect("30"));
    }

    #[test]
    fn each_way_of_a_lossy_link_has_a_rule_of_its_own() {
        let mut drops = Drops::default();
        drops.loss.insert("node1".to_owned(), Loss::percent(30));
        assert_eq!(
            drops.ruleset(),
            "table bridge herald-lab\n\
             delete table bridge herald-lab\n\
             table bridge herald-lab {\n  \
               chain prerouting {\n    \
                 type filter hook prerouting priority 0\n    \
                 iifname \"node1\" numgen random mod 10000 < 3000 drop\n  \
               }\n  \
               chain postrouting {\n    \
                 type filter hook postrouting priority 0\n    \
                 oifname \"node1\" numgen random mod 10000 < 3000 drop\n  \
               }\n\
             }\n"
        );
    }

    #[test]
    fn nothing_passes_between_parts_and_the_gateway_is_in_one_of_them() {
        let drops = Drops {
            partition: groups("node1,gateway/node2,node3"),
            ..Drops::default()
        };
        let rules = drops.ruleset();
        for rule in [
            "iifname { \"node1\" } oifname { \"node2\", \"node3\" } drop",
            "iifname { \"node2\", \"node3\" } oifname { \"node1\" } drop",
            "input priority 0\n    iifname { \"node2\", \"node3\" } drop",
            "output priority 0\n    oifname { \"node2\", \"node3\" } drop",
        ] {
            assert!(rules.contains(rule), "{rule} is not in {rules}");
        }
    }

    #[test]
    fn what_drops_nothing_leaves_no_table() {
        let mut drops = Drops {
            partition: groups("node1/node2,node3"),
            loss: [("node1".to_owned(), Loss::percent(1))].into(),
        };
        drops.forget("node1");
        assert_eq!(drops, Drops::default());
        assert!(
            drops
                .ruleset()
                .ends_with("delete table bridge herald-lab\n")
        );
    }

    #[test]
    fn a_partition_has_two_parts_of_places_there_are_each_once() {
        let places = ["cp", "node1", "node2"].map(str::to_owned);
        let refusal = |text| check_partition(&groups(text), &places).map_err(|it| it.to_string());
        assert_eq!(refusal("node1,cp/node2"), Ok(()));
        assert_eq!(refusal("node1/node2/gateway"), Ok(()));
        for (text, expected) in [
            ("node1", "partition: two parts at least, each with a place"),
            ("node1/node2,node1", "partition: node1 is in it twice"),
            (
                "node1/x",
                "no place named \"x\" in this lab; there are cp, node1, node2, gateway",
            ),
        ] {
            assert_eq!(refusal(text), Err(expected.to_owned()));
        }
    }
}
