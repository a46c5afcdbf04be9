// Products with a weight that is stored as its kept values and a bitmask, and the expansion of its rows.
//
// The caller has checked (tamp_lightning/kernels/form.py) that bits past the last column are zero and that `starts`
// counts the bits before each row, the last one's included up to `count`; nothing here is read beyond that.

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

struct Matrix {
  const void* values;      // [count], row by row
  int64_t count;
  const uint64_t* mask;    // [rows, words]; bit i of a word is its i-th column
  const int32_t* starts;   // [rows, starts_stride]; the first of a row is the index of its first value
  int64_t starts_stride;
  int64_t words;
  const uint16_t* scales;  // [rows, groups], bfloat16, for values that are whole numbers
  int64_t groups;
};

struct Product {
  Matrix a;
  const float* x;          // [batch, words * 64], zero past the last column
  const float* ordered;    // x with the columns in the order in which the vectors hold them
  int64_t batch;
  const float* bias;       // [rows] or null
  float* y;                // [batch, rows]
  int64_t rows;
};

struct Expansion {
  Matrix a;
  int64_t first;           // row
  void* out;               // [last - first, words * 64]
};

// Two whole numbers of 4 bits to a byte, the first in the lower half: the place of one of them.
struct Nibbles {
  const uint8_t* bytes;
  int64_t at;
  int8_t operator*() const { return static_cast<int8_t>(bytes[at >> 1] << (at & 1 ? 0 : 4)) >> 4; }
  Nibbles& operator+=(int64_t n) { at += n; return *this; }
  Nibbles& operator++() { ++at; return *this; }
};
inline Nibbles operator+(Nibbles p, int64_t n) { return {p.bytes, p.at + n}; }
inline int64_t operator-(Nibbles a, Nibbles b) { return a.at - b.at; }
inline const char* address(Nibbles p) { return reinterpret_cast<const char*>(p.bytes + (p.at >> 1)); }
template <class Stored>
const char* address(const Stored* p) { return reinterpret_cast<const char*>(p); }

template <class Type>
struct Plain {
  using Stored = Type;
  using Pointer = const Type*;
  static constexpr bool kScaled = false;
  static Pointer first(const Matrix& a) { return static_cast<Pointer>(a.values); }
};

