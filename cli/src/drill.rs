//! A move made on purpose, and how long a client had no answer.

mod act;
mod probe;

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use herald_model::{NodeName, Phase, Protocol, SegmentName, ServiceKey};
use serde::Serialize;

use crate::answer::Answer;
use crate::args;
use crate::connect::Connection;
use crate::picture::Picture;
use crate::text::{Level, Style, count};

pub(crate) use probe::Measured;

/// So many connections are answered before anything is done.
const BEFORE: usize = 50;

/// What is to be done, and whom a client asks meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    service: ServiceKey,
    to: SocketAddr,
    segment: SegmentName,
    from: NodeName,
    act: Act,
}

/// How the address leaves its node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// The controller is asked to plan it for this node.
    Move(NodeName),
    /// The speaker that announces it crashes.
    Kill,
}

impl Plan {
    /// What is going to happen.
    fn sentence(&self) -> String {
        let Self {
            service, to, from, ..
        } = self;
        let address = to.ip();
        match &self.act {
            Act::Move(node) => {
                format!("{address} of Service {service} moves from {from} to {node}, by plan.")
            }
            Act::Kill => format!(
                "The speaker on {from}, which announces {address} of Service {service}, crashes. All addresses that it \
                 announces move to other nodes; the kubelet starts it again."
            ),
        }
    }
}

/// The answer of `drill`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drill {
    service: String,
    address: IpAddr,
    port: u16,
    segment: String,
    from: String,
    to: String,
    kill: bool,
    /// From the request until the API server showed the new node.
    moved_after_ms: u128,
    #[serde(flatten)]
    measured: Measured,
}

/// Plans a drill.
///
/// # Errors
///
/// Why there can't be one, in a sentence.
pub(crate) fn plan(
    picture: &Picture,
    key: &ServiceKey,
    asked: &args::Drill,
) -> Result<Plan, String> {
    let observed = picture
        .controller()
        .services()
        .find(|observed| observed.key == *key)
        .ok_or_else(|| format!("there is no Service {key}"))?;
    let service = observed
        .served()
        .ok_or_else(|| format!("Service {key} is none of Herald's"))?;
    let address = match asked.address {
        Some(address) if observed.ingress.contains(&address) => address,
        Some(address) => return Err(format!("Service {key} has no address {address}")),
        None => *observed
            .ingress
            .first()
            .ok_or_else(|| format!("Service {key} has no address yet"))?,
    };
    let mut ports = service.ports.iter();
    let port = ports
        .find(|port| {
            port.protocol == Protocol::Tcp && asked.port.is_none_or(|asked| asked == port.port)
        })
        .ok_or_else(|| match asked.port {
            Some(port) => format!("Service {key} has no TCP port {port}"),
            None => format!("Service {key} has no TCP port: a drill asks by TCP connections"),
        })?;
    let vip = picture
        .controller()
        .vips()
        .find(|vip| vip.vip.address == address)
        .filter(|vip| vip.vip.phase == Phase::Active)
        .ok_or_else(|| format!("{address} is not announced yet"))?;
    let holding = vip
        .holdings
        .iter()
        .find(|holding| {
            asked
                .segment
                .as_ref()
                .is_none_or(|name| holding.segment.as_str() == name)
        })
        .ok_or_else(|| match &asked.segment {
            Some(name) => format!("nobody announces {address} on segment {name}"),
            None => format!("nobody announces {address}"),
        })?;
    let planned = vip.vip.segments.iter();
    let mut planned = planned.filter(|segment| segment.name == holding.segment);
    let candidates = planned
        .next()
        .map_or(&[][..], |segment| &segment.candidates);
    let act = if asked.kill {
        if !candidates.iter().any(|it| it.node != holding.node) {
            return Err(format!(
                "no other node than {} may announce {address}",
                holding.node
            ));
        }
        Act::Kill
    } else {
        let next = || {
            let mut others = candidates.iter().filter(|it| it.node != holding.node);
            others.next().map(|it| it.node.clone())
        };
        let to = asked.to.as_deref().map(NodeName::from).or_else(next);
        let to = to
            .ok_or_else(|| format!("no other node than {} may announce {address}", holding.node))?;
        if to == holding.node {
            return Err(format!("{to} announces {address} already"));
        }
        if picture.speaker(to.as_str()).is_none() {
            return Err(format!("there is no speaker on {to}"));
        }
        Act::Move(to)
    };
    Ok(Plan {
        service: key.clone(),
        to: SocketAddr::new(address, port.port),
        segment: holding.segment.clone(),
        from: holding.node.clone(),
        act,
    })
}

/// Asks before anything happens. What it says goes to the standard error output: the other one is for the
/// answer.
fn ask_first(plan: &Plan, interval: Duration) -> Result<()> {
    let mut err = io::stderr().lock();
    writeln!(
        err,
        "{}\nMeanwhile a connection is made to {} each {} ms, from here.",
        plan.sentence(),
        plan.to,
        interval.as_millis()
    )?;
    if !io::stdin().is_terminal() {
        bail!("nobody is there to say yes: use --yes");
    }
    write!(err, "Go on? [y/N] ")?;
    err.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    if !["y", "yes"].contains(&said.trim().to_lowercase().as_str()) {
        bail!("nothing was done");
    }
    Ok(())
}

/// Makes the move and measures.
///
/// # Errors
///
/// If the address is not answered to begin with, or does not move.
pub(crate) async fn drill(
    connection: &Connection,
    plan: &Plan,
    asked: &args::Drill,
) -> Result<Drill> {
    if !asked.yes {
        ask_first(plan, asked.interval)?;
    }
    let probe = probe::Probe::start(plan.to, asked.interval);
    probe
        .until_answered(BEFORE)
        .await
        .with_context(|| format!("nothing was done: {} does not answer from here", plan.to))?;
    let (to, moved_after) = act::carry_out(&connection.client, plan, asked.timeout).await?;
    tokio::time::sleep(asked.after).await;
    let measured = probe.finish().await;
    Ok(Drill {
        service: plan.service.to_string(),
        address: plan.to.ip(),
        port: plan.to.port(),
        segment: plan.segment.to_string(),
        from: plan.from.to_string(),
        to: to.to_string(),
        kill: plan.act == Act::Kill,
        moved_after_ms: moved_after.as_millis(),
        measured,
    })
}

impl Answer for Drill {
    fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let Measured {
            connections,
            failed,
            outage_ms,
            slowest_ms,
            ..
        } = &self.measured;
        let how = if self.kill {
            "after its speaker had crashed"
        } else {
            "by plan"
        };
        // Writing to a String cannot fail.
        writeln!(
            out,
            "{} moved from {} to {} {how}; the API server showed it after {} ms.",
            self.address, self.from, self.to, self.moved_after_ms
        )
        .ok();
        let level = if *failed == 0 {
            Level::Ok
        } else {
            Level::Warning
        };
        let fate = if *failed == 0 {
            format!("none failed, the slowest took {slowest_ms} ms")
        } else {
            format!("{failed} failed: no answer for {outage_ms} ms")
        };
        writeln!(
            out,
            "{} {} to port {}: {fate}",
            style.mark(level),
            count(*connections, "connection"),
            self.port
        )
        .ok();
        out
    }

    fn is_well(&self) -> bool {
        self.measured.failed == 0
    }
}

#[cfg(test)]
mod tests;
