//! A Service in mode `pod` that our node hears of later than those that send it packets: until then its kernel
//! sent them back, and who sent them served them, or its kube-proxy took them.

use std::time::Duration;

use anyhow::Result;
use herald_dataplane::Event;
use herald_model::Instant;
use herald_speaker::io::bpf::{TestRun, clock};

use super::*;

/// For so long a Service is new.
const NEW: Duration = Duration::from_mins(2);
const SENDER: u8 = 3;

/// Pod 5 is ours, and the Service has been in mode `pod` for so long.
fn known_for(duration: Duration) -> Result<Bench> {
    let mut bench = Bench::new()?;
    let now = clock().saturating_since(Instant::ORIGIN);
    bench.now = Instant::ORIGIN + now.saturating_sub(duration);
    forward(&mut bench, to(OWN, &[(5, true)]))?;
    Ok(bench)
}

fn by(sender: u8, frame: &Frame) -> Frame {
    Frame {
        mac: [2, 0, 0, 0, 0, sender],
        ..frame.clone()
    }
}

/// Packets of open connections, as that node sends them on.
fn open_by(sender: u8) -> impl Iterator<Item = Frame> {
    let tcp = frames().into_iter().take(2);
    tcp.map(move |frame| by(sender, &later(&frame)))
}

fn goes_to_pod(bench: &mut Bench, frame: &Frame) -> Result<()> {
    goes_up(bench, &frame.bytes(), &at_pod(5, frame).bytes())
}

fn is_kube_proxys(bench: &mut Bench, frame: &Frame) -> Result<()> {
    bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::PassedToStack))
}

#[test]
fn a_connection_of_before_goes_back_to_who_sent_it_whoever_holds_the_address_then() -> Result<()> {
    let mut bench = known_for(Duration::ZERO)?;
    for frame in open_by(SENDER) {
        bench.becomes(&frame.bytes(), &handed_to(SENDER, &frame))?;
        // From the next holder, and from the client when we are that.
        for mac in [PEER_MAC, frames()[0].mac] {
            let frame = Frame {
                mac,
                ..frame.clone()
            };
            bench.becomes(&frame.bytes(), &handed_to(SENDER, &frame))?;
        }
        let error = error_about_reply(&frame, 50);
        bench.becomes(&error, &framed(SENDER, &error_about_reply(&frame, 7)))?;
        // The client begins anew: that is ours.
        let mut again = frame.clone();
        again.syn = true;
        goes_to_pod(&mut bench, &again)?;
        goes_to_pod(&mut bench, &frame)?;
    }
    assert_eq!(events(&bench, &[Event::HandedBack])?, [8]);
    Ok(())
}

#[test]
fn a_connection_of_before_that_the_sender_has_not_is_kube_proxys() -> Result<()> {
    let mut bench = known_for(Duration::ZERO)?;
    for mut frame in open_by(SENDER) {
        bench.becomes(&frame.bytes(), &handed_to(SENDER, &frame))?;
        // It comes back.
        frame.hops = 6;
        is_kube_proxys(&mut bench, &frame)?;
        frame.hops = 64;
        is_kube_proxys(&mut bench, &frame)?;
        is_kube_proxys(&mut bench, &by(2, &frame))?;
        let error = error_about_reply(&frame, 50);
        bench.leaves(&error, TestRun::NEXT, Some(Event::PassedToStack))?;
    }
    Ok(())
}

#[test]
fn after_the_sender_who_had_the_slot_before_is_asked() -> Result<()> {
    let mut bench = known_for(Duration::ZERO)?;
    forward(&mut bench, to(&[(2, 1)], &[(5, true)]))?;
    forward(&mut bench, to(&[(1, 1), (2, 0)], &[(5, true)]))?;
    for frame in open_by(SENDER) {
        bench.becomes(&frame.bytes(), &handed_to(SENDER, &frame))?;
        let mut back = frame.clone();
        back.hops = 6;
        for sender in [2, SENDER] {
            bench.becomes(&back.bytes(), &handed_to(2, &back))?;
            let frame = by(sender, &frame);
            bench.becomes(&frame.bytes(), &handed_to(2, &frame))?;
        }
        is_kube_proxys(&mut bench, &by(2, &back))?;
        is_kube_proxys(&mut bench, &frame)?;
    }
    Ok(())
}

#[test]
fn a_connection_of_before_that_a_client_sends_us_itself_is_kube_proxys() -> Result<()> {
    let mut bench = known_for(Duration::ZERO)?;
    for frame in frames().into_iter().take(2) {
        is_kube_proxys(&mut bench, &later(&frame))?;
        // Also when the Service is no longer new.
        bench.now = clock();
        forward(&mut bench, to(OWN, &[(5, true), (6, true)]))?;
        is_kube_proxys(&mut bench, &later(&frame))?;
    }
    Ok(())
}

/// A node that is asked for what it had, and whose pod is gone, says so as if it had never had it.
#[test]
fn the_owner_is_told_of_a_connection_whose_pod_is_gone() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        bench.run(&frame.bytes())?;
    }
    forward(&mut bench, to(&[(2, 1)], &[(6, true)]))?;
    for mut frame in open_by(2) {
        frame.hops = 7;
        bench.becomes(&frame.bytes(), &handed_to(2, &frame))?;
    }
    Ok(())
}

#[test]
fn a_connection_of_before_whose_node_is_gone_goes_to_a_pod_which_resets_it() -> Result<()> {
    let mut bench = known_for(Duration::ZERO)?;
    for frame in open_by(SENDER) {
        bench.run(&frame.bytes())?;
    }
    bench.desired.nodes.remove(&node(SENDER));
    bench.program()?;
    for frame in open_by(2) {
        goes_to_pod(&mut bench, &frame)?;
    }
    Ok(())
}

#[test]
fn a_service_is_new_for_two_minutes_and_not_because_the_maps_are() -> Result<()> {
    let mut bench = known_for(NEW / 4 * 3)?;
    for frame in open_by(SENDER) {
        bench.becomes(&frame.bytes(), &handed_to(SENDER, &frame))?;
    }
    let mut bench = known_for(NEW + Duration::from_secs(1))?;
    for frame in open_by(SENDER) {
        goes_to_pod(&mut bench, &frame)?;
    }
    // Maps of another layout, or after a boot: nothing tells who had a connection, so the same pod gets it.
    let mut wish = known_for(Duration::ZERO)?.desired;
    let mut bench = Bench::at(wish.clone(), clock())?;
    for frame in open_by(SENDER) {
        goes_to_pod(&mut bench, &frame)?;
    }
    // What comes later is new.
    let vips = std::mem::take(&mut wish.vips);
    let mut bench = Bench::at(wish, clock())?;
    bench.desired.vips = vips;
    bench.program()?;
    for frame in open_by(SENDER) {
        bench.becomes(&frame.bytes(), &handed_to(SENDER, &frame))?;
    }
    Ok(())
}

#[test]
fn the_owner_is_told_of_a_connection_that_we_do_not_have_either() -> Result<()> {
    let mut bench = planned(to(&[(2, 1)], &[(5, true)]))?;
    for mut frame in open_by(2) {
        frame.hops = 7;
        bench.becomes(&frame.bytes(), &handed_to(2, &frame))?;
    }
    // And of one that we have it gets nothing back.
    for frame in frames().into_iter().take(2) {
        let frame = by(2, &frame);
        goes_to_pod(&mut bench, &frame)?;
        let mut next = later(&frame);
        next.hops = 7;
        goes_to_pod(&mut bench, &next)?;
    }
    Ok(())
}
