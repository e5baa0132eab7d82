//! What datagrams carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use herald_model::{Epoch, Incarnation, Tenure};

use super::{DecodeError, Item, Reader, Writer};
use crate::NodeId;

/// As many voters as a member has observers.
pub const MAX_VOTERS: usize = 3;

/// What a member says of itself with each heartbeat; the ring only carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    /// A digest of the plan it knows, or the newest epoch: whatever tells that a peer knows more.
    pub plan: u64,
    /// Whether its node takes traffic as a target.
    pub target: bool,
}

/// I am alive, and this is what I know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Digest of the sender's view of all members.
    pub view: u64,
    /// Digest of the holds the sender knows.
    pub holds: u64,
    /// What it says of itself.
    pub report: Report,
}

/// Answer at once, with this nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poke {
    /// To be echoed.
    pub nonce: u64,
    /// Whom the answer is for in the end.
    pub origin: NodeId,
    /// Digest of the sender's view.
    pub view: u64,
}

/// The answer to a poke, sent to who poked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The poke's nonce; 0 if nobody asked.
    pub nonce: u64,
    /// The poke's origin.
    pub origin: NodeId,
    /// Digest of the sender's view.
    pub view: u64,
    /// The incarnation in which the sender knows the receiver.
    pub incarnation: Incarnation,
    /// And how it stands in it.
    pub standing: Standing,
    /// How many members the sender knows up, itself included.
    pub live: u16,
}

/// Poke the target for me.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Whom to poke.
    pub target: NodeId,
    /// With what nonce.
    pub nonce: u64,
}

/// The target has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Who answered.
    pub target: NodeId,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// The nonce it echoed.
    pub nonce: u64,
}

/// An observer's word on one it observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The observed.
    pub victim: NodeId,
    /// The life of it that is meant.
    pub incarnation: Incarnation,
    /// Whether it is silent; if not, an earlier vote is taken back.
    pub silent: bool,
    /// Whether its kernel is silent as well.
    pub kernel_silent: bool,
}

/// How a member stands, in one of its lives. Within a life it only ever rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Alive, as far as anybody knows.
    #[default]
    Up,
    /// Its speaker is dead, and its kernel answers.
    SpeakerDown,
    /// Its node is dead or unreachable.
    NodeDown,
}

impl Standing {
    /// Whether it can't announce.
    pub const fn is_down(self) -> bool {
        !matches!(self, Self::Up)
    }
}

/// Observers by whose word something is so; at most [`MAX_VOTERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    ids: [NodeId; MAX_VOTERS],
    count: u8,
}

impl Voters {
    /// No voter.
    pub const NONE: Self = Self {
        ids: [NodeId(0); MAX_VOTERS],
        count: 0,
    };

    /// One voter.
    pub fn one(id: NodeId) -> Self {
        let mut voters = Self::NONE;
        voters.push(id);
        voters
    }

    /// Adds one, unless it is there or there is no room.
    pub fn push(&mut self, id: NodeId) {
        if self.as_slice().contains(&id) {
            return;
        }
        if let Some(slot) = self.ids.get_mut(usize::from(self.count)) {
            *slot = id;
            self.count = self.count.saturating_add(1);
        }
    }

    /// The voters, in the order they were added.
    pub fn as_slice(&self) -> &[NodeId] {
        self.ids.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// What a certifying observer measured; zero in a statement that is not a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// How long the victim had been silent.
    pub silent: Duration,
    /// For how much of that it had been suspected.
    pub suspected: Duration,
}

/// How a member stands, and by whose word. With a standing other than `Up` this is a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// The member.
    pub member: NodeId,
    /// The life of it that is meant.
    pub incarnation: Incarnation,
    /// How it stands in it.
    pub standing: Standing,
    /// A witness stood in for observers that could not vote.
    pub by_witness: bool,
    /// The observers that voted; for `Up`, the one that heard it.
    pub voters: Voters,
    /// For certificates, what was measured; microseconds on the wire.
    pub evidence: Evidence,
}

