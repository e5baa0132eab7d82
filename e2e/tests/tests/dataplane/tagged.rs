//! Frames that have a VLAN tag.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType};
use herald_dataplane::Counters;
use herald_e2e::netns::Host;
use herald_speaker::io::bpf::load;

use crate::object::object;
use crate::spread;
use crate::world::{Mode, PORT, VIP4, VIP6, World, is_refused};

/// Has a host's frames leave with a tag, for as long as what is returned lives.
fn tag(host: &Host, program: &str) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(&object("tagged.c")?)?;
    let classifier = ebpf.program_mut(program).context("no program")?;
    let classifier: &mut SchedClassifier = classifier.try_into()?;
    load(classifier)?;
    host.run(|| Ok(classifier.attach("eth0", TcAttachType::Egress)?))?;
    Ok(ebpf)
}

#[test]
fn priority_tagged_frames_are_forwarded_like_others() -> Result<()> {
    for mode in [Mode::NodePort, Mode::Direct, Mode::Pods] {
        let world = World::by(mode)?;
        let _tagged = tag(world.client(), "urgent")?;
        for vip in [VIP4, VIP6] {
            assert_eq!(spread(&world, vip, 20)?.len(), 3, "{mode:?} {vip}");
            world.ask(vip, 0)?;
        }
        assert!(world.service(1)?.packets > 0, "{mode:?}");
    }
    Ok(())
}

#[test]
fn frames_of_a_vlan_are_left_alone() -> Result<()> {
    for mode in [Mode::NodePort, Mode::Direct, Mode::Pods] {
        let world = World::by(mode)?;
        let before: Counters = world.counters(1)?;
        let _tagged = tag(world.client(), "vlan")?;
        for vip in [VIP4, VIP6] {
            assert!(is_refused(world.client(), vip, PORT)?, "{mode:?} {vip}");
        }
        assert_eq!(world.counters(1)?, before, "{mode:?}");
    }
    Ok(())
}
