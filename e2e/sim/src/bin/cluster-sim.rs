//! Tells stories of a cluster: `cargo run --release -p herald-sim --bin cluster-sim -- --seeds 1000`,
//! or one in full: `--seed 7 --trace`.
#![expect(clippy::print_stdout, reason = "it tells stories")]

use std::process::ExitCode;
use std::time::Instant;

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
    let (mut failed, mut moves, mut longest) = (0, 0, std::time::Duration::ZERO);
    for seed in first..first + count {
        let end = tell(seed, trace);
        for line in &end.trace {
            println!("{line}");
        }
        moves += end.moves;
        longest = longest.max(end.longest);
        if let Some(wrong) = end.wrong {
            failed += 1;
            println!("seed {seed}: {wrong}");
            println!("  cargo run -p herald-sim --bin cluster-sim -- --seed {seed} --trace");
        }
    }
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
