use std::fmt::Write as _;
use std::time::Duration;

use herald_model::{Epoch, Tenure};
use proptest::prelude::*;

use super::*;

struct Sum;

impl Authenticator for Sum {
    fn tag(&self, key: KeyId, parts: [&[u8]; 2]) -> Option<Tag> {
        let mut tag = [0; 16];
        for (place, byte) in parts.concat().iter().enumerate() {
            tag[place % 16] ^= byte.rotate_left(u32::try_from(place % 8).unwrap());
        }
        (key != KeyId(9)).then_some(Tag(tag))
    }
}

const HEADER: Header = Header {
    key: KeyId(0x0102_0304),
    cluster: 0x1112_1314,
    segment: 0x2122_2324,
    sender: NodeId(0x3132_3334_3536_3738),
    incarnation: Incarnation(7),
    sequence: 0x4142_4344_4546_4748,
};

fn write(kind: Kind, items: &[impl Item]) -> Vec<u8> {
    let mut bytes = [0; 1_232];
    let mut draft = Draft::new(&mut bytes, &HEADER, kind).unwrap();
    for item in items {
        assert!(draft.push(item));
    }
    let length = draft.seal(&Sum, HEADER.key, b"context").unwrap();
    bytes[..length].to_vec()
}

fn read(bytes: &[u8]) -> Result<Body<'_>, DecodeError> {
    let frame = Frame::decode(bytes)?;
    assert_eq!(frame.header, HEADER);
    frame.body()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn statement() -> Statement {
    let mut voters = Voters::one(NodeId(2));
    voters.push(NodeId(3));
    Statement {
        member: NodeId(1),
        incarnation: Incarnation(5),
        standing: Standing::NodeDown,
        by_witness: true,
        voters,
        evidence: Evidence {
            silent: Duration::from_micros(150_010),
            suspected: Duration::from_millis(40),
        },
    }
}

fn hold(vip: &str) -> HoldRecord {
    HoldRecord {
        vip: vip.parse().unwrap(),
        epoch: Epoch(9),
        rank: 1,
        holder: NodeId(4),
        incarnation: Incarnation(5),
        tenure: Tenure::Held,
    }
}

/// One that is held, one of the other family, one that is handed over after another was passed over.
fn holds() -> [HoldRecord; 3] {
    let handed_over = HoldRecord {
        tenure: Tenure::HandingOver { passed_over: 1 },
        ..hold("192.0.2.11")
    };
    [hold("192.0.2.10"), hold("2001:db8::a"), handed_over]
}

fn golden_holds() -> (Vec<u8>, &'static str) {
    (
        write(Kind::Holds, &holds()),
        "03c000020a0000000000000000000000000000000000000009010000000000000004000000000000000\
         50120010db800000000000000000000000a00000000000000090100000000000000040000000000000005\
         0bc000020b0000000000000000000000000000000000000009010000000000000004000000000000000\
         5",
    )
}

/// One datagram of each kind: its bytes between header and tag, in hexadecimal.
fn golden() -> Vec<(Vec<u8>, &'static str)> {
    let report = Report {
        plan: 3,
        target: true,
    };
    vec![
        (
            write(
                Kind::Heartbeat,
                &[Heartbeat {
                    view: 1,
                    holds: 2,
                    report,
                }],
            ),
            "00000000000000010000000000000002000000000000000301",
        ),
        (
            write(
                Kind::Poke,
                &[Poke {
                    nonce: 1,
                    origin: NodeId(2),
                    view: 3,
                }],
            ),
            "000000000000000100000000000000020000000000000003",
        ),
        (
            write(
                Kind::Answer,
                &[Answer {
                    nonce: 1,
                    origin: NodeId(2),
                    view: 3,
                    incarnation: Incarnation(4),
                    standing: Standing::SpeakerDown,
                    live: 0x0506,
                }],
            ),
            "0000000000000001000000000000000200000000000000030000000000000004010506",
        ),
        (
            write(
                Kind::Ask,
                &[Ask {
                    target: NodeId(1),
                    nonce: 2,
                }],
            ),
            "00000000000000010000000000000002",
        ),
        (
            write(
                Kind::Relayed,
                &[Relayed {
                    target: NodeId(1),
                    incarnation: Incarnation(2),
                    nonce: 3,
                }],
            ),
            "000000000000000100000000000000020000000000000003",
        ),
        (
            write(
                Kind::Votes,
                &[
                    Vote {
                        victim: NodeId(1),
                        incarnation: Incarnation(2),
                        silent: true,
                        kernel_silent: true,
                    },
                    Vote {
                        victim: NodeId(3),
                        ..Vote::default()
                    },
                ],
            ),
            "00000000000000010000000000000002030000000000000003000000000000000000",
        ),
        (
            write(
                Kind::Statements,
                &[
                    statement(),
                    Statement {
                        member: NodeId(6),
                        ..Statement::default()
                    },
                ],
            ),
            "0000000000000001000000000000000516000000000000000200000000000000030002\
             49fa00009c400000000000000006000000000000000000",
        ),
        golden_holds(),
    ]
}