struct BFloat16 : Plain<uint16_t> {
  static float number(Stored bits) {
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
};

struct Float16 : Plain<uint16_t> {
  static float number(Stored bits) {
    // exponent and mantissa in float32's place, then scaled: right for subnormals too
    uint32_t wide = static_cast<uint32_t>(bits & 0x7fff) << 13, scale = 0x77800000u, sign = (bits & 0x8000u) << 16;
    float value, factor;
    std::memcpy(&value, &wide, 4);
    std::memcpy(&factor, &scale, 4);
    value *= factor;
    std::memcpy(&wide, &value, 4);
    if ((bits & 0x7c00) == 0x7c00) wide |= 0x7f800000u;
    wide |= sign;
    std::memcpy(&value, &wide, 4);
    return value;
  }
};

struct Float32 : Plain<float> {
  static float number(Stored value) { return value; }
};

struct Int8 : Plain<int8_t> {
  static constexpr bool kScaled = true;
  static float number(int8_t value) { return value; }
};

struct Int4 {
  using Stored = float;  // what is written where rows are expanded
  using Pointer = Nibbles;
  static constexpr bool kScaled = true;
  static Nibbles first(const Matrix& a) { return {static_cast<const uint8_t*>(a.values), 0}; }
  static float number(int8_t value) { return value; }
};

// What the values of a word's columns are times: two words of 64 columns share it.
template <class V>
float scale_of(const Matrix& a, int64_t row, int64_t word) {
  return V::kScaled ? BFloat16::number(a.scales[row * a.groups + word / 2]) : 1.0f;
}

struct Shuffles {
  alignas(64) uint8_t pairs[256][16] = {};  // of 16-bit values; 0x80 writes zero
  alignas(64) uint8_t ones[256][8] = {};
  alignas(64) uint8_t bytes[256][32] = {};  // of 8-bit values, each to the upper end of 32 bits; its lanes see the same 8
  alignas(64) uint64_t nibbles[256] = {};   // the upper half of every kept byte
  constexpr Shuffles() {
    for (int bits = 0; bits < 256; ++bits) {
      int next = 0;
      for (int i = 0; i < 8; ++i) {
        const bool kept = bits >> i & 1;
        ones[bits][i] = static_cast<uint8_t>(kept ? next : 0x80);
        pairs[bits][2 * i] = static_cast<uint8_t>(kept ? 2 * next : 0x80);
        for (int end = 0; end < 4; ++end)
          bytes[bits][4 * i + end] = static_cast<uint8_t>(kept && end == 3 ? next : 0x80);
        if (kept) nibbles[bits] |= uint64_t{0xf0} << 8 * i;
        pairs[bits][2 * i + 1] = static_cast<uint8_t>(kept ? 2 * next + 1 : 0x80);
        next += kept;
      }
    }
  }
};
constexpr Shuffles kShuffles;

inline uint64_t rotated(uint64_t bits, int down) { return bits >> (down & 63) | bits << (-down & 63); }

// One word without vectors: also what the others do where fewer than 64 values are left to read.
template <class V>
inline typename V::Pointer add_word(uint64_t bits, typename V::Pointer p, const float* x, float scale, float& sum) {
  float part = V::kScaled ? 0 : sum;
  for (; bits; bits &= bits - 1, ++p) part += V::number(*p) * x[__builtin_ctzll(bits)];
  sum = V::kScaled ? sum + scale * part : part;
  return p;
}

namespace portable {
template <class V>
void multiply(const Product& job, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r)
    for (int64_t b = 0; b < job.batch; ++b) {
      auto p = V::first(job.a) + job.a.starts[r * job.a.starts_stride];
      float sum = 0;
      for (int64_t w = 0; w < job.a.words; ++w)
        p = add_word<V>(job.a.mask[r * job.a.words + w], p, job.x + (b * job.a.words + w) * 64,
                        scale_of<V>(job.a, r, w), sum);
      job.y[b * job.rows + r] = sum + (job.bias ? job.bias[r] : 0.0f);
    }
}

template <class V, bool kWiden>
void expand(const Expansion& job, int64_t first, int64_t last) {
  using Out = typename std::conditional<kWiden, float, typename V::Stored>::type;
  const int64_t words = job.a.words;
  for (int64_t r = first; r < last; ++r) {
    auto p = V::first(job.a) + job.a.starts[r * job.a.starts_stride];
    Out* out = static_cast<Out*>(job.out) + (r - job.first) * words * 64;
    std::memset(out, 0, sizeof(Out) * words * 64);
    for (int64_t w = 0; w < words; ++w, out += 64)
      for (uint64_t bits = job.a.mask[r * words + w]; bits; bits &= bits - 1, ++p) {
        if constexpr (kWiden) out[__builtin_ctzll(bits)] = V::number(*p) * scale_of<V>(job.a, r, w);
        else out[__builtin_ctzll(bits)] = *p;
      }
  }
}
}  // namespace portable

