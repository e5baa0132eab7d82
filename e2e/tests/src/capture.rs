//! Frames as a place of the LAN sees them. Decoded by hand, so that what Herald sends is not judged
//! by Herald's own codec.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use herald_lab::Lab;

const BROADCAST: [u8; 6] = [0xff; 6];
/// 33:33 and the last four bytes of `ff02::1`.
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A MAC address in the usual form.
fn mac(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

/// A frame of ARP or neighbour discovery.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was seen, since 1970.
    pub at: Duration,
    /// The sender's MAC address in the Ethernet header.
    pub source: String,
    /// Whether it went to all.
    pub to_all: bool,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// ARP.
    Arp {
        /// 1 asks, 2 answers.
        operation: u16,
        /// Who speaks.
        sender: (String, Ipv4Addr),
        /// Who is meant.
        target: (String, Ipv4Addr),
    },
    /// A neighbour advertisement.
    Advertisement {
        /// For whom it speaks.
        target: Ipv6Addr,
        /// Whether it answers a solicitation.
        solicited: bool,
        /// Whether it replaces what is known.
        overrides: bool,
        /// Whether the speaker says it is a router.
        router: bool,
        /// The target's MAC address in the option.
        link_layer: Option<String>,
        /// The hop limit, which must be 255.
        hop_limit: u8,
        /// The source address.
        from: Ipv6Addr,
    },
    /// A neighbour solicitation.
    Solicitation {
        /// Who is looked for.
        target: Ipv6Addr,
    },
    /// Something else.
    Other,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.to_all { " to all" } else { "" };
        write!(
            f,
            "{:.3} {}{all} {:?}",
            self.at.as_secs_f64(),
            self.source,
            self.body
        )
    }
}

impl Frame {
    /// Whether it answers a question about this address.
    pub fn answers(&self, address: IpAddr) -> bool {
        match (&self.body, address) {
            (
                Body::Arp {
                    operation: 2,
                    sender,
                    ..
                },
                IpAddr::V4(address),
            ) => sender.1 == address && !self.to_all,
            (
                Body::Advertisement {
                    target, solicited, ..
                },
                IpAddr::V6(address),
            ) => *target == address && *solicited,
            _ => false,
        }
    }

    /// Whether it asks who has this address.
    pub fn asks(&self, address: IpAddr) -> bool {
        match (&self.body, address) {
            (
                Body::Arp {
                    operation: 1,
                    sender,
                    target,
                },
                IpAddr::V4(address),
            ) => target.1 == address && sender.1 != address,
            (Body::Solicitation { target }, IpAddr::V6(address)) => *target == address,
            _ => false,
        }
    }

    /// The address it announces without having been asked.
    pub fn announced(&self) -> Option<IpAddr> {
        let address = match &self.body {
            Body::Arp { target, .. } => target.1.into(),
            Body::Advertisement { target, .. } => (*target).into(),
            Body::Solicitation { .. } | Body::Other => return None,
        };
        self.announces(address).then_some(address)
    }

    /// Whether it announces this address without having been asked.
    pub fn announces(&self, address: IpAddr) -> bool {
        match (&self.body, address) {
            (Body::Arp { sender, target, .. }, IpAddr::V4(address)) => {
                sender.1 == address && target.1 == address && self.to_all
            }
            (
                Body::Advertisement {
                    target, solicited, ..
                },
                IpAddr::V6(address),
            ) => *target == address && !*solicited,
            _ => false,
        }
    }
}

