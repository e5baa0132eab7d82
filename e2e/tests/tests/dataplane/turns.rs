//! Runs of the ingress program with another flow's packet each: what one costs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use herald_e2e::netns::Host;
use herald_speaker::io::bpf::{TestRun, load};

use crate::object::object;

/// Bytes of `struct turn` of `flows.c`.
const TURN: usize = 72;
/// Of the headers before the payload.
const HEADERS: usize = 54;
/// Each flow at least once, and enough for a mean.
const LEAST_RUNS: u32 = 1 << 17;

/// The program of `flows.c`, on the maps of a data plane.
pub(crate) struct Turns(Ebpf);

/// Whose packets come in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    /// The first client's, of TCP over IPv4. With several Services the lower half of its destination is zero.
    pub(crate) frame: &'a [u8],
    /// A power of two.
    pub(crate) flows: u32,
    /// The flows go to so many addresses, the frame's and those that follow.
    pub(crate) services: u32,
    /// They go up to our own stack, and not on.
    pub(crate) goes_up: bool,
}

impl Turn<'_> {
    /// How many runs one measurement takes.
    pub(crate) fn runs(&self) -> u32 {
        LEAST_RUNS.max(self.flows)
    }

    /// `struct turn` of `flows.c`.
    fn encode(&self, is_empty: bool) -> Result<[u8; TURN]> {
        let mut bytes = Vec::from((self.flows - 1).to_le_bytes());
        bytes.extend(u32::from(is_empty).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.services.to_le_bytes());
        bytes.extend(self.frame.get(..HEADERS).context("a short frame")?);
        bytes.resize(TURN, 0);
        bytes.try_into().ok().context("another size")
    }
}

impl Turns {
    /// Loads it on the maps that are pinned in this folder.
    pub(crate) fn load(pins: &Path) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(pins)
            .load(&object("flows.c")?)?;
        load(program(&mut ebpf)?)?;
        Ok(Self(ebpf))
    }

    /// The mean time of a run, which has to send the packet on or up; with `is_empty`, that of one that leaves the
    /// ingress program out: what the measurement itself takes.
    pub(crate) fn cost(&mut self, host: &Host, turn: Turn<'_>, is_empty: bool) -> Result<Duration> {
        let mut map: Array<_, [u8; TURN]> = self.0.map_mut("turn").context("no map")?.try_into()?;
        map.set(0, turn.encode(is_empty)?, 0)?;
        let program = program(&mut self.0)?;
        let options = TestRunOptions {
            data_in: Some(turn.frame),
            repeat: turn.runs(),
            ..TestRunOptions::new()
        };
        let result = host.run(|| Ok(program.test_run(options)?))?;
        let verdict = result.return_value.cast_signed();
        let expected = if is_empty || turn.goes_up {
            TestRun::NEXT
        } else {
            TestRun::REDIRECT
        };
        ensure!(verdict == expected, "verdict {verdict}");
        Ok(result.duration)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf.program_mut("herald_flows").context("no program")?;
    Ok(program.try_into()?)
}
