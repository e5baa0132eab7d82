//! Datagrams, version 1. All numbers are big endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | kind |
//! | 2 | number of items, at least 1 |
//! | 3 | 0 |
//! | 4–7 | key id |
//! | 8–11 | hash of the cluster id |
//! | 12–15 | hash of the segment's name |
//! | 16–23 | sender |
//! | 24–31 | sender's incarnation |
//! | 32–39 | sequence |
//! | 40– | items of the kind, one after the other |
//! | last 16 | tag over the ring's context (cluster id, segment name) and all bytes before |
//!
//! The two hashes only tell a stranger's datagram from a forged one; what binds a datagram to its
//! cluster and segment is the tag.

#![deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::marker::PhantomData;

use herald_model::Incarnation;

use crate::NodeId;
use crate::auth::{Authenticator, KeyId, Tag};

mod item;

pub(crate) use item::tenure_byte;
pub use item::{
    Answer, Ask, Evidence, Heartbeat, HoldRecord, MAX_VOTERS, Poke, Relayed, Report, Standing,
    Statement, Vote, Voters,
};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 40;
const TAG_BYTES: usize = 16;
/// Where the number of items is.
const COUNT_AT: usize = 2;

/// Why a datagram can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends before its header, its items or its tag do.
    #[error("datagram ends early")]
    Truncated,
    /// It is of a version this one does not know.
    #[error("version {version} is not known")]
    Version {
        /// The version it says.
        version: u8,
    },
    /// It is of a kind this version does not know.
    #[error("kind {kind} is not known")]
    Kind {
        /// The kind it says.
        kind: u8,
    },
    /// A field holds what it can't hold.
    #[error("field holds an impossible value")]
    Value,
    /// It goes on after its last item.
    #[error("bytes after the last item")]
    Trailing,
}

impl DecodeError {
    /// The variant's name, for labels.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version { .. } => "version",
            Self::Kind { .. } => "kind",
            Self::Value => "value",
            Self::Trailing => "trailing",
        }
    }
}

/// What a datagram is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One [`Heartbeat`], to an observer.
    Heartbeat = 1,
    /// One [`Poke`]: answer at once.
    Poke = 2,
    /// One [`Answer`] to a poke.
    Answer = 3,
    /// One [`Ask`]: poke somebody for me.
    Ask = 4,
    /// One [`Relayed`]: the answer to such a poke.
    Relayed = 5,
    /// [`Vote`]s, to the other observers of each victim.
    Votes = 6,
    /// [`Statement`]s, to everybody or to one who lacks them.
    Statements = 7,
    /// [`HoldRecord`]s, likewise.
    Holds = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Heartbeat,
        Self::Poke,
        Self::Answer,
        Self::Ask,
        Self::Relayed,
        Self::Votes,
        Self::Statements,
        Self::Holds,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key the tag is made with.
    pub key: KeyId,
    /// Hash of the cluster id.
    pub cluster: u32,
    /// Hash of the segment's name.
    pub segment: u32,
    /// The sender.
    pub sender: NodeId,
    /// The number of the sender's life.
    pub incarnation: Incarnation,
    /// One more than the last datagram's of this life.
    pub sequence: u64,
}

/// A datagram whose header has been read, and nothing else yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Who claims to have sent it.
    pub header: Header,
    /// What it is about.
    pub kind: Kind,
    count: u8,
    signed: &'a [u8],
    items: &'a [u8],
    tag: Tag,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// I am alive.
    Heartbeat(Heartbeat),
    /// Are you?
    Poke(Poke),
    /// I am.
    Answer(Answer),
    /// Ask it for me.
    Ask(Ask),
    /// It answered me.
    Relayed(Relayed),
    /// These are silent, or speak again.
    Votes(Items<'a, Vote>),
    /// So stand these members.
    Statements(Items<'a, Statement>),
    /// These addresses are held.
    Holds(Items<'a, HoldRecord>),
}

/// Items of a datagram, checked when the datagram was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Items<'a, T> {
    reader: Reader<'a>,
    left: u8,
    item: PhantomData<T>,
}

impl<T> Clone for Items<'_, T> {
    fn clone(&self) -> Self {
        Self {
            reader: self.reader,
            left: self.left,
            item: PhantomData,
        }
    }
}

impl<T: Item> Iterator for Items<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        T::read(&mut self.reader).ok()
    }
}

