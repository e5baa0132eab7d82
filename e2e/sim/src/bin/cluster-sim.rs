//! Tells stories of a cluster: `cargo run --release -p herald-sim --bin cluster-sim -- --seeds 1000`,
//! or one in full: `--seed 7 --trace`.
#![expect(clippy::print_stdout, reason = "it tells stories")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use herald_sim::cluster::tell;

fn main() -> ExitCode {
    let (mut first, mut count, mut trace) = (0, 1_000, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok());
        match name.as_str() {
            "--seed" => (first, count) = (number().unwrap_or(0), 1),
            "--seeds" => count = number().unwrap_or(count),
            "--trace" => trace = true,
            _ => println!("unknown: {name}"),
        }
    }
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let sums = Mutex::new((0_u64, 0_u64, Duration::ZERO));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let end = tell(seed, trace);
                    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                    for line in &end.trace {
                        println!("{line}");
                    }
                    sums.1 += end.moves;
                    sums.2 = sums.2.max(end.longest);
                    if let Some(wrong) = end.wrong {
                        sums.0 += 1;
                        println!("seed {seed}: {wrong}");
                        println!(
                            "  cargo run -p herald-sim --bin cluster-sim -- --seed {seed} --trace"
                        );
                    }
                }
            });
        }
    });
    let (failed, moves, longest) = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{count} seeds, {failed} failed, {moves} moves, {} ms at most without a holder, {:.1} s",
        longest.as_millis(),
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
