use std::net::{Ipv4Addr, Ipv6Addr};

use herald_wire::{Arp, NeighbourAdvertisement, NeighbourSolicitation};

use super::*;

const ETH0: IfIndex = IfIndex(2);
const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xc1]);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn port(mac: MacAddress) -> Port {
    Port {
        index: ETH0,
        mac,
        source: Some(LINK_LOCAL),
    }
}

fn held(address: impl Into<IpAddr>) -> Input {
    Input::Held {
        interface: ETH0,
        address: address.into(),
    }
}

fn send(frame: Frame) -> Effect {
    Effect::SendFrame {
        interface: ETH0,
        frame,
    }
}

fn ipv4_announcement(mac: MacAddress) -> [Effect; 2] {
    [
        send(Arp::announcement_request(mac, VIP).emit()),
        send(Arp::announcement_reply(mac, VIP).emit()),
    ]
}

struct Story {
    machine: Layer2,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self {
            machine: Layer2::new(Pace::default(), Pace::QUESTIONS),
        };
        assert_eq!(story.at(0, Input::PortSet(port(NODE))), []);
        story
    }

    fn at(&mut self, millis: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.machine.handle(at(millis), input, &mut out);
        out
    }

    fn wait(&mut self, until_millis: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        while let Some(due) = self.machine.next_deadline()
            && due <= at(until_millis)
        {
            self.machine.on_deadline(due, &mut out);
        }
        out
    }
}

#[test]
fn taking_over_announces_both_forms_at_once_and_repeats() {
    let mut story = Story::begin();
    assert_eq!(story.at(1_000, held(VIP)), ipv4_announcement(NODE));
    let said = story.wait(20_000);
    assert_eq!(said.len(), 12);
    assert_eq!(said[..2], ipv4_announcement(NODE));
    let counts = story.machine.counts()[&(ETH0, VIP.into())];
    assert_eq!(counts.gratuitous, 14);
}

#[test]
fn ipv6_is_announced_to_all_nodes() {
    let mut story = Story::begin();
    let expected = send(NeighbourAdvertisement::unsolicited(VIP6, NODE, LINK_LOCAL).emit());
    assert_eq!(story.at(1_000, held(VIP6)), [expected]);
    assert_eq!(story.wait(20_000), vec![expected; 3]);
}

#[test]
fn changed_mac_is_announced_and_answered_with() {
    let mut story = Story::begin();
    let other = MacAddress([2, 0, 0, 0, 0, 2]);
    story.at(0, held(VIP));
    story.wait(20_000);
    assert_eq!(
        story.at(30_000, Input::PortSet(port(other))),
        ipv4_announcement(other)
    );
    let request = Arp::request(CLIENT, Ipv4Addr::new(192, 0, 2, 100), VIP);
    let mut out = Vec::new();
    story
        .machine
        .frame_received(ETH0, request.emit().as_bytes(), &mut out);
    assert_eq!(out, [send(Arp::reply_to(&request, other).emit())]);
}

#[test]
fn address_that_is_held_again_is_announced_anew() {
    let mut story = Story::begin();
    story.at(0, held(VIP));
    story.wait(20_000);
    let release = Input::Released {
        interface: ETH0,
        address: VIP.into(),
    };
    story.at(30_000, release);
    assert_eq!(story.at(31_000, held(VIP)), ipv4_announcement(NODE));
}

#[test]
fn release_falls_silent_at_once() {
    let mut story = Story::begin();
    story.at(0, held(VIP));
    let release = Input::Released {
        interface: ETH0,
        address: VIP.into(),
    };
    assert_eq!(story.at(5, release), []);
    assert_eq!(story.wait(600_000), []);
    let request = Arp::request(CLIENT, Ipv4Addr::new(192, 0, 2, 100), VIP).emit();
    let mut out = Vec::new();
    story
        .machine
        .frame_received(ETH0, request.as_bytes(), &mut out);
    assert_eq!(out, []);
}

#[test]
fn of_several_that_are_released_together_none_is_announced_once_more() {
    let mut story = Story::begin();
    story.at(0, held(VIP));
    story.at(0, held(VIP6));
    // As after a freeze: both are due to be announced again.
    let all = [IpAddr::from(VIP), VIP6.into()];
    story.machine.release_all(ETH0, all);
    let mut out = Vec::new();
    story.machine.on_deadline(at(60_000), &mut out);
    assert_eq!(out, []);
    assert_eq!(story.machine.counts().len(), 0);
}

#[test]
fn nothing_is_held_on_an_interface_that_is_unknown_or_gone() {
    let mut story = Story::begin();
    assert_eq!(
        story.at(
            0,
            Input::Held {
                interface: IfIndex(7),
                address: VIP.into()
            }
        ),
        []
    );
    story.at(0, held(VIP));
    story.at(1, Input::PortRemoved(ETH0));
    assert_eq!(story.wait(600_000), []);
    assert!(story.machine.counts().is_empty());
}

#[test]
fn claim_of_a_stranger_is_reported() {
    let mut story = Story::begin();
    story.at(0, held(VIP));
    let mut out = Vec::new();
    story.machine.frame_received(
        ETH0,
        Arp::announcement_request(CLIENT, VIP).emit().as_bytes(),
        &mut out,
    );
    assert_eq!(
        out,
        [Effect::ReportForeignClaim {
            interface: ETH0,
            address: VIP.into(),
            mac: CLIENT
        }]
    );
}