impl<'a> Frame<'a> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], any variant but `Trailing`.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let (signed, tag) = datagram
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(DecodeError::Truncated)?;
        let mut reader = Reader { rest: signed };
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version { version });
        }
        let kind = reader.u8()?;
        let count = reader.u8()?;
        if reader.u8()? != 0 || count == 0 {
            return Err(DecodeError::Value);
        }
        let header = Header {
            key: KeyId(reader.u32()?),
            cluster: reader.u32()?,
            segment: reader.u32()?,
            sender: NodeId(reader.u64()?),
            incarnation: Incarnation(reader.u64()?),
            sequence: reader.u64()?,
        };
        Ok(Self {
            header,
            kind: Kind::from_byte(kind).ok_or(DecodeError::Kind { kind })?,
            count,
            signed,
            items: reader.rest,
            tag: Tag(*tag),
        })
    }

    /// Whether it was tagged with the key it names, for the ring of this context.
    pub fn is_authentic(&self, auth: &impl Authenticator, context: &[u8]) -> bool {
        auth.verify(self.header.key, [context, self.signed], &self.tag)
    }

    /// Reads the items, all of them.
    ///
    /// # Errors
    ///
    /// `Truncated`, `Value` or `Trailing`.
    pub fn body(&self) -> Result<Body<'a>, DecodeError> {
        match self.kind {
            Kind::Heartbeat => self.single().map(Body::Heartbeat),
            Kind::Poke => self.single().map(Body::Poke),
            Kind::Answer => self.single().map(Body::Answer),
            Kind::Ask => self.single().map(Body::Ask),
            Kind::Relayed => self.single().map(Body::Relayed),
            Kind::Votes => self.list().map(Body::Votes),
            Kind::Statements => self.list().map(Body::Statements),
            Kind::Holds => self.list().map(Body::Holds),
        }
    }

    fn single<T: Item>(&self) -> Result<T, DecodeError> {
        if self.count != 1 {
            return Err(DecodeError::Value);
        }
        let mut reader = Reader { rest: self.items };
        let item = T::read(&mut reader)?;
        reader.end()?;
        Ok(item)
    }

    fn list<T: Item>(&self) -> Result<Items<'a, T>, DecodeError> {
        let start = Reader { rest: self.items };
        let mut reader = start;
        for _ in 0..self.count {
            T::read(&mut reader)?;
        }
        reader.end()?;
        Ok(Items {
            reader: start,
            left: self.count,
            item: PhantomData,
        })
    }
}

/// A datagram being written.
#[derive(Debug)]
pub struct Draft<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl<'a> Draft<'a> {
    /// Begins a datagram at the front of the buffer. `None` if not even the header fits.
    pub fn new(bytes: &'a mut [u8], header: &Header, kind: Kind) -> Option<Self> {
        let mut writer = Writer { rest: bytes };
        writer.put(&[VERSION, kind as u8, 0, 0])?;
        writer.put(&header.key.0.to_be_bytes())?;
        writer.put(&header.cluster.to_be_bytes())?;
        writer.put(&header.segment.to_be_bytes())?;
        writer.put(&header.sender.0.to_be_bytes())?;
        writer.put(&header.incarnation.0.to_be_bytes())?;
        writer.put(&header.sequence.to_be_bytes())?;
        Some(Self {
            bytes,
            length: HEADER_BYTES,
        })
    }

    /// Adds an item. Returns whether it fitted; if not, nothing has changed.
    pub fn push(&mut self, item: &impl Item) -> bool {
        self.try_push(item).is_some()
    }

    fn try_push(&mut self, item: &impl Item) -> Option<()> {
        let count = self.bytes.get(COUNT_AT)?.checked_add(1)?;
        let end = self.bytes.len().checked_sub(TAG_BYTES)?;
        let room = self.bytes.get_mut(self.length..end)?;
        let before = room.len();
        let mut writer = Writer { rest: room };
        item.write(&mut writer)?;
        let used = before.checked_sub(writer.rest.len())?;
        self.length = self.length.checked_add(used)?;
        *self.bytes.get_mut(COUNT_AT)? = count;
        Some(())
    }

    /// Whether nothing has been added yet; such a datagram can't be read.
    pub fn is_empty(&self) -> bool {
        self.bytes.get(COUNT_AT) == Some(&0)
    }

    /// Adds the tag. Returns the datagram's length; `None` without the key.
    pub fn seal(self, auth: &impl Authenticator, key: KeyId, context: &[u8]) -> Option<usize> {
        let (signed, rest) = self.bytes.split_at_mut_checked(self.length)?;
        let tag = auth.tag(key, [context, signed])?;
        Writer { rest }.put(&tag.0)?;
        self.length.checked_add(TAG_BYTES)
    }
}

/// What a datagram carries one or more of.
pub trait Item: Sized {
    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
    #[doc(hidden)]
    fn write(&self, writer: &mut Writer<'_>) -> Option<()>;
}

/// What is left to be read.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing)
        }
    }
}

/// Where there is room to write.
#[doc(hidden)]
#[derive(Debug)]
pub struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let rest = std::mem::take(&mut self.rest);
        let (room, rest) = rest.split_at_mut_checked(bytes.len())?;
        room.copy_from_slice(bytes);
        self.rest = rest;
        Some(())
    }
}

#[cfg(test)]
mod tests;
