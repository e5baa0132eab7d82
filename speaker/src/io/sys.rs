//! The system calls that no crate of ours wraps.
#![expect(
    unsafe_code,
    reason = "sockaddr_ll, ppoll, SO_BINDTOIFINDEX, SO_RCVBUFFORCE, CLOCK_BOOTTIME, if_nametoindex, mlock2 and the scheduler have no safe wrapper among our dependencies"
)]

use std::ffi::CString;
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;
use std::{fs, io};

use herald_model::{IfIndex, InterfaceName};
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

/// The index of the interface that has this name now.
pub(crate) fn interface_index(name: &InterfaceName) -> Option<IfIndex> {
    let name = CString::new(name.as_str()).ok()?;
    // SAFETY: the pointer is to a string that ends with zero and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(IfIndex(index))
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
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
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

/// Of two threads that could run, which one does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Urgency {
    /// That of the one that answers and hears the rings.
    First = 10,
    /// That of those that follow what it heard.
    Second = 5,
}

/// Gives the calling thread the best priority that the kernel allows.
pub(crate) fn raise_priority(urgency: Urgency) -> Priority {
    // The kernel's struct sched_param (include/uapi/linux/sched/types.h) is one int; musl's has more.
    let parameters = urgency as libc::c_int;
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

/// Keeps the program's code, this thread's stack and what buffers there are in memory, as far as
/// `RLIMIT_MEMLOCK` goes: no answer has to wait for a page to be read from disk. Whether all the code is.
pub(crate) fn lock_memory() -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let here = std::ptr::from_ref(&maps).addr();
    let mut code_is_locked = true;
    for part in memory_to_lock(&maps, here) {
        // Only what is used of it: whole arenas are not.
        // SAFETY: the kernel changes nothing in these pages, and refuses what is not mapped any more.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mlock2,
                part.range.start,
                part.range.len(),
                libc::MLOCK_ONFAULT,
            )
        };
        code_is_locked &= answer == 0 || part.what != Memory::Code;
    }
    code_is_locked
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    what: Memory,
    range: Range<usize>,
}

/// In the order of importance: code can be dropped whenever memory is short, the rest only where there is swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Memory {
    Code,
    Stack,
    Buffers,
}

/// The parts of `/proc/self/maps`, the most important first, then the smallest; of the stack in which `here` is only
/// what this thread may come to use.
fn memory_to_lock(maps: &str, here: usize) -> Vec<Part> {
    const STACK: usize = 128 << 10;
    let mut parts: Vec<Part> = maps
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            let permissions = fields.next()?;
            let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
            let (what, start) = if permissions.starts_with("r-x") && is_file {
                (Memory::Code, start)
            } else if !permissions.starts_with("rw") {
                return None;
            } else if (start..end).contains(&here) {
                (Memory::Stack, start.max(here.saturating_sub(STACK)))
            } else {
                (Memory::Buffers, start)
            };
            let range = start..end;
            Some(Part { what, range })
        })
        .collect();
    parts.sort_by_key(|part| (part.what, part.range.len()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_comes_first_then_the_used_end_of_the_own_stack_then_small_buffers() {
        let maps = "\
            10000-12000 r--p 00000000 00:60 7      /herald-speaker\n\
            12000-20000 r-xp 00002000 00:60 7      /herald-speaker\n\
            20000-90000 rw-p 00000000 00:00 0      [heap]\n\
            100000-300000 rw-p 00000000 00:00 0 \n\
            300000-302000 ---p 00000000 00:00 0 \n\
            302000-303000 rw-p 00000000 00:00 0 \n\
            400000-402000 r-xp 00000000 00:00 0    [vdso]\n";
        let parts = memory_to_lock(maps, 0x2f_8000);
        let expected = [
            (Memory::Code, 0x1_2000..0x2_0000),
            (Memory::Stack, 0x2d_8000..0x30_0000),
            (Memory::Buffers, 0x30_2000..0x30_3000),
            (Memory::Buffers, 0x2_0000..0x9_0000),
        ];
        assert_eq!(parts, expected.map(|(what, range)| Part { what, range }));
    }

    #[test]
    fn all_of_this_program_is_found() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let parts = memory_to_lock(&maps, std::ptr::from_ref(&maps).addr());
        for what in [Memory::Code, Memory::Stack, Memory::Buffers] {
            assert!(parts.iter().any(|part| part.what == what), "no {what:?}");
        }
    }
}
