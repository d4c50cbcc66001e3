// Nothing, for a while: the host gets ahead of the GPU, so that what is timed behind it does not wait for launches.
#include "common.cuh"

// The processor that stands in for a GPU has nothing to wait for.
#ifdef __CUDACC__
KERNEL void delay(u32 microseconds) {
    if (threadIdx.x != 0) return;
    // Of a GPU's clock of one to two GHz.
    long long begin = clock64();
    while (clock64() - begin < 2000ll * microseconds);
}
#endif
