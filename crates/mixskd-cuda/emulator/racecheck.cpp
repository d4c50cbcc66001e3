// Races within a launch. A compiler's thread sanitizer has each load and store tell its address; what is called is here, in place of the
// sanitizer's own library, which knows nothing of fibers. On a GPU nothing but a barrier puts two threads' uses in order, and nothing at all those of two blocks:
// of two uses of the same bytes, one of them writing, by threads between the same barriers or by blocks, the launch has a race. A block's shared
// memory holds nothing before the block has written it.
#include "racecheck.h"

#ifdef __linux__
#include "host.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <unordered_map>

Watch watch;

// Of the program, by its linker: between them lies what is `static` and begins as zeros, and so shared memory, and nothing that a launch is given.
extern "C" char __bss_start[], _end[];

namespace {

// The last that used some bytes in one way, 0 being none; and whether other threads did since the same barrier, or other blocks ever.
struct Use {
    uint64_t block : 32, turn : 22, thread : 8, threads : 1, blocks : 1;
};

struct Cell {
    Use read, written;
};

// Bytes that are told apart: no kernel writes single ones.
constexpr uintptr_t GRAIN = 2;
constexpr uintptr_t PAGE = 4096;

struct Page {
    uint64_t launch = 0;
    Cell cells[PAGE / GRAIN];
};

// Those of some launches, taken up again by later ones.
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
constexpr size_t MOST_PAGES = 16384;
uintptr_t last_number;
Page *last_page;

// Arrays that somebody told of, by their first address. While there are any, no kernel may use other memory.
std::multimap<uintptr_t, size_t> arrays;

bool is_known(uintptr_t from, size_t size) {
    auto after = arrays.upper_bound(from);
    if (after == arrays.begin()) return false;
    auto own = std::prev(after);
    for (uintptr_t first = own->first; own->first == first; own--) {
        if (from + size <= first + own->second) return true;
        if (own == arrays.begin()) break;
    }
    return false;
}

uint64_t launch;
uintptr_t stacks_from, stacks_to;
char found[256];

Cell &cell(uintptr_t address) {
    uintptr_t number = address / PAGE;
    if (number != last_number || !last_page) {
        auto &page = pages[number];
        if (!page) page.reset(new Page);
        if (page->launch != launch) {
            memset(page->cells, 0, sizeof page->cells);
            page->launch = launch;
        }
        last_number = number;
        last_page = page.get();
    }
    return last_page->cells[address % PAGE / GRAIN];
}

bool by_others(const Use &use, bool shared) {
    if (use.block == 0) return false;
    if (use.block != watch.block) return !shared;
    if (use.blocks && !shared) return true;
    return use.turn == watch.turn && (use.threads || use.thread != watch.thread);
}

void note(Use &use) {
    bool block = use.block == watch.block, turn = block && use.turn == watch.turn;
    use.threads = turn && (use.threads || use.thread != watch.thread);
    use.blocks = use.blocks || (use.block != 0 && !block);
    use.block = watch.block;
    use.turn = watch.turn;
    use.thread = watch.thread;
}

void tell(const char *what, const char *memory, const Use &use) {
    if (found[0]) return;
    snprintf(found, sizeof found, "%s %s memory: block %u, thread %u, and block %u, thread %u%s", what, memory, (uint32_t)use.block - 1, (uint32_t)use.thread,
             watch.block - 1, watch.thread, use.block == watch.block ? ", between the same barriers" : "");
}

void touch(const void *at, size_t size, bool writes) {
    uintptr_t from = (uintptr_t)at;
    if (!watch.on || (from >= stacks_from && from < stacks_to)) return;
    if (at == &threadIdx.x || at == &blockIdx.x || at == &blockIdx.y || at == &gridDim.x || at == &gridDim.y) return;
    bool shared = at >= __bss_start && at < _end;
    if (!shared && !arrays.empty() && !is_known(from, size) && !found[0])
        snprintf(found, sizeof found, "block %u, thread %u %s %zu bytes outside of all arrays", watch.block - 1, watch.thread,
                 writes ? "writes" : "reads", size);
    const char *memory = shared ? "shared" : "global";
    for (uintptr_t grain = from / GRAIN; grain * GRAIN < from + size; grain++) {
        Cell &own = cell(grain * GRAIN);
        if (by_others(own.written, shared)) tell(writes ? "two write the same" : "one writes and one reads the same", memory, own.written);
        if (writes && by_others(own.read, shared)) tell("one reads and one writes the same", memory, own.read);
        if (!writes && shared && own.written.block != watch.block && !found[0])
            snprintf(found, sizeof found, "block %u, thread %u reads shared memory that nothing has been written to", watch.block - 1, watch.thread);
        note(writes ? own.written : own.read);
    }
}

} // namespace

void watch_launch(const void *stacks, const void *stacks_end) {
    stacks_from = (uintptr_t)stacks;
    stacks_to = (uintptr_t)stacks_end;
    if (pages.size() > MOST_PAGES) pages.clear();
    last_page = nullptr;
    launch++;
    watch = {true, 0, 0, 0};
    found[0] = 0;
}

void watch_block() {
    watch.block++;
    watch.turn = 0;
}

bool watch_end() {
    bool raced = watch.on && found[0];
    watch.on = false;
    return raced;
}

extern "C" {

const char *mixskd_race() { return found; }

void mixskd_array(const void *from, size_t size, int is_there) {
    uintptr_t first = (uintptr_t)from;
    if (is_there) {
        // Who lies in the new one's place is gone, whoever was told.
        for (auto one = arrays.begin(); one != arrays.end();) {
            bool overlaps = one->first < first + size && first < one->first + one->second;
            one = overlaps && one->first != first ? arrays.erase(one) : std::next(one);
        }
        arrays.emplace(first, size);
    } else if (auto one = arrays.find(first); one != arrays.end()) arrays.erase(one);
}

#define USES(size)                                                                                                    \
    void __tsan_read##size(void *at) { touch(at, size, false); }                                                      \
    void __tsan_write##size(void *at) { touch(at, size, true); }                                                      \
    void __tsan_unaligned_read##size(void *at) { touch(at, size, false); }                                            \
    void __tsan_unaligned_write##size(void *at) { touch(at, size, true); }
USES(1)
USES(2)
USES(4)
USES(8)
USES(16)
void __tsan_read_range(void *at, size_t size) { touch(at, size, false); }
void __tsan_write_range(void *at, size_t size) { touch(at, size, true); }
void *__tsan_memcpy(void *to, const void *from, size_t size) {
    touch(from, size, false);
    touch(to, size, true);
    return memcpy(to, from, size);
}
void *__tsan_memmove(void *to, const void *from, size_t size) {
    touch(from, size, false);
    touch(to, size, true);
    return memmove(to, from, size);
}
void *__tsan_memset(void *to, int value, size_t size) {
    touch(to, size, true);
    return memset(to, value, size);
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
}

#else // There is no variant of the kernels that would call it.

Watch watch;

void watch_launch(const void *, const void *) {}
void watch_block() {}
bool watch_end() { return false; }
extern "C" const char *mixskd_race() { return ""; }
extern "C" void mixskd_array(const void *, unsigned long, int) {}

#endif
