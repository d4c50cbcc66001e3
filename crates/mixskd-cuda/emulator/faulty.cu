// What racecheck has to find, and what it has to leave alone.
#include "../kernels/common.cuh"

// One thread's value read by another without a barrier between.
KERNEL void faulty_shared(const float *x, float *y) {
    __shared__ float part[BLOCK];
    part[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = part[threadIdx.x / 2];
}
REGISTER(faulty_shared)

// Written again while others may still read.
KERNEL void faulty_again(const float *x, float *y) {
    __shared__ float part[BLOCK];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float other = part[min(threadIdx.x + 1, BLOCK - 1)];
    part[threadIdx.x] = other;
    __syncthreads();
    y[threadIdx.x] = part[threadIdx.x];
}
REGISTER(faulty_again)

// Half of what is read was written.
KERNEL void faulty_unwritten(const float *x, float *y) {
    __shared__ float part[BLOCK];
    if (threadIdx.x < BLOCK / 2) part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = part[threadIdx.x];
}
REGISTER(faulty_unwritten)

// Every block writes one element.
KERNEL void faulty_blocks(const float *x, float *y) {
    if (threadIdx.x == 0) y[0] = x[blockIdx.x];
}
REGISTER(faulty_blocks)

// One block reads what another writes.
KERNEL void faulty_neighbour(const float *x, float *y) {
    if (threadIdx.x == 0) y[blockIdx.x] = blockIdx.x == 0 ? x[0] : y[blockIdx.x - 1];
}
REGISTER(faulty_neighbour)

// Two read what the second of them then writes.
KERNEL void faulty_readers(const float *x, float *y) {
    __shared__ float part[BLOCK];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < 2) y[threadIdx.x] = part[5];
    if (threadIdx.x == 1) part[5] = 0;
}
REGISTER(faulty_readers)

// The last block writes what all have read.
KERNEL void faulty_last(const float *x, float *y) {
    if (threadIdx.x > 0) return;
    y[1 + blockIdx.x] = y[0];
    if (blockIdx.x == gridDim.x - 1) y[0] = x[0];
}
REGISTER(faulty_last)

// One element more than there is.
KERNEL void faulty_end(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
REGISTER(faulty_end)

// Shared memory taken up again behind barriers, and an element that two threads use in turn.
KERNEL void sound(const float *x, float *y) {
    float total = block_sum(x[threadIdx.x]), top = block_max(x[threadIdx.x]);
    if (threadIdx.x == 0) y[blockIdx.x] = total;
    __syncthreads();
    if (threadIdx.x == 1) y[blockIdx.x] += top;
}
REGISTER(sound)