#if defined(__x86_64__)
namespace avx2 {
#define FEATURES "avx2,fma,f16c,popcnt,bmi,bmi2"
#define TARGET __attribute__((target(FEATURES), always_inline)) inline
#define KERNEL __attribute__((target(FEATURES)))
using Vector = __m256;
constexpr int kLanes = 8;
TARGET Vector zero() { return _mm256_setzero_ps(); }
TARGET Vector all(float value) { return _mm256_set1_ps(value); }
TARGET Vector times(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
TARGET Vector load(const float* p) { return _mm256_loadu_ps(p); }
TARGET void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
TARGET Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
TARGET float sum(Vector v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
TARGET __m128i spread8(const uint16_t* p, uint32_t bits) {
  const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm_shuffle_epi8(stored, _mm_load_si128(reinterpret_cast<const __m128i*>(kShuffles.pairs[bits])));
}
TARGET void copy(uint16_t* out, const uint16_t* p, uint32_t bits) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), spread8(p, bits));
}
// The 16 columns from the k-th of a word on; entries of the shuffles have 16 bytes, so that 16 times a byte is an offset.
TARGET __m256i spread16(const uint16_t*& p, uint64_t word, int k) {
  const char* shuffles = reinterpret_cast<const char*>(kShuffles.pairs);
  const uint64_t low = rotated(word, k - 4) & 0xff0, high = rotated(word, k + 4) & 0xff0;
  const uint16_t* second = p + __builtin_popcount(static_cast<uint32_t>(low));
  const __m256i stored = _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(second), reinterpret_cast<const __m128i*>(p));
  const __m256i from = _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(shuffles + low))),
      _mm_load_si128(reinterpret_cast<const __m128i*>(shuffles + high)), 1);
  p = second + __builtin_popcount(static_cast<uint32_t>(high));
  return _mm256_shuffle_epi8(stored, from);
}
template <class V>
struct Lanes;
template <>
struct Lanes<BFloat16> {
  static constexpr int kVectors = 2;  // the even columns, then the odd: the upper half of a pair is its odd one as float32
  TARGET static Vector widen(const uint16_t* p, uint32_t bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(spread8(p, bits)), 16));
  }
  TARGET static void next(const uint16_t*& p, uint64_t word, int k, Vector* weights) {
    const __m256i pairs = spread16(p, word, k);
    weights[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    weights[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
};
template <>
struct Lanes<Float16> {
  static constexpr int kVectors = 2;
  TARGET static Vector widen(const uint16_t* p, uint32_t bits) { return _mm256_cvtph_ps(spread8(p, bits)); }
  TARGET static void next(const uint16_t*& p, uint64_t word, int k, Vector* weights) {
    const __m256i pairs = spread16(p, word, k);
    weights[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(pairs));
    weights[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(pairs, 1));
  }
};
template <>
struct Lanes<Float32> {
  static constexpr int kVectors = 1;
  TARGET static Vector widen(const float* p, uint32_t bits) {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kShuffles.ones[bits]));
    const __m256i from = _mm256_cvtepi8_epi32(packed);
    return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_srai_epi32(from, 31)),
                            _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), from));
  }
  TARGET static void next(const float*& p, uint64_t word, int k, Vector* weights) {
    const uint32_t bits = word >> k & 0xff;
    weights[0] = widen(p, bits);
    p += __builtin_popcount(bits);
  }
};
TARGET void copy(float* out, const float* p, uint32_t bits) { store(out, Lanes<Float32>::widen(p, bits)); }
template <>
struct Lanes<Int8> {
  static constexpr int kVectors = 1;
  static constexpr float kUnit = 1.0f / (1 << 24);  // what a vector holds is the number over this
  TARGET static Vector spread(const int8_t* p, const void* from) {
    int64_t stored;
    std::memcpy(&stored, p, 8);
    const __m256i shuffle = _mm256_load_si256(static_cast<const __m256i*>(from));
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(_mm256_set1_epi64x(stored), shuffle));
  }
  TARGET static Vector widen(const int8_t* p, uint32_t bits) { return spread(p, kShuffles.bytes[bits]); }
  TARGET static void next(const int8_t*& p, uint64_t word, int k, Vector* weights) {
    const uint64_t offset = rotated(word, k - 5) & 0x1fe0;
    weights[0] = spread(p, reinterpret_cast<const char*>(kShuffles.bytes) + offset);
    p += __builtin_popcount(static_cast<uint32_t>(offset));
  }
};
TARGET uint64_t spread8(Nibbles p, uint32_t bits) {
  uint64_t stored;
  std::memcpy(&stored, p.bytes + (p.at >> 1), 8);
  return _pdep_u64(stored >> (p.at & 1) * 4, kShuffles.nibbles[bits]);
}
template <>
struct Lanes<Int4> {
  static constexpr int kVectors = 1;
  static constexpr float kUnit = 1.0f / 16;
  TARGET static Vector widen(Nibbles p, uint32_t bits) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(spread8(p, bits)))));
  }
  TARGET static void next(Nibbles& p, uint64_t word, int k, Vector* weights) {
    const uint32_t bits = word >> k & 0xff;
    weights[0] = widen(p, bits);
    p += __builtin_popcount(bits);
  }
};
#include "rows.h"
#undef FEATURES
#undef TARGET
#undef KERNEL
}  // namespace avx2

