//! The holder was cut off and another has taken its address over: both hold it when the LAN is whole again.
//! How long until one is left.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::asking::Asking;
use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{CLIENT, Stage, load, rest};
use herald_e2e::capture::{Capture, Frame};
use herald_e2e::wait::{LONG, eventually};
use serde_json::{Value, json};

/// Of questions after the LAN is whole again: nobody may be heard later.
const AFTER: Duration = Duration::from_secs(3);

/// What one round has measured, since the LAN was whole again.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    old: String,
    new: String,
    load: f64,
    /// Until when the one that gave way was heard, and how often it answered.
    pub(crate) heard: Duration,
    pub(crate) answers: usize,
    /// When the one that went on announced the address anew.
    pub(crate) announced: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            old,
            new,
            load,
            heard,
            answers,
            announced,
        } = self;
        let (heard, announced) = (heard.as_millis(), announced.as_millis());
        write!(
            f,
            "{old} gives way to {new}, heard until {heard} ms, {answers} answers; announced anew after {announced} ms; load {load}"
        )
    }
}

impl Measured for Round {
    fn json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        json!({
            "from": self.old,
            "to": self.new,
            "load": self.load,
            "otherHeardUntilMs": ms(self.heard),
            "otherAnswers": self.answers,
            "announcedAnewMs": ms(self.announced),
        })
    }

    fn load(&self) -> f64 {
        self.load
    }
}

/// One round, in which all is made whole again in any case.
pub(crate) fn play(stage: Stage<'_>) -> Result<Round> {
    let name = "heal";
    stage.wait_whole()?;
    let (address, old) = stage.serve(name, json!({}))?;
    let round = measure(stage, address, &old);
    let mended = stage.mend_all();
    let removed = stage.remove(name);
    let round = round?;
    mended.and(removed).map(|()| round)
}

fn measure(stage: Stage<'_>, address: IpAddr, old: &str) -> Result<Round> {
    let (cluster, lab) = (stage.cluster, stage.lab());
    let others = cluster.nodes().into_iter().filter(|node| node != old);
    let rest_of_lan = ["gateway", CLIENT, "cp"].map(str::to_owned);
    let parts = [
        vec![old.to_owned()],
        others.chain(rest_of_lan).collect::<Vec<_>>(),
    ];
    lab.partition(&parts)?;
    let new = eventually("another node holds the address", LONG, || {
        let (node, _) = cluster.announcer(address)?;
        ensure!(node != old, "it is still {node}");
        Ok(node)
    })?;
    let metrics = cluster.speaker_metrics(old)?;
    let holds = metrics.sum("herald_speaker_announced", &[&format!("ip=\"{address}\"")]);
    ensure!(holds > 0.0, "{old}, cut off, no longer holds it");

    let load = load()?;
    let capture = Capture::start(lab, CLIENT)?;
    let asking = Asking::start(lab, address)?;
    let is_ours = |frame: &&Frame| frame.answers(address) || frame.announces(address);
    eventually("the new holder answers", LONG, || {
        let frames = capture.frames();
        ensure!(frames.iter().any(|frame| is_ours(&frame)), "nobody does");
        Ok(())
    })?;
    let healed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    lab.heal_all()?;
    rest(AFTER)?;
    drop(asking);
    let winner = lab.node(&new)?.address.mac;
    let loser = lab.node(old)?.address.mac;
    let frames = capture.frames();
    let of = |mac: &str| -> Vec<(Duration, &Frame)> {
        let its = frames.iter().filter(is_ours);
        its.filter(|frame| frame.source == mac)
            .filter_map(|frame| Some((frame.at.checked_sub(healed)?, frame)))
            .collect()
    };
    let (its, winners) = (of(&loser), of(&winner));
    let heard = its.last().map_or(Duration::ZERO, |(at, _)| *at);
    let (last, _) = winners
        .last()
        .with_context(|| format!("{new} was not heard"))?;
    ensure!(heard < *last, "{old} is still heard after {AFTER:?}");
    let (announced, _) = winners
        .iter()
        .find(|(_, frame)| frame.announces(address))
        .with_context(|| format!("{new} did not announce it anew"))?;
    Ok(Round {
        old: old.to_owned(),
        new,
        load,
        heard,
        answers: its.iter().filter(|(_, it)| it.answers(address)).count(),
        announced: *announced,
    })
}
