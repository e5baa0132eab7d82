/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The programs with a clock that the test sets. */
#include "kernel.h"

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
} clock SEC(".maps");

INLINE __u64 read_clock(void)
{
	__u32 zero = 0;
	__u64 *now = bpf_map_lookup_elem(&clock, &zero);

	return now ? *now : 0;
}

#define bpf_ktime_get_coarse_ns read_clock
#include "herald.c"
