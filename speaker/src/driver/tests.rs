use herald_model::{Epoch, ServiceKey, ServiceRef, Tenure};
use herald_speaker_core::{EventReason, RingCommand};

use super::*;

#[test]
fn every_address_is_announced_before_anything_is_said_of_one() {
    let interface = IfIndex(2);
    let segment = SegmentName::from("192.0.2.0/24");
    let addresses: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let group = "ff02::1:ff00:1".parse().unwrap();
    let join = Effect::JoinGroup { interface, group };
    let held = |address| herald_l2::Input::Held { interface, address };
    let claim = |vip| RingCommand::HoldChanged {
        vip,
        epoch: Epoch(7),
        rank: 1,
        tenure: Tenure::Held,
    };
    let tell = |vip| Effect::Ring {
        segment: segment.clone(),
        command: claim(vip),
    };
    let event = |address| Effect::EmitEvent {
        service: ServiceRef {
            key: ServiceKey::new("ns", "web"),
            uid: "uid".into(),
        },
        address,
        reason: EventReason::Moved,
        note: "node2 announces it".to_owned(),
    };
    let effects = addresses.map(|address| {
        [
            join.clone(),
            Effect::Layer2(held(address)),
            tell(address),
            event(address),
        ]
    });

    let sorted = Sorted::of(effects.into_iter().flatten());

    let wishes = |address| {
        [
            Wish::Layer2(held(address)),
            Wish::Ring(segment.clone(), claim(address)),
        ]
    };
    let words = |address| [Effect::Layer2(held(address)), tell(address), event(address)];
    let expected = Sorted {
        work: vec![join.clone(), join.clone()],
        wishes: addresses.map(wishes).concat(),
        words: addresses.map(words).concat(),
    };
    assert_eq!(sorted, expected);
}
