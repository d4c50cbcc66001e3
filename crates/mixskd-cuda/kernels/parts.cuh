// Several arrays as a launch is given them.
#pragma once

#include "common.cuh"

// One of several arrays that are added up: `len` elements, of which the first belongs to element `first` of the sum.
struct Part {
    const void *x;
    u32 first, len;
};
constexpr u32 PARTS = 16;
struct Parts {
    Part slot[PARTS];
};