#[test]
fn bytes_are_what_the_table_says() {
    for (number, (bytes, body)) in (1..).zip(golden()) {
        assert_eq!(bytes[0], 1, "version");
        assert_eq!(bytes[1], number, "kind");
        assert_eq!(bytes[3], 0);
        assert_eq!(
            hex(&bytes[4..40]),
            "010203041112131421222324313233343536373800000000000000074142434445464748"
        );
        assert_eq!(hex(&bytes[40..bytes.len() - 16]), body, "kind {number}");
    }
}

#[test]
fn what_is_written_is_read() {
    let kinds = golden();
    let bodies: Vec<Body<'_>> = kinds
        .iter()
        .map(|(bytes, _)| read(bytes).unwrap())
        .collect();
    let report = Report {
        plan: 3,
        target: true,
    };
    let Body::Heartbeat(heartbeat) = bodies[0] else {
        panic!("{bodies:?}");
    };
    assert_eq!((heartbeat.view, heartbeat.report), (1, report));
    let Body::Answer(answer) = bodies[2] else {
        panic!("{bodies:?}");
    };
    assert_eq!(
        (answer.standing, answer.live),
        (Standing::SpeakerDown, 0x506)
    );
    let Body::Votes(votes) = bodies[5].clone() else {
        panic!("{bodies:?}");
    };
    let silent: Vec<bool> = votes.map(|vote| vote.silent).collect();
    assert_eq!(silent, [true, false]);
    let Body::Statements(mut statements) = bodies[6].clone() else {
        panic!("{bodies:?}");
    };
    assert_eq!(statements.next(), Some(statement()));
    assert_eq!(
        statements.map(|it| it.member).collect::<Vec<_>>(),
        [NodeId(6)]
    );
    let Body::Holds(holds) = bodies[7].clone() else {
        panic!("{bodies:?}");
    };
    assert_eq!(holds.collect::<Vec<_>>(), self::holds());
}

#[test]
fn a_datagram_cut_anywhere_is_not_read() {
    for (bytes, _) in golden() {
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let readable = Frame::decode(cut).is_ok_and(|frame| frame.body().is_ok());
            let authentic =
                Frame::decode(cut).is_ok_and(|frame| frame.is_authentic(&Sum, b"context"));
            assert!(!readable, "{length} of {}", bytes.len());
            assert!(!authentic);
        }
        let mut longer = bytes.clone();
        longer.insert(bytes.len() - 16, 0);
        assert!(read(&longer).is_err());
    }
}

