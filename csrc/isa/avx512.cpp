// The kernels for avx512. Nothing but the table leaves this unit.
#include "simd/vec_avx512.h"

#include "kernels/all.h"

EVERGRAD_TABLE(avx512);