namespace avx512 {
#define FEATURES "avx512f,avx512bw,avx512vl,avx512vbmi2,avx2,fma,f16c,popcnt,bmi,bmi2"
#define TARGET __attribute__((target(FEATURES), always_inline)) inline
#define KERNEL __attribute__((target(FEATURES)))
using Vector = __m512;
constexpr int kLanes = 16;
TARGET Vector zero() { return _mm512_setzero_ps(); }
TARGET Vector all(float value) { return _mm512_set1_ps(value); }
TARGET Vector times(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
TARGET Vector load(const float* p) { return _mm512_loadu_ps(p); }
TARGET void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
TARGET Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
TARGET float sum(Vector v) { return _mm512_reduce_add_ps(v); }
TARGET __m256i spread16(const uint16_t* p, uint32_t bits) {
  return _mm256_maskz_expand_epi16(static_cast<__mmask16>(bits), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TARGET void copy(uint16_t* out, const uint16_t* p, uint32_t bits) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), spread16(p, bits));
}
TARGET void copy(float* out, const float* p, uint32_t bits) {
  store(out, _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), load(p)));
}
template <class V>
struct Lanes;
template <>
struct Lanes<BFloat16> {
  static constexpr int kVectors = 2;
  TARGET static Vector widen(const uint16_t* p, uint32_t bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(spread16(p, bits)), 16));
  }
  TARGET static void next(const uint16_t*& p, uint64_t word, int k, Vector* weights) {
    const uint32_t here = static_cast<uint32_t>(word >> k);
    const __m512i pairs = _mm512_maskz_expand_epi16(here, _mm512_loadu_si512(p));
    p += __builtin_popcount(here);
    weights[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    weights[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
};
template <>
struct Lanes<Float16> {
  static constexpr int kVectors = 1;
  TARGET static Vector widen(const uint16_t* p, uint32_t bits) { return _mm512_cvtph_ps(spread16(p, bits)); }
  TARGET static void next(const uint16_t*& p, uint64_t word, int k, Vector* weights) {
    const uint32_t bits = word >> k & 0xffff;
    weights[0] = widen(p, bits);
    p += __builtin_popcount(bits);
  }
};
template <>
struct Lanes<Float32> {
  static constexpr int kVectors = 1;
  TARGET static Vector widen(const float* p, uint32_t bits) {
    return _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), load(p));
  }
  TARGET static void next(const float*& p, uint64_t word, int k, Vector* weights) {
    const uint32_t bits = word >> k & 0xffff;
    weights[0] = widen(p, bits);
    p += __builtin_popcount(bits);
  }
};
template <>
struct Lanes<Int8> {
  static constexpr int kVectors = 1;
  static constexpr float kUnit = 1;
  TARGET static Vector widen(const int8_t* p, uint32_t bits) {
    const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_expand_epi8(static_cast<__mmask16>(bits), stored)));
  }
  TARGET static void next(const int8_t*& p, uint64_t word, int k, Vector* weights) {
    const uint32_t bits = word >> k & 0xffff;
    weights[0] = widen(p, bits);
    p += __builtin_popcount(bits);
  }
};
template <>
struct Lanes<Int4> {
  static constexpr int kVectors = 1;
  static constexpr float kUnit = 1.0f / 16;
  TARGET static Vector widen(Nibbles p, uint32_t bits) {
    const Nibbles second = p + __builtin_popcount(bits & 0xff);
    const auto low = static_cast<int64_t>(avx2::spread8(p, bits & 0xff));
    const auto high = static_cast<int64_t>(avx2::spread8(second, bits >> 8));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_set_epi64x(high, low)));
  }
  TARGET static void next(Nibbles& p, uint64_t word, int k, Vector* weights) {
    const uint32_t bits = word >> k & 0xffff;
    weights[0] = widen(p, bits);
    p += __builtin_popcount(bits);
  }
};
#include "rows.h"
#undef FEATURES
#undef TARGET
#undef KERNEL
}  // namespace avx512
#endif

