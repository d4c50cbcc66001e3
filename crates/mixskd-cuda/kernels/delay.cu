// Nothing, for a while: the host gets ahead of the GPU, so that what is timed behind it does not wait for launches.
#include "common.cuh"

// The processor that stands in for a GPU has nothing to wait for.
#ifdef __CUDACC__
extern "C" __global__ void delay(u32 microseconds) {
    if (threadIdx.x != 0) return;
    u64 begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - begin < 1000ull * microseconds);
}
#endif
