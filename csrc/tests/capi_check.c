/* The C API, from a plain C program: the header compiles as one, and every function takes nothing
 * at all, with null for what is not there. tests/test_c_api.py links it with the built objects. */
#include <stdio.h>

#include "evergrad/evergrad.h"

static int passed, failed;

static void check(int holds, const char* what) {
  if (holds) {
    ++passed;
  } else {
    ++failed;
    printf("failed: %s\n", what);
  }
}

#define CHECK(x) check((x), #x)
#define OK(call) check((call) == EVERGRAD_OK, #call)

static void check_empty(void) {
  double sum = 7;
  OK(evergrad_zero(0, NULL));
  OK(evergrad_matmul(0, 3, 3, 3, NULL, 0, 0, 0, NULL, 0, 0, 0, NULL, 0, 0, 0));
  OK(evergrad_matmul(3, 0, 3, 3, NULL, 0, 0, 0, NULL, 0, 0, 0, NULL, 0, 0, 0));
  OK(evergrad_linear(0, 4, 4, NULL, NULL, NULL, 0, NULL, NULL, NULL));
  OK(evergrad_linear_backward(0, 4, 4, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL));
  OK(evergrad_softmax(0, 4, NULL, NULL));
  OK(evergrad_softmax(4, 0, NULL, NULL));
  OK(evergrad_layer_norm(0, 4, NULL, NULL, NULL, NULL, 1e-5f, NULL, NULL, NULL, NULL));
  OK(evergrad_activation(EVERGRAD_ACTIVATION_GELU, 0, NULL, NULL));
  OK(evergrad_gated(EVERGRAD_ACTIVATION_SILU, 0, 4, NULL, 4, NULL, 4, NULL));
  OK(evergrad_embedding(0, 4, NULL, NULL, 0, NULL));
  OK(evergrad_cross_entropy(0, 4, NULL, NULL, -100, 0, NULL, NULL));
  OK(evergrad_sample(0, 4, NULL, 1, 0, 1, 0, 1, 0, NULL));
  OK(evergrad_dropout(0, NULL, 0.5, 1, 0, NULL));
  OK(evergrad_sgd_step(0, NULL, NULL, NULL, 0.1, 0, 0, 0, 0, 1, 1));
  OK(evergrad_mse_sum(0, NULL, NULL, &sum));
  CHECK(sum == 0);
  evergrad_pool_free(NULL);
}

/* Strides as the header says: any for A and B, gaps behind the rows of C. */
static void check_strides(void) {
  const float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 0, 2, 1, 0, 3};
  float c[7] = {9, 9, 9, 9, 9, 9, 9};
  /* A backwards: [[6, 5, 4], [3, 2, 1]]; B turned: [[1, 1], [0, 0], [2, 3]]. */
  OK(evergrad_matmul(1, 2, 2, 3, a + 5, 0, -3, -1, b, 0, 1, 3, c, 0, 4, 0));
  CHECK(c[0] == 14 && c[1] == 18 && c[4] == 5 && c[5] == 6);
  CHECK(c[2] == 9 && c[3] == 9 && c[6] == 9);
  OK(evergrad_matmul(1, 2, 2, 0, NULL, 0, 0, 0, NULL, 0, 0, 0, c, 0, 4, 1));
  CHECK(c[0] == 14 && c[5] == 6);
  OK(evergrad_matmul(1, 2, 2, 0, NULL, 0, 0, 0, NULL, 0, 0, 0, c, 0, 4, 0));
  CHECK(c[0] == 0 && c[5] == 0 && c[2] == 9);
}

static void check_kinds(void) {
  float x[256] = {0}, out[256] = {0};
  uint8_t bytes[1024] = {0};
  int kind;
  for (kind = -2; kind < EVERGRAD_Q6_K + 3; ++kind) {
    const int status = kind >= 0 && kind <= EVERGRAD_Q6_K ? EVERGRAD_OK : EVERGRAD_UNAVAILABLE;
    CHECK((evergrad_quantized_bytes(kind, 256) > 0) == (status == EVERGRAD_OK));
    CHECK(evergrad_unpack(kind, 1, 256, bytes, NULL, out) == status);
    CHECK(evergrad_linear_quantized(kind, 1, 256, 1, x, bytes, NULL, 0, NULL, NULL, out) == status);
  }
}

static void check_runtime(void) {
  CHECK(evergrad_api_version() == EVERGRAD_API_VERSION);
  CHECK(evergrad_set_isa("none") == EVERGRAD_UNAVAILABLE);
  evergrad_set_num_threads(-5);
  CHECK(evergrad_get_num_threads() == 1);
  evergrad_set_num_threads(2147483647);
  CHECK(evergrad_get_num_threads() <= 1024);
}

int main(void) {
  check_empty();
  check_strides();
  check_kinds();
  check_runtime();
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
