#pragma once
#include <stdint.h>

/// Allocations of the calling thread since its start: the process's malloc counts them.
uint64_t krux_allocations(void);
