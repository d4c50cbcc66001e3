// Who uses memory now, for racecheck.cpp.
#pragma once

#include <cstdint>

struct Watch {
    bool on;
    unsigned thread;
    // Counted from one; of a block, its turns from barrier to barrier.
    uint32_t block, turn;
};
extern Watch watch;

// Uses are noted from here on, but for what lies in the threads' own stacks.
void watch_launch(const void *stacks, const void *stacks_end);
void watch_block();
// Whether anything was found.
bool watch_end();
