//! The system calls that no crate of ours wraps.
#![expect(
    unsafe_code,
    reason = "sockaddr_ll, poll and the scheduler have no safe wrapper among our dependencies"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use herald_model::IfIndex;
use herald_speaker_core::Priority;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// A packet socket of one interface and Ethernet type that sees what the filter lets through, and
/// nothing before the filter was there.
pub(crate) fn packet_socket(
    interface: IfIndex,
    ether_type: u16,
    filter: &[SockFilter],
) -> io::Result<Socket> {
    // Protocol 0: nothing arrives until the socket is bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    socket.bind(&link_address(interface, ether_type)?)?;
    Ok(socket)
}

fn link_address(interface: IfIndex, ether_type: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(interface.0).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the platform's sockaddr types, and the storage outlives the
    // reference.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::c_ushort::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = index;
    let length =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the family is AF_PACKET, and the storage holds a whole sockaddr_ll of this length.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// Waits until one of the descriptors can be read, or the time is up; `None`: without end. Says
/// for each whether it can be read.
pub(crate) fn wait_readable(
    descriptors: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|descriptor| libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // Rounded up, so that a wake-up is never too early for the deadline it was meant for.
    let millis = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    let count = polled.len() as libc::nfds_t;
    // SAFETY: the pointer and the count describe one live, exclusively borrowed vector.
    let answer = unsafe { libc::poll(polled.as_mut_ptr(), count, millis) };
    if answer < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(polled.iter().map(|polled| polled.revents != 0).collect())
}

/// Gives the calling thread the best priority that the kernel allows.
pub(crate) fn raise_priority() -> Priority {
    // The kernel's struct sched_param (include/uapi/linux/sched/types.h) is one int; musl's has more.
    let parameters: libc::c_int = 10;
    // musl's own sched_setscheduler only says ENOSYS; thread 0 is the calling one.
    // SAFETY: the pointer is to a live int, which the kernel only reads.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO,
            &raw const parameters,
        )
    };
    if answer == 0 {
        return Priority::RealTime;
    }
    // SAFETY: takes no pointer; process 0 is the calling thread on Linux.
    let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    if answer == 0 {
        Priority::Nice
    } else {
        Priority::Normal
    }
}
