use proptest::prelude::*;

use super::*;

const ETH0: IfIndex = IfIndex(2);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs from deadline to deadline and returns (milliseconds, address) of every announcement.
fn run(announcer: &mut Announcer, until: Instant) -> Vec<(u64, IpAddr)> {
    let mut said = Vec::new();
    while let Some(due) = announcer.next_deadline()
        && due <= until
    {
        let before = said.len();
        announcer.on_deadline(due, |_, address| {
            said.push((due.as_nanos() / 1_000_000, address));
        });
        assert!(
            said.len() > before || announcer.next_deadline() > Some(due),
            "a deadline that leads to nothing would spin"
        );
    }
    said
}

fn times(said: &[(u64, IpAddr)]) -> Vec<u64> {
    said.iter().map(|(millis, _)| *millis).collect()
}

#[test]
fn ipv4_is_announced_at_once_and_six_times_more() {
    let mut announcer = Announcer::new(Pace::default());
    announcer.hold(at(500), ETH0, ip("192.0.2.10"));
    let said = run(&mut announcer, at(30_000));
    assert_eq!(times(&said), [500, 510, 550, 700, 1_500, 2_500, 4_500]);
}

#[test]
fn ipv6_repeats_are_a_second_apart() {
    let mut announcer = Announcer::new(Pace::default());
    announcer.hold(at(500), ETH0, ip("2001:db8::10"));
    let said = run(&mut announcer, at(30_000));
    assert_eq!(times(&said), [500, 1_500, 2_500, 4_500]);
}

#[test]
fn steady_state_announces_one_address_a_minute_in_turn() {
    let mut announcer = Announcer::new(Pace::default());
    let addresses = [ip("192.0.2.10"), ip("192.0.2.11"), ip("2001:db8::10")];
    for address in addresses {
        announcer.hold(at(0), ETH0, address);
    }
    run(&mut announcer, at(30_000));
    assert_eq!(
        run(&mut announcer, at(250_000)),
        [
            (60_000, addresses[0]),
            (120_000, addresses[1]),
            (180_000, addresses[2]),
            (240_000, addresses[0]),
        ]
    );
}

#[test]
fn released_address_is_never_announced_again() {
    let mut announcer = Announcer::new(Pace::default());
    announcer.hold(at(0), ETH0, ip("192.0.2.10"));
    assert_eq!(times(&run(&mut announcer, at(20))), [0, 10]);
    announcer.release(ETH0, ip("192.0.2.10"));
    assert_eq!(announcer.next_deadline(), None);
    assert_eq!(run(&mut announcer, at(600_000)), []);
}

#[test]
fn holding_twice_announces_once() {
    let mut announcer = Announcer::new(Pace::default());
    announcer.hold(at(0), ETH0, ip("192.0.2.10"));
    run(&mut announcer, at(300));
    announcer.hold(at(300), ETH0, ip("192.0.2.10"));
    assert_eq!(
        times(&run(&mut announcer, at(10_000))),
        [1_000, 2_000, 4_000]
    );
}

#[test]
fn restarted_interface_begins_anew() {
    let mut announcer = Announcer::new(Pace::default());
    announcer.hold(at(0), ETH0, ip("192.0.2.10"));
    run(&mut announcer, at(30_000));
    announcer.restart(at(31_000), ETH0);
    assert_eq!(
        times(&run(&mut announcer, at(36_000))),
        [31_000, 31_010, 31_050, 31_200, 32_000, 33_000, 35_000]
    );
}

#[test]
fn first_announcements_go_before_repeats_when_the_pace_is_exceeded() {
    let mut announcer = Announcer::new(Pace {
        burst_frames: 4,
        frames_per_second: 10,
    });
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(ip);
    for address in addresses {
        announcer.hold(at(1_000), ETH0, address);
    }
    let said = run(&mut announcer, at(2_000));
    assert_eq!(
        said[..4],
        [
            (1_000, addresses[0]),
            (1_000, addresses[1]),
            (1_200, addresses[2]),
            (1_400, addresses[3]),
        ]
    );
    assert_eq!(said[4], (1_600, addresses[0]), "then the late repeats");
}

#[test]
fn interfaces_do_not_share_a_pace() {
    let mut announcer = Announcer::new(Pace {
        burst_frames: 2,
        frames_per_second: 1,
    });
    announcer.hold(at(0), ETH0, ip("192.0.2.1"));
    announcer.hold(at(0), IfIndex(3), ip("192.0.2.1"));
    assert_eq!(times(&run(&mut announcer, at(1))), [0, 0]);
}

#[test]
fn early_call_is_without_effect() {
    let mut announcer = Announcer::new(Pace::default());
    announcer.hold(at(100), ETH0, ip("192.0.2.1"));
    run(&mut announcer, at(100));
    announcer.on_deadline(at(105), |_, address| {
        panic!("{address} was announced early")
    });
}

proptest! {
    #[test]
    fn pace_is_never_exceeded_and_everything_held_is_announced(
        steps in proptest::collection::vec((0..2_000u64, 0..40u8, any::<bool>()), 1..60),
        burst in 2..20u32,
        rate in 1..50u32,
    ) {
        let pace = Pace { burst_frames: burst, frames_per_second: rate };
        let mut announcer = Announcer::new(pace);
        let mut now = 0;
        let mut held = BTreeSet::new();
        let mut said = Vec::new();
        for (wait, last, hold) in steps {
            now += wait;
            said.extend(run(&mut announcer, at(now)));
            let address = IpAddr::from([192, 0, 2, last]);
            if hold {
                announcer.hold(at(now), ETH0, address);
                held.insert(address);
            } else {
                announcer.release(ETH0, address);
                held.remove(&address);
            }
        }
        said.extend(run(&mut announcer, at(now + 200_000)));
        for address in held {
            prop_assert!(said.iter().any(|(_, said)| *said == address));
        }
        for (position, (from, _)) in said.iter().enumerate() {
            let within = said[position..].iter().filter(|(to, _)| to - from < 1_000).count();
            let allowed = burst.max(2) + rate + 2;
            prop_assert!(within * 2 <= allowed as usize, "{within} announcements in a second");
        }
    }
}