template <class Job>
using Rows = void (*)(const Job&, int64_t, int64_t);

// What follows picks a function by instruction set and by type of the values; null where there is none.
#if defined(__x86_64__)
#define BY_SET(NAME, ...) \
  (set == 2 ? avx512::NAME<__VA_ARGS__> : set == 1 ? avx2::NAME<__VA_ARGS__> : portable::NAME<__VA_ARGS__>)
#else
#define BY_SET(NAME, ...) portable::NAME<__VA_ARGS__>
#endif

Rows<Product> multiplier(int set, int type) {
  if (type == 4) return BY_SET(multiply, Int4);
  if (type == 3) return BY_SET(multiply, Int8);
  return type == 0 ? BY_SET(multiply, BFloat16) : type == 1 ? BY_SET(multiply, Float16) : BY_SET(multiply, Float32);
}

Rows<Expansion> expander(int set, int type, bool widen) {
  if (type == 4) return BY_SET(expand, Int4, true);
  if (type == 3) return BY_SET(expand, Int8, true);
  if (type == 2) return BY_SET(expand, Float32, false);
  if (type == 1) return widen ? BY_SET(expand, Float16, true) : BY_SET(expand, Float16, false);
  return widen ? BY_SET(expand, BFloat16, true) : BY_SET(expand, BFloat16, false);
}

// As vectors of bfloat16 hold so many columns: the even ones first.
template <int kColumns>
void evens_first(const float* x, int64_t size, float* out) {
  for (int64_t start = 0; start < size; start += kColumns)
    for (int i = 0; i < kColumns / 2; ++i) {
      out[start + i] = x[start + 2 * i];
      out[start + kColumns / 2 + i] = x[start + 2 * i + 1];
    }
}

// Rows go to the threads in pieces, as they ask for more: a core that is busy elsewhere does not hold up the rest.
template <class Job>
void share(Rows<Job> rows, const Job& job, int64_t first, int64_t last, int threads) {
  constexpr int64_t kPiece = 32;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t start = first; start < last; start += kPiece)
    rows(job, start, start + kPiece < last ? start + kPiece : last);
}

}  // namespace

extern "C" {

// 0 = no vectors, 1 = AVX2, 2 = AVX-512 with VBMI2
int tamp_best_set() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vbmi2");
  return avx2 && avx512 ? 2 : avx2 ? 1 : 0;
#else
  return 0;
#endif
}

void tamp_multiply(int set, int type, const void* values, int64_t count, const void* mask, const void* starts,
                   int64_t starts_stride, const void* scales, int64_t groups, int64_t rows, int64_t words, const void* x, int64_t batch, const void* bias,
                   void* y, int threads) {
  const Matrix a{values, count, static_cast<const uint64_t*>(mask), static_cast<const int32_t*>(starts), starts_stride,
                 words, static_cast<const uint16_t*>(scales), groups};
  Product job{a, static_cast<const float*>(x), static_cast<const float*>(x), batch, static_cast<const float*>(bias),
              static_cast<float*>(y), rows};
  std::vector<float> ordered;
  if (set > 0 && type == 0) {
    ordered.resize(batch * words * 64);
    (set == 2 ? evens_first<32> : evens_first<16>)(job.x, batch * words * 64, ordered.data());
    job.ordered = ordered.data();
  }
  share(multiplier(set, type), job, 0, rows, threads);
}

void tamp_expand(int set, int type, const void* values, int64_t count, const void* mask, const void* starts,
                 int64_t starts_stride, const void* scales, int64_t groups, int64_t words, int64_t first, int64_t last, int widen, void* out, int threads) {
  const Matrix a{values, count, static_cast<const uint64_t*>(mask), static_cast<const int32_t*>(starts), starts_stride,
                 words, static_cast<const uint16_t*>(scales), groups};
  share(expander(set, type, widen != 0), Expansion{a, first, out}, first, last, threads);
}

}  // extern "C"