/// Frames of ARP and neighbour discovery that a place sees on its `eth0`, from the start on.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    frames: Arc<Mutex<Vec<Frame>>>,
    reading: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts, and returns when it sees frames.
    ///
    /// # Errors
    ///
    /// If tcpdump does not start.
    pub fn start(lab: &Lab, place: &str) -> Result<Self> {
        let filter = "arp or (icmp6 and (ip6[40] == 135 or ip6[40] == 136))";
        let mut tcpdump = lab.spawn(
            place,
            [
                "tcpdump",
                "-Z",
                "root",
                "-i",
                "eth0",
                "-n",
                "-p",
                "-U",
                "--immediate-mode",
                // A frame is given room for the longest that is asked for: bursts are not to overflow it.
                "-s",
                "256",
                "-B",
                "8192",
                "-w",
                "-",
                filter,
            ],
        )?;
        let stdout = tcpdump.stdout.take().context("tcpdump has no stdout")?;
        let mut stderr = tcpdump.stderr.take().context("tcpdump has no stderr")?;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&frames);
        let (ready, is_ready) = mpsc::channel();
        let reading = thread::spawn(move || {
            // The file's header comes when it listens.
            drop(read_pcap(stdout, &kept, &ready));
        });
        let capture = Self {
            tcpdump,
            frames,
            reading: Some(reading),
        };
        if is_ready.recv_timeout(Duration::from_secs(10)).is_err() {
            drop(capture);
            let mut said = String::new();
            drop(stderr.read_to_string(&mut said));
            bail!("tcpdump at {place} does not start: {said}");
        }
        // Read it, or tcpdump would stop when the pipe is full.
        thread::spawn(move || drop(std::io::copy(&mut stderr, &mut std::io::sink())));
        Ok(capture)
    }

    /// What was seen until now.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Of what was seen until now, the announcements of an address.
    pub fn announcements(&self, address: IpAddr) -> Vec<Frame> {
        let mut frames = self.frames();
        frames.retain(|frame| frame.announces(address));
        frames
    }

    /// Of what was seen until now, the answers about an address.
    pub fn answers(&self, address: IpAddr) -> Vec<Frame> {
        let mut frames = self.frames();
        frames.retain(|frame| frame.answers(address));
        frames
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.tcpdump.kill());
        drop(self.tcpdump.wait());
        if let Some(reading) = self.reading.take() {
            drop(reading.join());
        }
    }
}

fn read_pcap(
    mut from: impl Read,
    frames: &Mutex<Vec<Frame>>,
    ready: &mpsc::Sender<()>,
) -> std::io::Result<()> {
    from.read_exact(&mut [0; 24])?;
    let _ = ready.send(());
    loop {
        let mut header = [0; 16];
        from.read_exact(&mut header)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let at = Duration::from_secs(word(0).into()) + Duration::from_micros(word(4).into());
        let mut bytes = vec![0; word(8).try_into().unwrap_or(0)];
        from.read_exact(&mut bytes)?;
        if let Some(frame) = decode(at, &bytes) {
            frames
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(frame);
        }
    }
}

/// `None` for a frame shorter than it says.
fn decode(at: Duration, bytes: &[u8]) -> Option<Frame> {
    let to = bytes.get(..6)?;
    let body = match bytes.get(12..14)? {
        [0x08, 0x06] => arp(bytes.get(14..42)?)?,
        [0x86, 0xdd] => neighbour(bytes.get(14..)?)?,
        _ => Body::Other,
    };
    Some(Frame {
        at,
        source: mac(bytes.get(6..12)?),
        to_all: to == BROADCAST || to == ALL_NODES,
        body,
    })
}

fn v4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// RFC 826.
fn arp(packet: &[u8]) -> Option<Body> {
    Some(Body::Arp {
        operation: u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]),
        sender: (mac(packet.get(8..14)?), v4(packet.get(14..18)?)?),
        target: (mac(packet.get(18..24)?), v4(packet.get(24..28)?)?),
    })
}

/// RFC 4861 sections 4.3 and 4.4, directly behind the IPv6 header.
fn neighbour(packet: &[u8]) -> Option<Body> {
    let message = packet.get(40..)?;
    let target = || v6(message.get(8..24)?);
    match message.first()? {
        135 => Some(Body::Solicitation { target: target()? }),
        136 => {
            let flags = message.get(4)?;
            let option = message.get(24..32).filter(|option| option[..2] == [2, 1]);
            Some(Body::Advertisement {
                target: target()?,
                router: flags & 0x80 != 0,
                solicited: flags & 0x40 != 0,
                overrides: flags & 0x20 != 0,
                link_layer: option.map(|option| mac(&option[2..])),
                hop_limit: *packet.get(7)?,
                from: v6(packet.get(8..24)?)?,
            })
        }
        _ => Some(Body::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_request_announces_and_does_not_answer() {
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 1, 8, 6]);
        bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.extend([2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
        bytes.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
        let frame = decode(Duration::ZERO, &bytes).expect("whole");
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!(frame.announces(address) && !frame.answers(address));
        assert_eq!(decode(Duration::ZERO, &bytes[..41]), None);
    }
}
