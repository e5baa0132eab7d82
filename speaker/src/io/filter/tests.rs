use super::*;

/// Runs a program as the kernel would; `packet_type` is what `SKF_AD_PKTTYPE` gives.
fn keeps(program: &[Instruction], packet_type: u32, frame: &[u8]) -> bool {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction {
            code,
            if_true,
            if_false,
            operand,
        } = program[at];
        let bytes = |length: usize| {
            let from = usize::try_from(operand).unwrap();
            frame.get(from..from + length).map(|bytes| {
                bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
            })
        };
        at += 1;
        let holds = match code {
            LOAD_WORD if operand == PACKET_TYPE => {
                accumulator = packet_type;
                continue;
            }
            LOAD_WORD | LOAD_HALF | LOAD_BYTE => {
                let length = match code {
                    LOAD_WORD => 4,
                    LOAD_HALF => 2,
                    _byte => 1,
                };
                // A load beyond the end drops the frame.
                match bytes(length) {
                    Some(value) => accumulator = value,
                    None => return false,
                }
                continue;
            }
            JUMP_EQUAL => accumulator == operand,
            JUMP_GREATER => accumulator > operand,
            JUMP_GREATER_EQUAL => accumulator >= operand,
            RETURN => return operand != 0,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if holds { if_true } else { if_false });
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn arp_frame(sender: u8, target: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 9, 192, 0, 2, sender]);
    frame.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, target]);
    frame
}

fn neighbour_frame(kind: u8, target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else {
        panic!("{target}");
    };
    let mut frame = vec![0x33; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
    frame.extend([0; 32]);
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target.octets());
    frame
}

#[test]
fn without_addresses_nothing_is_kept() {
    assert!(!keeps(&arp_program(&[], &[]), 1, &arp_frame(100, 10)));
    let frame = neighbour_frame(135, ip("2001:db8::10"));
    assert!(!keeps(&neighbour_program(&[], &[]), 2, &frame));
}

#[test]
fn arp_is_kept_if_target_or_sender_is_held() {
    let program = arp_program(&[v4(10), ip("2001:db8::10"), v4(12)], &[]);
    for (sender, target, expected) in [
        (100, 10, true),
        (100, 12, true),
        (100, 11, false),
        (10, 100, true),
        (11, 100, false),
    ] {
        let frame = arp_frame(sender, target);
        assert_eq!(keeps(&program, 1, &frame), expected, "{sender} {target}");
        assert!(!keeps(&program, OTHER_HOST, &frame), "for another host");
        assert!(!keeps(&program, 1, &frame[..41]), "truncated");
    }
    let mut other = arp_frame(100, 10);
    other[17] = 6;
    assert!(!keeps(&program, 1, &other), "not IPv4");
}

#[test]
fn many_addresses_are_kept_as_a_range() {
    let addresses: Vec<IpAddr> = (20..=220).map(v4).collect();
    let program = arp_program(&addresses, &[]);
    assert!(program.len() < 64);
    for (target, expected) in [
        (19, false),
        (20, true),
        (100, true),
        (220, true),
        (221, false),
    ] {
        assert_eq!(
            keeps(&program, 1, &arp_frame(1, target)),
            expected,
            "{target}"
        );
        assert_eq!(
            keeps(&program, 1, &arp_frame(target, 1)),
            expected,
            "{target}"
        );
    }
}

#[test]
fn as_many_single_addresses_as_there_may_be_fit_a_jump() {
    let held: Vec<IpAddr> = (1..=75).map(v4).collect();
    let asked: Vec<IpAddr> = (101..=175).map(v4).collect();
    let program = arp_program(&held, &asked);
    for target in [1, 50, 75] {
        assert!(keeps(&program, 1, &arp_frame(200, target)));
        assert!(keeps(&program, 1, &arp_frame(target, 200)));
    }
    assert!(!keeps(&program, 1, &arp_frame(200, 76)));
    for sender in [101, 150, 175] {
        assert!(keeps(&program, 0, &arp_reply(sender, 200)));
    }
    assert!(!keeps(&program, 0, &arp_reply(176, 200)));
    let last = |range: std::ops::RangeInclusive<u8>| -> Vec<IpAddr> {
        range
            .map(|last| ip(&format!("2001:db8::{last:x}")))
            .collect()
    };
    neighbour_program(&last(1..=75), &last(101..=175));
}

fn arp_reply(sender: u8, target: u8) -> Vec<u8> {
    let mut frame = arp_frame(sender, target);
    frame[21] = 2;
    frame
}

#[test]
fn of_those_asked_only_answers_are_kept() {
    let program = arp_program(&[v4(10)], &[v4(1), v4(2)]);
    assert!(keeps(&program, 0, &arp_reply(1, 3)));
    assert!(keeps(&program, 0, &arp_reply(2, 3)));
    assert!(!keeps(&program, 0, &arp_reply(4, 3)), "was not asked");
    assert!(!keeps(&program, 1, &arp_frame(1, 3)), "asks itself");
    assert!(!keeps(&program, 1, &arp_frame(3, 1)), "is asked");
    assert!(keeps(&program, 1, &arp_frame(1, 10)), "asks for one held");
    let none_held = arp_program(&[], &[v4(1)]);
    assert!(keeps(&none_held, 0, &arp_reply(1, 3)));

    let member = ip("2001:db8::1");
    let program = neighbour_program(&[ip("2001:db8::10")], &[member]);
    assert!(keeps(&program, 0, &neighbour_frame(136, member)));
    assert!(!keeps(&program, 2, &neighbour_frame(135, member)));
    let other = neighbour_frame(136, ip("2001:db8::2"));
    assert!(!keeps(&program, 0, &other));
}

#[test]
fn neighbour_messages_are_kept_by_the_end_of_their_target() {
    let program = neighbour_program(&[v4(10), ip("2001:db8::10")], &[]);
    for (kind, target, expected) in [
        (135, "2001:db8::10", true),
        (136, "2001:db8::10", true),
        (134, "2001:db8::10", false),
        (137, "2001:db8::10", false),
        (135, "2001:db8::11", false),
    ] {
        let frame = neighbour_frame(kind, ip(target));
        assert_eq!(keeps(&program, 2, &frame), expected, "{kind} {target}");
        assert_eq!(keeps(&program, OTHER_HOST, &frame), expected);
        assert!(!keeps(&program, OUTGOING, &frame), "our own");
    }
    let mut forwarded = neighbour_frame(135, ip("2001:db8::10"));
    forwarded[21] = 254;
    assert!(!keeps(&program, 2, &forwarded), "crossed a router");
}
