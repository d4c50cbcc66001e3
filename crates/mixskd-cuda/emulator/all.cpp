// The kernels, for the processor at hand.
#include "../kernels/all.cu"
