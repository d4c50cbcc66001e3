// The fibers behind host.h, and the one function that Rust calls.
#include "host.h"

#include <csetjmp>
#include <map>
#include <string>
#include <vector>

#include "fiber.h"
#include "racecheck.h"

Index threadIdx, blockIdx, gridDim;

namespace {

struct Kernel {
    void (*function)();
    Runner runner;
    unsigned arguments;
    // Whether its threads wait for each other; not known until one has run.
    bool barriers = false;
};

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

constexpr unsigned THREADS = 256;
constexpr size_t STACK = 64 * 1024;

Fiber scheduler, fibers[THREADS];
bool finished[THREADS];
unsigned current;
const Kernel *running;
void **arguments;
// Set while threads run one after the other on the caller's own stack, which a kernel without barriers may do.
bool direct;
jmp_buf barrier;

void enter() {
    running->runner(running->function, arguments);
    finished[current] = true;
    fiber_switch(&fibers[current], &scheduler);
}

// All threads to their next barrier, or to the end; whether they all came to the same. A barrier that some threads never reach is
// a fault on a GPU too.
bool turn(bool *done) {
    unsigned ended = 0;
    for (current = 0; current < THREADS; current++) {
        threadIdx.x = current;
        watch.thread = current;
        fiber_switch(&scheduler, &fibers[current]);
        ended += finished[current];
    }
    *done = ended == THREADS;
    return ended == 0 || ended == THREADS;
}

// All threads of a block, each to its end; false where the first meets a barrier. What it has written by then it will write again.
bool run_directly() {
    direct = true;
    for (current = 0; current < THREADS; current++) {
        threadIdx.x = current;
        if (setjmp(barrier)) {
            direct = false;
            return false;
        }
        running->runner(running->function, arguments);
    }
    direct = false;
    return true;
}

} // namespace

void add_kernel(const char *name, void (*kernel)(), Runner runner, unsigned arguments) {
    kernels()[name] = {kernel, runner, arguments, false};
}

unsigned atomicAdd(unsigned *to, unsigned value) {
    unsigned before = *to;
    *to += value;
    return before;
}

void __syncthreads() {
    if (direct) longjmp(barrier, 1);
    fiber_switch(&fibers[current], &scheduler);
}

// 0: it ran; 1: no such kernel; 2: another number of arguments; 3: threads ended while others waited at a barrier; 4: a race, for
// `mixskd_race` to tell. With `racecheck` the kernel runs in the variant that says of each use of memory whose it is.
extern "C" int mixskd_emulate(const char *name, unsigned grid_x, unsigned grid_y, void **values, unsigned count, int racecheck) {
    auto found = kernels().find(racecheck ? std::string("racecheck ") + name : name);
    if (found == kernels().end()) return 1;
    if (found->second.arguments != count) return 2;
    static std::vector<char> stacks(THREADS * STACK);
    running = &found->second;
    arguments = values;
    gridDim = {grid_x, grid_y};
    if (racecheck) watch_launch(stacks.data(), stacks.data() + stacks.size());
    int status = 0;
    for (blockIdx.y = 0; blockIdx.y < grid_y && status == 0; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid_x && status == 0; blockIdx.x++) {
            if (!found->second.barriers && !racecheck) {
                if (run_directly()) continue;
                // Of threads that have ended none comes to the barrier.
                if (current != 0) return 3;
                found->second.barriers = true;
            }
            for (unsigned t = 0; t < THREADS; t++) {
                fiber_start(&fibers[t], &stacks[t * STACK], STACK, enter);
                finished[t] = false;
            }
            watch_block();
            bool done = false;
            while (!done && status == 0) {
                watch.turn++;
                if (!turn(&done)) status = 3;
            }
        }
    bool raced = watch_end();
    return status == 0 && raced ? 4 : status;
}
