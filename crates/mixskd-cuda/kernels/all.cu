// Every kernel in one module.
#include "norm.cu"
#include "pool.cu"
#include "loss.cu"
#include "update.cu"
