//! Putting a program at a hook of an interface, so that it stays there after us.

use std::path::Path;
use std::{fs, io};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, SchedClassifier};
use herald_model::InterfaceName;

use super::Direction;

/// The place of our filter on kernels without tcx. The priority is the first: the packets for a VIP
/// are ours, all others go on to the next filter.
const CLSACT_PRIORITY: u16 = 1;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0x4852);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Puts the program into the link that is pinned there, or makes and pins one. Returns whether it had
/// to be made.
pub(super) fn attach_tcx(
    classifier: &mut SchedClassifier,
    direction: Direction,
    interface: &InterfaceName,
    path: &Path,
) -> Result<bool, AnyError> {
    // Of a link whose interface is gone, or that somebody detached, the kernel takes no program.
    if replace_pinned(classifier, path).is_ok() {
        return Ok(false);
    }
    // What may be pinned there belongs to an interface that is gone and whose number is used again.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    // First, as packets for a VIP are ours and all others go on to the next program.
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = classifier.attach_with_options(interface.as_str(), direction.attach, first)?;
    let link: FdLink = classifier.take_link(id)?.try_into()?;
    link.pin(path)?;
    Ok(true)
}

fn replace_pinned(classifier: &mut SchedClassifier, path: &Path) -> Result<(), AnyError> {
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(path)?))?;
    let id = classifier.attach_to_link(link)?;
    // Letting go of it closes a descriptor; the pin holds the link itself.
    drop(classifier.take_link(id)?);
    Ok(())
}

pub(super) fn clsact_link(
    direction: Direction,
    interface: &InterfaceName,
) -> Result<SchedClassifierLink, io::Error> {
    SchedClassifierLink::attached(
        interface.as_str(),
        direction.attach,
        CLSACT_PRIORITY,
        CLSACT_HANDLE,
        None,
    )
}

/// Replaces our filter if it is there, else adds it. A filter has no owner and needs no pin. Returns
/// whether it had to be added.
pub(super) fn attach_clsact(
    classifier: &mut SchedClassifier,
    direction: Direction,
    interface: &InterfaceName,
) -> Result<bool, AnyError> {
    // Fails if the qdisc is there already; if for another reason, attaching fails as well.
    drop(qdisc_add_clsact(interface.as_str()));
    let present = clsact_link(direction, interface)?;
    let (id, is_new) = if let Ok(id) = classifier.attach_to_link(present) {
        (id, false)
    } else {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: CLSACT_PRIORITY,
            handle: CLSACT_HANDLE,
            classid: None,
        });
        let id = classifier.attach_with_options(interface.as_str(), direction.attach, options)?;
        (id, true)
    };
    // Dropping the link would remove the filter.
    std::mem::forget(classifier.take_link(id)?);
    Ok(is_new)
}
