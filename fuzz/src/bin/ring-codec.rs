//! Any bytes are read or refused, and what was read is written as the same bytes.
#![no_main]

use herald_ring::codec::{Body, Draft, Frame, Item};
use herald_ring::{Authenticator, KeyId, MAX_DATAGRAM_BYTES, Tag};
use libfuzzer_sys::fuzz_target;

/// Every tag is right.
struct Known(Tag);

impl Authenticator for Known {
    fn tag(&self, _: KeyId, _: [&[u8]; 2]) -> Option<Tag> {
        Some(self.0)
    }
}

fuzz_target!(|datagram: &[u8]| {
    let Ok(frame) = Frame::decode(datagram) else {
        return;
    };
    let Ok(body) = frame.body() else {
        return;
    };
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    let Some(mut draft) = Draft::new(&mut buffer, &frame.header, frame.kind) else {
        unreachable!("a header always fits");
    };
    let written = match body {
        Body::Heartbeat(item) => draft.push(&item),
        Body::Poke(item) => draft.push(&item),
        Body::Answer(item) => draft.push(&item),
        Body::Ask(item) => draft.push(&item),
        Body::Relayed(item) => draft.push(&item),
        Body::Votes(items) => push_all(&mut draft, items),
        Body::Statements(items) => push_all(&mut draft, items),
        Body::Holds(items) => push_all(&mut draft, items),
    };
    // More than we ever write may come in.
    if !written {
        assert!(datagram.len() > MAX_DATAGRAM_BYTES);
        return;
    }
    let tag = datagram.last_chunk().copied().map(Tag);
    let auth = Known(tag.unwrap_or(Tag([0; 16])));
    let length = draft.seal(&auth, frame.header.key, &[]);
    assert_eq!(
        length.and_then(|length| buffer.get(..length)),
        Some(datagram)
    );
});

fn push_all<T: Item>(draft: &mut Draft<'_>, mut items: impl Iterator<Item = T>) -> bool {
    items.all(|item| draft.push(&item))
}
