//! The system calls that no crate of ours wraps.
#![expect(
    unsafe_code,
    reason = "sockaddr_ll, ppoll, SO_BINDTOIFINDEX, SO_RCVBUFFORCE, CLOCK_BOOTTIME, mlockall and the scheduler have no safe wrapper among our dependencies"
)]

use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;
use std::{fs, io};

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

/// Waits for descriptors; allocates only when there are more of them than ever before.
#[derive(Default)]
pub(crate) struct Poller {
    polled: Vec<libc::pollfd>,
}

impl Poller {
    /// Waits until one of the descriptors can be read, or the time is up; `None`: without end.
    pub(crate) fn wait<'a>(
        &mut self,
        descriptors: impl Iterator<Item = BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.polled.clear();
        self.polled
            .extend(descriptors.map(|descriptor| libc::pollfd {
                fd: descriptor.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            }));
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        let count = self.polled.len() as libc::nfds_t;
        // SAFETY: the pointers and the count describe one live, exclusively borrowed vector and one
        // live timespec or none.
        let answer =
            unsafe { libc::ppoll(self.polled.as_mut_ptr(), count, timeout, std::ptr::null()) };
        if answer < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the descriptor in this place could be read after the last wait.
    pub(crate) fn is_readable(&self, place: usize) -> bool {
        self.polled
            .get(place)
            .is_some_and(|polled| polled.revents != 0)
    }
}

/// Lets a socket hear and send on one interface only.
pub(crate) fn bind_to_interface(socket: &Socket, interface: IfIndex) -> io::Result<()> {
    let index = libc::c_int::try_from(interface.0).map_err(io::Error::other)?;
    set_option(socket, libc::SO_BINDTOIFINDEX, index)
}

/// Makes the receive buffer of a socket this large, whatever `net.core.rmem_max` says if we may.
pub(crate) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    set_option(socket, libc::SO_RCVBUFFORCE, value)
        .or_else(|_not_permitted| socket.set_recv_buffer_size(bytes))
}

/// Sets an option of the socket level.
fn set_option(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe one live int, which the kernel only reads.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Nanoseconds since the kernel booted, time in sleep included.
pub(crate) fn boot_nanos() -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec, exclusively borrowed.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanos = u64::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
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

/// Keeps the memory of the process in place, its code included and what it is given later: no answer has to
/// wait for a page to be read from disk. Whether the kernel lets us.
pub(crate) fn lock_memory() -> bool {
    // Under a limit it would be allocations that fail later on (`mlock_future_ok`, mm/mmap.c).
    if !may_lock_all_memory() {
        return false;
    }
    // Only what is used: whole stacks and arenas are not.
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes no pointer.
    let answer = unsafe { libc::mlockall(flags) };
    answer == 0
}

/// Whether we have `CAP_IPC_LOCK`.
fn may_lock_all_memory() -> bool {
    /// Its bit (include/uapi/linux/capability.h).
    const IPC_LOCK: u64 = 1 << 14;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    effective.is_some_and(|bits| bits & IPC_LOCK != 0)
}
