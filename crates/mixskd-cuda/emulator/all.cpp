// The kernels, for the processor at hand.
#include "host.h"

// Functions of the same names are compiled once more for racecheck.
namespace {
#include "../kernels/all.cu"
}