#[test]
fn a_datagram_changed_anywhere_or_of_another_ring_is_not_authentic() {
    for (bytes, _) in golden() {
        let frame = Frame::decode(&bytes).unwrap();
        assert!(frame.is_authentic(&Sum, b"context"));
        assert!(!frame.is_authentic(&Sum, b"contexu"));
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let authentic =
                Frame::decode(&changed).is_ok_and(|frame| frame.is_authentic(&Sum, b"context"));
            assert!(!authentic, "byte {place}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let change = |bytes: &[u8], place: usize, value: u8| {
        let mut changed = bytes.to_vec();
        changed[place] = value;
        read(&changed).err()
    };
    let all = golden();
    let heartbeat = &all[0].0;
    assert_eq!(
        change(heartbeat, 0, 2),
        Some(DecodeError::Version { version: 2 })
    );
    assert_eq!(change(heartbeat, 1, 9), Some(DecodeError::Kind { kind: 9 }));
    assert_eq!(change(heartbeat, 2, 0), Some(DecodeError::Value));
    assert_eq!(change(heartbeat, 2, 2), Some(DecodeError::Value));
    assert_eq!(change(heartbeat, 3, 1), Some(DecodeError::Value));
    assert_eq!(change(heartbeat, 64, 2), Some(DecodeError::Value));
    assert_eq!(change(&all[2].0, 72, 3), Some(DecodeError::Value));
    let votes = &all[5].0;
    assert_eq!(change(votes, 2, 1), Some(DecodeError::Trailing));
    assert_eq!(change(votes, 2, 3), Some(DecodeError::Truncated));
    assert_eq!(change(votes, 56, 4), Some(DecodeError::Value));
    let statements = &all[6].0;
    assert_eq!(change(statements, 56, 0x36), Some(DecodeError::Value));
    // Two voters that are the same.
    assert_eq!(change(statements, 72, 2), Some(DecodeError::Value));
    let holds = &all[7].0;
    assert_eq!(change(holds, 50, 1), Some(DecodeError::Value));
    // Let go, and yet handed over.
    assert_eq!(change(holds, 40, 0x06), Some(DecodeError::Value));
}

#[test]
fn items_that_do_not_fit_are_left_out_and_without_a_key_there_is_no_datagram() {
    let mut bytes = [0; 200];
    let mut draft = Draft::new(&mut bytes, &HEADER, Kind::Holds).unwrap();
    assert!(draft.is_empty());
    let fitted = (0..9).filter(|_| draft.push(&hold("192.0.2.10"))).count();
    assert_eq!(fitted, 3);
    assert!(!draft.is_empty());
    let length = draft.seal(&Sum, HEADER.key, b"").unwrap();
    let Body::Holds(holds) = read(&bytes[..length]).unwrap() else {
        panic!("not holds");
    };
    assert_eq!(holds.count(), 3);
    let draft = Draft::new(&mut bytes, &HEADER, Kind::Holds).unwrap();
    assert_eq!(draft.seal(&Sum, KeyId(9), b""), None);
    assert!(Draft::new(&mut [0; 39], &HEADER, Kind::Poke).is_none());
}

#[test]
fn no_more_than_255_items_are_written() {
    let mut bytes = vec![0; 60_000];
    let mut draft = Draft::new(&mut bytes, &HEADER, Kind::Votes).unwrap();
    let fitted = (0..300).filter(|_| draft.push(&Vote::default())).count();
    assert_eq!(fitted, 255);
}

fn id() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn any_statement() -> impl Strategy<Value = Statement> {
    let standing = prop_oneof![
        Just(Standing::Up),
        Just(Standing::SpeakerDown),
        Just(Standing::NodeDown)
    ];
    let voters = proptest::collection::vec(id(), 0..=3);
    let micros = (any::<u32>(), any::<u32>());
    (id(), any::<u64>(), standing, any::<bool>(), voters, micros).prop_map(
        |(member, incarnation, standing, by_witness, ids, (silent, suspected))| {
            let mut voters = Voters::NONE;
            for id in ids {
                voters.push(id);
            }
            let evidence = Evidence {
                silent: Duration::from_micros(silent.into()),
                suspected: Duration::from_micros(suspected.into()),
            };
            Statement {
                member,
                incarnation: Incarnation(incarnation),
                standing,
                by_witness,
                voters,
                evidence: if standing.is_down() {
                    evidence
                } else {
                    Evidence::default()
                },
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(frame) = Frame::decode(&bytes) {
            let _any = frame.body();
        }
    }

    #[test]
    fn any_body_is_read_or_refused(
        kind in 1_u8..=8,
        count in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = write(Kind::Poke, &[Poke::default()]);
        bytes[1] = kind;
        bytes[2] = count;
        bytes.splice(40..64, body);
        if let Ok(frame) = Frame::decode(&bytes) {
            // What is read says the same when it is written again.
            let again = match frame.body() {
                Ok(Body::Heartbeat(it)) => write(Kind::Heartbeat, &[it]),
                Ok(Body::Poke(it)) => write(Kind::Poke, &[it]),
                Ok(Body::Answer(it)) => write(Kind::Answer, &[it]),
                Ok(Body::Ask(it)) => write(Kind::Ask, &[it]),
                Ok(Body::Relayed(it)) => write(Kind::Relayed, &[it]),
                Ok(Body::Votes(it)) => write(Kind::Votes, &it.collect::<Vec<_>>()),
                Ok(Body::Statements(it)) => write(Kind::Statements, &it.collect::<Vec<_>>()),
                Ok(Body::Holds(it)) => write(Kind::Holds, &it.collect::<Vec<_>>()),
                Err(_refused) => return Ok(()),
            };
            let untagged = |bytes: &[u8]| bytes.split_last_chunk::<16>().unwrap().0.to_vec();
            prop_assert_eq!(untagged(&again), untagged(&bytes));
        }
    }

    #[test]
    fn any_statements_survive(statements in proptest::collection::vec(any_statement(), 1..20)) {
        let bytes = write(Kind::Statements, &statements);
        let Body::Statements(read) = read(&bytes).unwrap() else {
            panic!("not statements");
        };
        prop_assert_eq!(read.collect::<Vec<_>>(), statements);
    }
}
