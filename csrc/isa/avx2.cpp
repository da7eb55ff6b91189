// The kernels for avx2. Nothing but the table leaves this unit.
#include "simd/vec_avx2.h"

#include "kernels/all.h"

EVERGRAD_TABLE(avx2);
