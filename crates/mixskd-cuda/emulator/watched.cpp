// The kernels once more, each use of memory told to racecheck.cpp, and some that have a race, to be found.
#define VARIANT "racecheck "
#include "host.h"

namespace {
#include "../kernels/all.cu"
#include "faulty.cu"
}
