// The kernels for neon. Nothing but the table leaves this unit.
#include "simd/vec_neon.h"

#include "kernels/all.h"

EVERGRAD_TABLE(neon);
