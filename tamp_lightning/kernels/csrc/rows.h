// Included once per instruction set, inside its namespace: the loops over rows and words, from its vectors.

template <class V, int kRows, int kBatch>
KERNEL void multiply_block(const Product& job, int64_t row, int64_t batch) {
  using Pointer = typename V::Pointer;
  constexpr int kVectors = Lanes<V>::kVectors, kColumns = kVectors * kLanes;
  const int64_t words = job.a.words;
  const Pointer values = V::first(job.a);
  Pointer p[kRows];
  Vector sums[kRows][kBatch];
  float rest[kRows][kBatch] = {};
  for (int r = 0; r < kRows; ++r) {
    p[r] = values + job.a.starts[(row + r) * job.a.starts_stride];
    for (int b = 0; b < kBatch; ++b) sums[r][b] = zero();
  }
  const uint64_t* mask = job.a.mask + row * words;
  // Rows are short streams, which the processor does not foresee: those of the next block are fetched meanwhile.
  const int64_t span = row + kRows < job.rows ? values + job.a.starts[(row + kRows) * job.a.starts_stride] - p[0] : 0;
  for (int64_t w = 0; w < words; ++w) {
    if (p[kRows - 1] - values > job.a.count - 64) {  // the last row's values lie behind all others
      const float* x = job.x + (batch * words + w) * 64;
      for (int r = 0; r < kRows; ++r) {
        Pointer end = p[r];
        for (int b = 0; b < kBatch; ++b)
          end = add_word<V>(mask[r * words + w], p[r], x + b * words * 64, scale_of<V>(job.a, row + r, w), rest[r][b]);
        p[r] = end;
      }
      continue;
    }
    const float* x = job.ordered + (batch * words + w) * 64;
    uint64_t bits[kRows];
    for (int r = 0; r < kRows; ++r) bits[r] = mask[r * words + w];
    if (w % 8 == 0)
      for (int r = 0; r < kRows; ++r)
        _mm_prefetch(reinterpret_cast<const char*>(mask + (r + kRows) * words + w), _MM_HINT_T1);
    for (int r = 0; r < kRows; ++r) _mm_prefetch(address(p[r] + span), _MM_HINT_T1);
    Vector parts[kRows][kBatch];  // of this word, where its values have a scale
    for (int r = 0; r < kRows; ++r)
      for (int b = 0; b < kBatch; ++b) parts[r][b] = zero();
#pragma GCC unroll 8
    for (int k = 0; k < 64; k += kColumns) {
      Vector inputs[kBatch][kVectors];
#pragma GCC unroll 8
      for (int i = 0; i < kBatch * kVectors; ++i)
        inputs[i / kVectors][i % kVectors] = load(x + i / kVectors * words * 64 + k + i % kVectors * kLanes);
      if (kBatch == 1)
        for (int v = 0; v < kVectors; ++v) asm("" : "+v"(inputs[0][v]));  // loaded once for all rows: loads are what is scarce
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        Vector weights[kVectors];
        Lanes<V>::next(p[r], bits[r], k, weights);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 4
          for (int b = 0; b < kBatch; ++b) {
            Vector& sum = V::kScaled ? parts[r][b] : sums[r][b];
            sum = fma(weights[v], inputs[b][v], sum);
          }
      }
    }
    if constexpr (V::kScaled)
      for (int r = 0; r < kRows; ++r) {
        const Vector scale = all(scale_of<V>(job.a, row + r, w) * Lanes<V>::kUnit);
        for (int b = 0; b < kBatch; ++b) sums[r][b] = fma(parts[r][b], scale, sums[r][b]);
      }
  }
  for (int r = 0; r < kRows; ++r)
    for (int b = 0; b < kBatch; ++b)
      job.y[(batch + b) * job.rows + row + r] =
          sum(sums[r][b]) + rest[r][b] + (job.bias ? job.bias[row + r] : 0.0f);
}

template <class V, int kRows>
KERNEL void multiply_rows(const Product& job, int64_t row) {
  int64_t batch = 0;
  for (; batch + 4 <= job.batch; batch += 4) multiply_block<V, (kRows > 2 ? 2 : kRows), 4>(job, row, batch);
  if (kRows > 2)
    for (int64_t b = 0; b + 4 <= job.batch; b += 4) multiply_block<V, (kRows > 2 ? 2 : kRows), 4>(job, row + 2, b);
  for (; batch + 2 <= job.batch; batch += 2) multiply_block<V, kRows, 2>(job, row, batch);
  if (batch < job.batch) multiply_block<V, kRows, 1>(job, row, batch);
}

template <class V>
KERNEL void multiply(const Product& job, int64_t first, int64_t last) {
  int64_t row = first;
  for (; row + 4 <= last; row += 4) multiply_rows<V, 4>(job, row);
  for (; row < last; ++row) multiply_rows<V, 1>(job, row);
}

template <class V, bool kWiden>
KERNEL void expand(const Expansion& job, int64_t first, int64_t last) {
  using Out = typename std::conditional<kWiden, float, typename V::Stored>::type;
  const int64_t words = job.a.words;
  const typename V::Pointer values = V::first(job.a);
  for (int64_t row = first; row < last; ++row) {
    typename V::Pointer p = values + job.a.starts[row * job.a.starts_stride];
    Out* out = static_cast<Out*>(job.out) + (row - job.first) * words * 64;
    for (int64_t w = 0; w < words; ++w, out += 64) {
      uint64_t bits = job.a.mask[row * words + w];
      if (p - values > job.a.count - 64) {
        std::memset(out, 0, 64 * sizeof(Out));
        for (; bits; bits &= bits - 1, ++p) {
          if constexpr (kWiden) out[__builtin_ctzll(bits)] = V::number(*p) * scale_of<V>(job.a, row, w);
          else out[__builtin_ctzll(bits)] = *p;
        }
        continue;
      }
      for (int k = 0; k < 64; k += kLanes, bits >>= kLanes) {
        const uint32_t here = static_cast<uint32_t>(bits & ((1u << kLanes) - 1));
        if constexpr (V::kScaled)
          store(out + k, times(Lanes<V>::widen(p, here), all(scale_of<V>(job.a, row, w) * Lanes<V>::kUnit)));
        else if constexpr (kWiden) store(out + k, Lanes<V>::widen(p, here));
        else copy(out + k, p, here);
        p += __builtin_popcount(here);
      }
    }
  }
}
