// Every kernel in one module.
#include "delay.cu"
#include "map.cu"
#include "norm.cu"
#include "optim.cu"
#include "pool.cu"
#include "loss.cu"
#include "update.cu"
#include "sum.cu"
