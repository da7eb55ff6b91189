// The kernels for scalar. Nothing but the table leaves this unit.
#include "simd/vec_scalar.h"

#include "kernels/all.h"

EVERGRAD_TABLE(scalar);