/// An address and who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    /// The address.
    pub vip: IpAddr,
    /// The plan under which it is held.
    pub epoch: Epoch,
    /// The holder's place among the candidates, 0 first; 255 if it is none of them.
    pub rank: u8,
    /// The holder.
    pub holder: NodeId,
    /// The holder's life.
    pub incarnation: Incarnation,
    /// How it stands to the address.
    pub tenure: Tenure,
}

macro_rules! item {
    ($name:ty, |$reader:ident| $read:expr, |$item:ident, $writer:ident| $write:expr) => {
        impl Item for $name {
            fn read($reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                $read
            }

            fn write(&self, $writer: &mut Writer<'_>) -> Option<()> {
                let $item = self;
                $write
            }
        }
    };
}

item!(
    Heartbeat,
    |reader| Ok(Self {
        view: reader.u64()?,
        holds: reader.u64()?,
        report: Report {
            plan: reader.u64()?,
            target: bits::<1>(reader)?[0],
        },
    }),
    |item, writer| {
        writer.put(&item.view.to_be_bytes())?;
        writer.put(&item.holds.to_be_bytes())?;
        writer.put(&item.report.plan.to_be_bytes())?;
        writer.put(&[u8::from(item.report.target)])
    }
);

item!(
    Poke,
    |reader| Ok(Self {
        nonce: reader.u64()?,
        origin: NodeId(reader.u64()?),
        view: reader.u64()?,
    }),
    |item, writer| {
        writer.put(&item.nonce.to_be_bytes())?;
        writer.put(&item.origin.0.to_be_bytes())?;
        writer.put(&item.view.to_be_bytes())
    }
);

item!(
    Answer,
    |reader| Ok(Self {
        nonce: reader.u64()?,
        origin: NodeId(reader.u64()?),
        view: reader.u64()?,
        incarnation: Incarnation(reader.u64()?),
        standing: standing(reader.u8()?)?,
        live: reader.u16()?,
    }),
    |item, writer| {
        writer.put(&item.nonce.to_be_bytes())?;
        writer.put(&item.origin.0.to_be_bytes())?;
        writer.put(&item.view.to_be_bytes())?;
        writer.put(&item.incarnation.0.to_be_bytes())?;
        writer.put(&[item.standing as u8])?;
        writer.put(&item.live.to_be_bytes())
    }
);

item!(
    Ask,
    |reader| Ok(Self {
        target: NodeId(reader.u64()?),
        nonce: reader.u64()?,
    }),
    |item, writer| {
        writer.put(&item.target.0.to_be_bytes())?;
        writer.put(&item.nonce.to_be_bytes())
    }
);

item!(
    Relayed,
    |reader| Ok(Self {
        target: NodeId(reader.u64()?),
        incarnation: Incarnation(reader.u64()?),
        nonce: reader.u64()?,
    }),
    |item, writer| {
        writer.put(&item.target.0.to_be_bytes())?;
        writer.put(&item.incarnation.0.to_be_bytes())?;
        writer.put(&item.nonce.to_be_bytes())
    }
);

item!(
    Vote,
    |reader| {
        let victim = NodeId(reader.u64()?);
        let incarnation = Incarnation(reader.u64()?);
        let [silent, kernel_silent] = bits(reader)?;
        Ok(Self {
            victim,
            incarnation,
            silent,
            kernel_silent,
        })
    },
    |item, writer| {
        writer.put(&item.victim.0.to_be_bytes())?;
        writer.put(&item.incarnation.0.to_be_bytes())?;
        writer.put(&[u8::from(item.silent) | u8::from(item.kernel_silent) << 1])
    }
);

