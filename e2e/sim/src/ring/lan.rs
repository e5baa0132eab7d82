//! The model of the LAN.

use std::time::Duration;

use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;

/// How datagrams get lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Not at all.
    None,
    /// Each with this probability.
    Independent(f64),
    /// With this probability on average, in bursts.
    Bursty(f64),
}

/// Loss within a burst, and how long bursts are on average.
const LOSS_IN_BURST: f64 = 0.9;
const BURST: Duration = Duration::from_millis(60);

/// Delays, losses, partitions.
#[derive(Debug)]
pub struct Lan {
    random: Draws,
    /// How datagrams get lost.
    pub loss: Loss,
    /// Which side of a partition each node is on; all 0 without one.
    pub sides: Vec<u8>,
    /// The side of the witness, if there is one.
    pub witness: Option<u8>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    bad: bool,
    /// Nanoseconds; 0 before the first datagram.
    until: u64,
}

impl Lan {
    /// A LAN of so many nodes, all on one side.
    pub fn new(nodes: usize, seed: u64) -> Self {
        Self {
            random: Draws::new(seed),
            loss: Loss::None,
            sides: vec![0; nodes],
            witness: None,
            links: Vec::new(),
        }
    }

    /// How long a datagram takes; `None` if it is lost.
    pub fn send(&mut self, now: u64, from: usize, to: usize) -> Option<Duration> {
        if self.sides[from] != self.sides[to] || self.is_lost(now, from, to) {
            None
        } else {
            Some(self.delay())
        }
    }

    /// How long a question to the witness and its answer take.
    pub fn ask_witness(&mut self, now: u64, from: usize) -> Option<Duration> {
        if self.witness != Some(self.sides[from]) || self.is_lost(now, from, from) {
            None
        } else {
            Some(self.delay() + self.delay())
        }
    }

    /// A number from 0 to 1.
    pub fn draw(&mut self) -> f64 {
        self.random.fraction()
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.random.next() % limit).unwrap_or(0)
    }

    fn delay(&mut self) -> Duration {
        let exponential = -(1.0 - self.random.fraction()).ln() * 40e-6;
        let late = if self.random.fraction() < 0.001 {
            1e-3 + 4e-3 * self.random.fraction()
        } else {
            0.0
        };
        Duration::from_secs_f64(80e-6 + exponential + late)
    }

    fn is_lost(&mut self, now: u64, from: usize, to: usize) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Independent(share) => self.random.fraction() < share,
            Loss::Bursty(share) => {
                self.is_in_burst(now, from, to, share) && self.random.fraction() < LOSS_IN_BURST
            }
        }
    }

    fn is_in_burst(&mut self, now: u64, from: usize, to: usize, share: f64) -> bool {
        let nodes = self.sides.len();
        self.links.resize(nodes * nodes, Link::default());
        let bad_share = share / LOSS_IN_BURST;
        let bad = BURST.as_secs_f64();
        let good = bad * (1.0 - bad_share) / bad_share;
        let mut link = self.links[from * nodes + to];
        if link.until + 2_000_000_000 < now {
            // Long unused: any state is as likely as it ever is.
            link.bad = self.random.fraction() < bad_share;
            link.until = now + self.random.exponential(if link.bad { bad } else { good });
        }
        while link.until <= now {
            link.bad = !link.bad;
            link.until += self.random.exponential(if link.bad { bad } else { good });
        }
        self.links[from * nodes + to] = link;
        link.bad
    }
}

/// Random numbers from a seed.
#[derive(Clone, Debug)]
struct Draws {
    state: u64,
}

impl Draws {
    fn new(seed: u64) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(seed);
        Self {
            state: hasher.finish(),
        }
    }

    /// `SplitMix64`: passes the usual tests, and has no bad seeds.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Nanoseconds, exponentially distributed around the mean in seconds.
    fn exponential(&mut self, mean: f64) -> u64 {
        let seconds = -(1.0 - self.fraction()).ln() * mean;
        u64::try_from(Duration::from_secs_f64(seconds).as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}
