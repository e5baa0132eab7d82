//! Many elements of a map by one system call, which aya has not.
#![expect(
    unsafe_code,
    reason = "BPF_MAP_LOOKUP_BATCH has no safe wrapper among our dependencies"
)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `bpf_attr` of `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h).
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Up to so many elements of a BPF map of type `PERCPU_ARRAY` whose values are N numbers each: from the first
/// on, or from the one after this one, by one call (Linux 5.13). Each is an index and its value on each of the
/// machine's possible CPUs.
pub(super) fn per_cpu_elements<const N: usize>(
    map: BorrowedFd<'_>,
    after: Option<u32>,
    elements: u32,
    cpus: usize,
) -> io::Result<(Vec<u32>, Vec<[u64; N]>)> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
    let room = usize::try_from(elements).map_err(io::Error::other)?;
    let mut keys = vec![0_u32; room];
    let mut values = vec![[0_u64; N]; room.saturating_mul(cpus)];
    let mut last = 0_u32;
    let address = |pointer: usize| u64::try_from(pointer).map_err(io::Error::other);
    let mut attr = LookupBatch {
        in_batch: match &after {
            Some(after) => address(std::ptr::from_ref(after).expose_provenance())?,
            None => 0,
        },
        out_batch: address((&raw mut last).expose_provenance())?,
        keys: address(keys.as_mut_ptr().expose_provenance())?,
        values: address(values.as_mut_ptr().expose_provenance())?,
        count: elements,
        map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes at most `count` keys of four bytes and, for each, N numbers on each possible
    // CPU, which is what the vectors have room for, and one key to `last`; all live until after the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            &raw mut attr,
            size_of::<LookupBatch>(),
        )
    };
    let error = io::Error::last_os_error();
    // ENOENT: the map's last element was among them.
    if answer != 0 && error.kind() != io::ErrorKind::NotFound {
        return Err(error);
    }
    let found = usize::try_from(attr.count).map_err(io::Error::other)?;
    keys.truncate(found);
    values.truncate(found.saturating_mul(cpus));
    Ok((keys, values))
}