item!(
    Statement,
    |reader| {
        let member = NodeId(reader.u64()?);
        let incarnation = Incarnation(reader.u64()?);
        let flags = reader.u8()?;
        let mut statement = Self {
            member,
            incarnation,
            standing: standing(flags & 0b11)?,
            by_witness: flags & 0b100 != 0,
            voters: Voters::NONE,
            evidence: Evidence::default(),
        };
        if flags >> 5 != 0 {
            return Err(DecodeError::Value);
        }
        let count = flags >> 3 & 0b11;
        for _ in 0..count {
            statement.voters.push(NodeId(reader.u64()?));
        }
        if statement.voters.count != count {
            return Err(DecodeError::Value); // One of them twice.
        }
        if statement.standing.is_down() {
            statement.evidence.silent = Duration::from_micros(reader.u32()?.into());
            statement.evidence.suspected = Duration::from_micros(reader.u32()?.into());
        }
        Ok(statement)
    },
    |item, writer| {
        writer.put(&item.member.0.to_be_bytes())?;
        writer.put(&item.incarnation.0.to_be_bytes())?;
        let flags =
            item.standing as u8 | u8::from(item.by_witness) << 2 | (item.voters.count & 0b11) << 3;
        writer.put(&[flags])?;
        for voter in item.voters.as_slice() {
            writer.put(&voter.0.to_be_bytes())?;
        }
        if item.standing.is_down() {
            writer.put(&micros(item.evidence.silent).to_be_bytes())?;
            writer.put(&micros(item.evidence.suspected).to_be_bytes())?;
        }
        Some(())
    }
);

item!(
    HoldRecord,
    |reader| {
        let byte = reader.u8()?;
        let tenure = tenure(byte & !IS_V4)?;
        let is_v4 = byte & IS_V4 != 0;
        let bytes: [u8; 16] = reader.take()?;
        let vip = if is_v4 {
            let [a, b, c, d, rest @ ..] = bytes;
            if rest != [0; 12] {
                return Err(DecodeError::Value);
            }
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes))
        };
        Ok(Self {
            vip,
            epoch: Epoch(reader.u64()?),
            rank: reader.u8()?,
            holder: NodeId(reader.u64()?),
            incarnation: Incarnation(reader.u64()?),
            tenure,
        })
    },
    |item, writer| {
        let family = if item.vip.is_ipv4() { IS_V4 } else { 0 };
        writer.put(&[tenure_byte(item.tenure) | family])?;
        match item.vip {
            IpAddr::V4(address) => {
                writer.put(&address.octets())?;
                writer.put(&[0; 12])?;
            }
            IpAddr::V6(address) => writer.put(&address.octets())?,
        }
        writer.put(&item.epoch.0.to_be_bytes())?;
        writer.put(&[item.rank])?;
        writer.put(&item.holder.0.to_be_bytes())?;
        writer.put(&item.incarnation.0.to_be_bytes())
    }
);

/// Set in the first byte of a hold on an IPv4 address.
const IS_V4: u8 = 0b10;
/// Set if the address is held.
const IS_HELD: u8 = 0b01;
/// How many have been passed over by a holder that hands over, and one; 0: it does not.
const PASSED_SHIFT: u8 = 2;
const MAX_PASSED: u8 = u8::MAX >> PASSED_SHIFT;

fn tenure(byte: u8) -> Result<Tenure, DecodeError> {
    match (byte & IS_HELD != 0, byte >> PASSED_SHIFT) {
        (false, 0) => Ok(Tenure::LetGo),
        (false, _) => Err(DecodeError::Value),
        (true, 0) => Ok(Tenure::Held),
        (true, passed) => Ok(Tenure::HandingOver {
            passed_over: passed.saturating_sub(1),
        }),
    }
}

/// The byte of a hold without the bit of its family.
pub(crate) fn tenure_byte(tenure: Tenure) -> u8 {
    match tenure {
        Tenure::LetGo => 0,
        Tenure::Held => IS_HELD,
        Tenure::HandingOver { passed_over } => {
            passed_over.saturating_add(1).min(MAX_PASSED) << PASSED_SHIFT | IS_HELD
        }
    }
}

fn standing(byte: u8) -> Result<Standing, DecodeError> {
    [Standing::Up, Standing::SpeakerDown, Standing::NodeDown]
        .into_iter()
        .find(|standing| *standing as u8 == byte)
        .ok_or(DecodeError::Value)
}

/// The lowest bits of a byte whose other bits are 0.
fn bits<const N: usize>(reader: &mut Reader<'_>) -> Result<[bool; N], DecodeError> {
    let mut byte = reader.u8()?;
    let bits = std::array::from_fn(|_| {
        let bit = byte & 1 != 0;
        byte >>= 1;
        bit
    });
    if byte == 0 {
        Ok(bits)
    } else {
        Err(DecodeError::Value)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
