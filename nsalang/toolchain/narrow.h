/* Narrow floats as their bits, for TileLang programs that run on the CPU as C++. Every conversion rounds to nearest, ties to even. */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* The generated text declares what it calls with C linkage. */
extern "C" {
static inline uint32_t nsa_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}

static inline float nsa_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

static inline int32_t nsa_signed_bits(float x) { return (int32_t)nsa_bits(x); }
static inline float nsa_signed_float(int32_t i) { return nsa_float((uint32_t)i); }

/* +0 > -0, and a NaN gives way to the other operand; fmaxf promises neither of two zeros. */
static inline float nsa_max(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  return a == b ? nsa_float(nsa_bits(a) & nsa_bits(b)) : a > b ? a : b;
}

static inline float nsa_min(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  return a == b ? nsa_float(nsa_bits(a) | nsa_bits(b)) : a < b ? a : b;
}

static inline bool nsa_isnan(float x) { return (nsa_bits(x) & 0x7fffffffu) > 0x7f800000u; }
static inline bool nsa_isinf(float x) { return (nsa_bits(x) & 0x7fffffffu) == 0x7f800000u; }
static inline float nsa_add(float a, float b) { return a + b; }
static inline float nsa_sub(float a, float b) { return a - b; }
static inline float nsa_mul(float a, float b) { return a * b; }
static inline float nsa_div(float a, float b) { return a / b; }
static inline bool nsa_not(bool x) { return !x; }
static inline float nsa_rsqrt(float x) { return (float)(1.0 / sqrt((double)x)); }

/* The same of doubles. */
static inline int64_t nsa_bits64(double x) {
  int64_t i;
  memcpy(&i, &x, 8);
  return i;
}

static inline double nsa_double(int64_t i) {
  double x;
  memcpy(&x, &i, 8);
  return x;
}

static inline double nsa_max64(double a, double b) {
  if (a != a) return b;
  if (b != b) return a;
  return a == b ? nsa_double(nsa_bits64(a) & nsa_bits64(b)) : a > b ? a : b;
}

static inline double nsa_min64(double a, double b) {
  if (a != a) return b;
  if (b != b) return a;
  return a == b ? nsa_double(nsa_bits64(a) | nsa_bits64(b)) : a < b ? a : b;
}

static inline bool nsa_isnan64(double x) { return (nsa_bits64(x) & INT64_MAX) > 0x7ff0000000000000; }
static inline double nsa_add64(double a, double b) { return a + b; }
static inline double nsa_sub64(double a, double b) { return a - b; }
static inline double nsa_mul64(double a, double b) { return a * b; }
static inline double nsa_div64(double a, double b) { return a / b; }
static inline double nsa_rsqrt64(double x) { return 1.0 / sqrt(x); }

static inline int32_t nsa_clz32(int32_t x) { return x ? __builtin_clz((uint32_t)x) : 32; }
static inline int32_t nsa_clz64(int64_t x) { return x ? __builtin_clzll((uint64_t)x) : 64; }

static inline float nsa_from_bf16(uint16_t b) { return nsa_float((uint32_t)b << 16); }

static inline uint16_t nsa_to_bf16(float x) {
  uint32_t u = nsa_bits(x);
  if (nsa_isnan(x)) return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
}

/* A format with M mantissa bits and exponent bias B: the magnitude's bits for |x| given as f32 bits, before overflow is looked at. */
template <int M, int B> static inline uint32_t nsa_magnitude(uint32_t u) {
  if (u < ((uint32_t)(128 - B) << 23)) {
    /* Below the least normal number: adding 2^(24 - B - M) leaves the rounded multiple of the least subnormal in the low bits. */
    const uint32_t k = (uint32_t)(127 + 24 - B - M) << 23;
    return nsa_bits(nsa_float(u) + nsa_float(k)) - k;
  }
  u += ((1u << (22 - M)) - 1u) + ((u >> (23 - M)) & 1u);
  return (u - ((uint32_t)(127 - B) << 23)) >> (23 - M);
}

template <int M, int B> static inline float nsa_widen(uint32_t sign, uint32_t a) {
  if ((a >> M) == 0) return nsa_float(sign | nsa_bits((float)a * nsa_float((uint32_t)(128 - B - M) << 23)));
  return nsa_float(sign | ((a << (23 - M)) + ((uint32_t)(127 - B) << 23)));
}

extern "C" {
static inline float nsa_from_f16(uint16_t b) {
  uint32_t sign = (uint32_t)(b & 0x8000u) << 16, a = b & 0x7fffu;
  if (a >= 0x7c00u) return nsa_float(sign | 0x7f800000u | ((a & 0x3ffu) << 13));
  return nsa_widen<10, 15>(sign, a);
}

static inline uint16_t nsa_to_f16(float x) {
  uint32_t u = nsa_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (nsa_isnan(x)) return (uint16_t)(sign | 0x7e00u);
  uint32_t r = a >= 0x47800000u ? 0x7c00u : nsa_magnitude<10, 15>(a);
  return (uint16_t)(sign | (r > 0x7c00u ? 0x7c00u : r));
}

/* fp8 saturates, infinity too; NaN stays NaN. */
static inline uint8_t nsa_to_e4m3(float x) {
  uint32_t u = nsa_bits(x), sign = (u >> 24) & 0x80u, a = u & 0x7fffffffu;
  if (nsa_isnan(x)) return (uint8_t)(sign | 0x7fu);
  return (uint8_t)(sign | (a >= 0x43e00000u ? 0x7eu : nsa_magnitude<3, 7>(a)));
}

static inline uint8_t nsa_to_e5m2(float x) {
  uint32_t u = nsa_bits(x), sign = (u >> 24) & 0x80u, a = u & 0x7fffffffu;
  if (nsa_isnan(x)) return (uint8_t)(sign | 0x7fu);
  return (uint8_t)(sign | (a >= 0x47600000u ? 0x7bu : nsa_magnitude<2, 15>(a)));
}

static inline float nsa_from_e4m3(uint8_t b) {
  uint32_t sign = (uint32_t)(b & 0x80u) << 24, a = b & 0x7fu;
  return a == 0x7fu ? nsa_float(sign | 0x7fc00000u) : nsa_widen<3, 7>(sign, a);
}

static inline float nsa_from_e5m2(uint8_t b) {
  uint32_t sign = (uint32_t)(b & 0x80u) << 24, a = b & 0x7fu;
  if (a >= 0x7cu) return nsa_float(sign | (a == 0x7cu ? 0x7f800000u : 0x7fc00000u));
  return nsa_widen<2, 15>(sign, a);
}
}
