// The fibers behind host.h, and the one function that Rust calls.
#include "host.h"

#include <map>
#include <string>
#include <ucontext.h>
#include <vector>

Index threadIdx, blockIdx, gridDim;

namespace {

struct Kernel {
    void (*function)();
    Runner runner;
    unsigned arguments;
};

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

constexpr unsigned THREADS = 256;
constexpr size_t STACK = 64 * 1024;

ucontext_t scheduler, fibers[THREADS];
bool finished[THREADS];
unsigned current;
const Kernel *running;
void **arguments;

void enter() {
    running->runner(running->function, arguments);
    finished[current] = true;
    swapcontext(&fibers[current], &scheduler);
}

// All threads to their next barrier, or to the end; whether they all came to the same. A barrier that some threads never reach is
// a fault on a GPU too.
bool turn(bool *done) {
    unsigned ended = 0;
    for (current = 0; current < THREADS; current++) {
        threadIdx.x = current;
        swapcontext(&scheduler, &fibers[current]);
        ended += finished[current];
    }
    *done = ended == THREADS;
    return ended == 0 || ended == THREADS;
}

} // namespace

void Registrar::add(const char *name, void (*kernel)(), Runner runner, unsigned arguments) {
    kernels()[name] = {kernel, runner, arguments};
}

void __syncthreads() { swapcontext(&fibers[current], &scheduler); }

// 0: it ran; 1: no such kernel; 2: another number of arguments; 3: threads ended while others waited at a barrier.
extern "C" int mixskd_emulate(const char *name, unsigned grid_x, unsigned grid_y, void **values, unsigned count) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return 1;
    if (found->second.arguments != count) return 2;
    static std::vector<char> stacks(THREADS * STACK);
    running = &found->second;
    arguments = values;
    gridDim = {grid_x, grid_y};
    for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++) {
            for (unsigned t = 0; t < THREADS; t++) {
                getcontext(&fibers[t]);
                fibers[t].uc_stack.ss_sp = &stacks[t * STACK];
                fibers[t].uc_stack.ss_size = STACK;
                fibers[t].uc_link = nullptr;
                makecontext(&fibers[t], enter, 0);
                finished[t] = false;
            }
            bool done = false;
            while (!done)
                if (!turn(&done)) return 3;
        }
    return 0;
}
