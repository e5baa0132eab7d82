//! `make bench-alloc`: what one more address costs at several fill levels of a /16, beside the walk
//! from the pool's start that `MetalLB` 0.16 makes (`internal/allocator`, `getIPFromCIDR`).

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use herald_controller_core::testkit::{pool, svc};
use herald_controller_core::{Allocator, Ask, Terms};
use herald_model::{Labels, Service, ServiceKey, ServiceRef};

const SIZE: u32 = 1 << 16;
const LEVELS: [u32; 6] = [0, 1_000, 4_000, 16_000, 32_000, SIZE - 1];
/// How often one allocation is made at a level: of the times the median counts.
const TIMES: usize = 101;
/// How often the rival makes one: at a full pool it takes milliseconds.
const RIVAL_TIMES: usize = 11;

/// The walk: every address from the first, as a text, looked up among those in use.
#[derive(Default)]
struct Walk {
    /// By address: who uses it on which port.
    used: HashMap<String, ServiceKey>,
}

impl Walk {
    fn choose(&self) -> Option<String> {
        let first = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        (first..first + SIZE)
            .map(|bits| Ipv4Addr::from(bits).to_string())
            .find(|address| !self.used.contains_key(address))
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn median(times: usize, mut work: impl FnMut()) -> Duration {
    let mut all: Vec<Duration> = (0..times)
        .map(|_| {
            let began = now();
            work();
            began.elapsed()
        })
        .collect();
    all.sort_unstable();
    all[times / 2]
}

fn service(number: u32) -> Service {
    svc(&format!("ns/s{number}")).port(80).service()
}

fn choose(allocator: &Allocator, service: &Service, labels: &Labels) -> Option<IpAddr> {
    let ask = Ask {
        service,
        namespace: Some(labels),
        current: &[],
    };
    allocator.choose(ask).ok()?.addresses.first().copied()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let labels = Labels::new();
    let mut allocator = Allocator::default();
    allocator.set_pool(pool("p").range("10.0.0.0/16").pool());
    let mut walk = Walk::default();
    let mut filled = Duration::ZERO;
    // The sum of all walks so far, by the trapezium rule: to make them all takes minutes.
    let (mut walked, mut last) = (0.0, (0.0, 0.0));
    writeln!(
        out,
        "addresses given   herald: one more   walk from the start: one more   herald: all so far   walk: all so far"
    )?;
    for level in 0..=SIZE {
        if LEVELS.contains(&level) {
            let next = service(level);
            let ours = median(TIMES, || {
                black_box(choose(&allocator, &next, &labels));
            });
            let theirs = median(RIVAL_TIMES, || {
                black_box(walk.choose());
            });
            let at = (f64::from(level), micros(theirs));
            walked += (at.0 - last.0) * f64::midpoint(at.1, last.1);
            last = at;
            writeln!(
                out,
                "{level:>15}   {:>13.2} us   {:>27.2} us   {:>16.3} s   {:>14.1} s",
                micros(ours),
                at.1,
                filled.as_secs_f64(),
                walked / 1e6,
            )?;
        }
        let next = service(level);
        let me = ServiceRef {
            key: next.key.clone(),
            uid: next.uid.clone(),
        };
        let began = now();
        let Some(address) = choose(&allocator, &next, &labels) else {
            break;
        };
        allocator.hold(address, me, Terms::of(&next));
        filled += began.elapsed();
        walk.used.insert(address.to_string(), next.key);
    }
    let over = service(SIZE);
    let full = median(TIMES, || {
        black_box(choose(&allocator, &over, &labels));
    });
    let full_walk = median(RIVAL_TIMES, || {
        black_box(walk.choose());
    });
    writeln!(
        out,
        "full: herald says so in {:.2} us, the walk in {:.2} us; herald filled it in {:.3} s",
        micros(full),
        micros(full_walk),
        filled.as_secs_f64(),
    )
}