#[test]
fn challenged_address_is_defended_once_in_ten_seconds() {
    let mut story = Story::begin();
    let challenged = Input::Challenged {
        interface: ETH0,
        address: VIP.into(),
    };
    assert_eq!(story.at(0, challenged), [], "not held");
    story.at(0, held(VIP));
    story.wait(20_000);
    assert_eq!(story.at(30_000, challenged), ipv4_announcement(NODE));
    assert_eq!(story.at(39_999, challenged), []);
    assert_eq!(story.at(40_000, challenged), ipv4_announcement(NODE));
}

#[test]
fn a_thousand_addresses_that_move_repeat_and_are_defended_at_once_never_exceed_the_pace() {
    const RATE: usize = 100;
    for burst in [2, 200, 2_000] {
        let pace = Pace {
            burst_frames: burst,
            frames_per_second: u32::try_from(RATE).unwrap(),
        };
        let mut story = Story {
            machine: Layer2::new(pace, Pace::QUESTIONS),
        };
        story.at(0, Input::PortSet(port(NODE)));
        let mut sent: Vec<u64> = Vec::new();
        let mut note = |millis: u64, effects: &[Effect]| {
            sent.extend(effects.iter().map(|_frame| millis));
        };
        let addresses: Vec<IpAddr> = (0..500_u32)
            .flat_map(|number| {
                let low = u128::from(number);
                [
                    Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
                    Ipv6Addr::from_bits((0xfd00 << 112) + low).into(),
                ]
            })
            .collect();
        for address in &addresses {
            note(1_000, &story.at(1_000, held(*address)));
        }
        for second in 1..40 {
            for address in &addresses {
                let challenged = Input::Challenged {
                    interface: ETH0,
                    address: *address,
                };
                note(second * 1_000, &story.at(second * 1_000, challenged));
            }
            if second == 20 {
                note(20_500, &story.at(20_500, Input::PortSet(port(CLIENT))));
            }
            while let Some(due) = story.machine.next_deadline()
                && due < at(second * 1_000 + 1_000)
            {
                let millis = due.as_nanos() / 1_000_000;
                let mut out = Vec::new();
                story.machine.on_deadline(due, &mut out);
                note(millis, &out);
            }
        }
        let burst = usize::try_from(burst).unwrap();
        assert!(sent.len() >= burst + 38 * RATE, "{} frames", sent.len());
        // In any time, no more than the burst and what the rate allows.
        for (place, from) in sent.iter().enumerate() {
            for seconds in [1, 5, 20_u64] {
                let until = from + seconds * 1_000;
                let within = sent.partition_point(|at| *at < until) - place;
                let allowed = burst + RATE * usize::try_from(seconds).unwrap() + 1;
                assert!(
                    within <= allowed,
                    "{within} frames in {seconds} s, burst {burst}"
                );
            }
        }
    }
}

#[test]
fn defence_waits_for_the_pace_and_goes_before_repeats() {
    let pace = Pace {
        burst_frames: 2,
        frames_per_second: 1,
    };
    let mut story = Story {
        machine: Layer2::new(pace, Pace::QUESTIONS),
    };
    story.at(0, Input::PortSet(port(NODE)));
    assert_eq!(story.at(60_000, held(VIP)), ipv4_announcement(NODE));
    let challenged = Input::Challenged {
        interface: ETH0,
        address: VIP.into(),
    };
    assert_eq!(story.at(60_100, challenged), [], "the bucket is empty");
    assert_eq!(story.wait(62_000), ipv4_announcement(NODE));
}

fn probed(address: impl Into<IpAddr>, user: Option<MacAddress>) -> Effect {
    Effect::ReportProbed {
        interface: ETH0,
        address: address.into(),
        user,
    }
}

fn probe(address: impl Into<IpAddr>) -> Input {
    Input::Probe {
        interface: ETH0,
        address: address.into(),
    }
}

#[test]
fn address_nobody_answers_for_is_reported_silent_after_three_questions() {
    let mut story = Story::begin();
    let question = send(Arp::request(NODE, Ipv4Addr::UNSPECIFIED, VIP).emit());
    assert_eq!(story.at(1_000, probe(VIP)), [question]);
    assert_eq!(story.at(1_050, probe(VIP)), [], "asked already");
    assert_eq!(story.wait(1_299), [question, question]);
    assert_eq!(story.wait(1_300), [probed(VIP, None)]);
    assert_eq!(story.machine.next_deadline(), None);

    let question = send(NeighbourSolicitation::probe(NODE, VIP6).emit());
    assert_eq!(story.at(2_000, probe(VIP6)), [question]);
    assert_eq!(story.wait(9_000), [question, question, probed(VIP6, None)]);
}

#[test]
fn address_somebody_uses_is_reported_at_once_and_asked_for_no_more() {
    let answer = |mac| {
        let question = Arp::request(NODE, Ipv4Addr::UNSPECIFIED, VIP);
        Arp::reply_to(&question, mac).emit()
    };
    let rival = Arp::request(CLIENT, Ipv4Addr::UNSPECIFIED, VIP).emit();
    let use_of_v6 = NeighbourAdvertisement::unsolicited(VIP6, CLIENT, VIP6).emit();
    for (address, frame) in [
        (IpAddr::from(VIP), answer(CLIENT)),
        (VIP.into(), rival),
        (VIP6.into(), use_of_v6),
    ] {
        let mut story = Story::begin();
        story.at(1_000, probe(address));
        let mut out = Vec::new();
        let own = answer(NODE);
        story.machine.frame_received(ETH0, own.as_bytes(), &mut out);
        assert_eq!(out, [], "our own frame");
        story
            .machine
            .frame_received(ETH0, frame.as_bytes(), &mut out);
        assert_eq!(out, [probed(address, Some(CLIENT))]);
        assert_eq!(story.wait(9_000), []);
    }
}
