// Operations on single rows. Included inside an unnamed namespace after codes.inl.

// e^x, relative error below 2e-7: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by its series to r^7 (the rest is below
// 1e-8), times 2^n. From 88.8 on infinity; below -87.3 the value there, 1.2e-38.
QUANT_INLINE Float exp(Float x) {
    x = Simd::min(Simd::max(x, Simd::set(-87.33f)), Simd::set(100));
    const Int n = Simd::round(Simd::mul(x, Simd::set(1.44269504f)));
    const Float whole = Simd::to_float(n);
    // ln 2 in two parts; n times the first is exact.
    Float r = Simd::fma(whole, Simd::set(-0.693359375f), x);
    r = Simd::fma(whole, Simd::set(2.12194440e-4f), r);
    Float p = Simd::set(1.f / 5040);
    p = Simd::fma(p, r, Simd::set(1.f / 720));
    p = Simd::fma(p, r, Simd::set(1.f / 120));
    p = Simd::fma(p, r, Simd::set(1.f / 24));
    p = Simd::fma(p, r, Simd::set(1.f / 6));
    p = Simd::fma(p, r, Simd::set(0.5f));
    p = Simd::fma(p, r, Simd::set(1));
    p = Simd::fma(p, r, Simd::set(1));
    return Simd::scale_by_power(p, n);
}

// f(index, lanes in use) for a row, a vector at a time.
template <class F>
QUANT_INLINE void each_vector(int64_t cols, F f) {
    int64_t i = 0;
    for (; i + lanes <= cols; i += lanes) f(i, Constant<lanes>{});
    if (i < cols) f(i, static_cast<int>(cols - i));
}
QUANT_INLINE Float load_part(const float* p, int n) {
    return Simd::load(p, n);
}
QUANT_INLINE Float load_part(const float* p, Constant<lanes>) {
    return Simd::load(p);
}
QUANT_INLINE void store_part(float* p, Float v, int n) {
    Simd::store(p, v, n);
}
QUANT_INLINE void store_part(float* p, Float v, Constant<lanes>) {
    Simd::store(p, v);
}

void rmsnorm(const float* in, const float* weight, float eps, int64_t cols, float* out) {
    Float sums[4] = {Simd::set(0), Simd::set(0), Simd::set(0), Simd::set(0)};
    int64_t i = 0;
    for (; i + 4 * lanes <= cols; i += 4 * lanes)
        for (int j = 0; j < 4; ++j) {
            const Float x = Simd::load(in + i + j * lanes);
            sums[j] = Simd::fma(x, x, sums[j]);
        }
    each_vector(cols - i, [&](int64_t at, auto n) QUANT_INLINE_LAMBDA {
        const Float x = load_part(in + i + at, n);
        sums[0] = Simd::fma(x, x, sums[0]);
    });
    const float sum = Simd::reduce_add(Simd::add(Simd::add(sums[0], sums[1]), Simd::add(sums[2], sums[3])));
    const Float factor = Simd::div(Simd::set(1), Simd::sqrt(Simd::set(sum / static_cast<float>(cols) + eps)));
    each_vector(cols, [&](int64_t at, auto n) QUANT_INLINE_LAMBDA {
        store_part(out + at, Simd::mul(Simd::mul(load_part(in + at, n), factor), load_part(weight + at, n)), n);
    });
}

void silu_mul(const float* gate, const float* up, int64_t cols, float* out) {
    each_vector(cols, [&](int64_t at, auto n) QUANT_INLINE_LAMBDA {
        const Float g = load_part(gate + at, n);
        const Float e = exp(Simd::sub(Simd::set(0), g));
        store_part(out + at, Simd::mul(Simd::div(g, Simd::add(Simd::set(1), e)), load_part(up + at, n)), n);
    });
}

void add(const float* a, const float* b, int64_t cols, float* out) {
    each_vector(cols, [&](int64_t at, auto n) QUANT_INLINE_LAMBDA {
        store_part(out + at, Simd::add(load_part(a + at, n), load_part(b + at, n)), n);
    });
}

QUANT_INLINE float largest_magnitude(const float* in, int64_t cols) {
    Float largest = Simd::set(0);
    each_vector(cols, [&](int64_t at, auto n)
                          QUANT_INLINE_LAMBDA { largest = larger_magnitude(load_part(in + at, n), largest); });
    return Simd::reduce_max(largest);
}

void quantize_s8(const float* in, int64_t cols, uint8_t* codes, RowScale* scale) {
    const float largest = largest_magnitude(in, cols);
    const Float inverse = Simd::set(largest > 0 ? 127.0f / largest : 0.0f);
    Int sum = Simd::set_int(0);
    each_vector(cols, [&](int64_t at, auto n) QUANT_INLINE_LAMBDA {
        const Int code = round_code(Simd::mul(load_part(in + at, n), inverse));
        sum = Simd::add(sum, code);
        Simd::store_s8(codes + at, code);  // whole vectors: the padding of a row is as long as a vector at least
    });
    const int64_t written = (cols + lanes - 1) / lanes * lanes;
    std::memset(codes + written, 0, static_cast<size_t>((cols + 63) / 64 * 64 - written));
    *scale = {largest / 127.0f, Simd::reduce_add(sum)};
}

// Half to even, clamped to 448; NaN gives NaN.
QUANT_INLINE uint8_t to_e4m3(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
    // Normal: the 20 bits below the third mantissa bit round to even, the exponent's bias goes from 127 to 7.
    const uint32_t normal = ((magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20) - (120 << 3);
    // Below 2^-6: a multiple of 2^-9, which adding 2^14 (whose last bit is 2^-9) rounds to.
    float small;
    std::memcpy(&small, &magnitude, 4);
    small += 16384.0f;
    uint32_t subnormal;
    std::memcpy(&subnormal, &small, 4);
    subnormal -= 0x46800000;
    uint32_t code = magnitude < 0x3c800000 ? subnormal : normal;
    code = magnitude >= 0x43e00000 ? 0x7e : code;  // 448 and more
    return static_cast<uint8_t>(sign | (magnitude > 0x7f800000 ? 0x7f : code));
}

void quantize_e4m3(const float* in, int64_t cols, uint8_t* codes, RowScale* scale) {
    const float from_largest = largest_magnitude(in, cols) / 448.0f, least = 1.0f / (448.0f * 512.0f);
    const float s = from_largest > least ? from_largest : least;
    for (int64_t i = 0; i < cols; ++i) codes[i] = to_e4m3(in[i] / s);
    std::memset(codes + cols, 0, static_cast<size_t>((cols + 63) / 64 * 64 - cols));
    *scale = {s, 0};
}

// The cache's scale of one head's values (core/backend.h), as f16 and as the float that it stands for.
QUANT_INLINE uint16_t head_scale(const float* in, int64_t n, float limit, float* scale) {
    const float from_largest = largest_magnitude(in, n) / limit;
    uint16_t half[lanes];
    float value[lanes];
    Simd::store_f16(half, Simd::set(from_largest < 65504.0f ? from_largest : 65504.0f));
    Simd::store(value, Simd::load_f16(half));
    *scale = value[0];
    return half[0];
}

uint16_t head_s8(const float* in, int64_t n, uint8_t* codes) {
    float scale;
    const uint16_t half = head_scale(in, n, 127, &scale);
    const Float inverse = Simd::set(scale > 0 ? 1 / scale : 0.0f);
    each_vector(n, [&](int64_t at, auto count) QUANT_INLINE_LAMBDA {
        uint8_t part[lanes];
        Simd::store_s8(part, round_code(Simd::mul(load_part(in + at, count), inverse)));
        std::memcpy(codes + at, part, static_cast<size_t>(count));
    });
    return half;
}

uint16_t head_e4m3(const float* in, int64_t n, uint8_t* codes) {
    float scale;
    const uint16_t half = head_scale(in, n, 448, &scale);
    const float inverse = scale > 0 ? 1 / scale : 0.0f;
    for (int64_t i = 0; i < n; ++i) codes[i] = to_e4m3(in[i] * inverse);
    return half;
}

void rope(const float* in, const float* angles, int heads, int head_dim, bool adjacent_pairs, float* out) {
    const int half = head_dim / 2;
    for (int h = 0; h < heads; ++h, in += head_dim, out += head_dim) {
        if (adjacent_pairs) {
            for (int i = 0; i < half; ++i) {
                const float a = in[2 * i], b = in[2 * i + 1], cosine = angles[2 * i], sine = angles[2 * i + 1];
                out[2 * i] = a * cosine - b * sine;
                out[2 * i + 1] = a * sine + b * cosine;
            }
        } else {
            for (int i = 0; i < half; ++i) {
                const float a = in[i], b = in[i + half], cosine = angles[2 * i], sine = angles[2 * i + 1];
                out[i] = a * cosine - b * sine;
                out[i + half] = a * sine + b * cosine;
            }
        }
    }
}

void to_f16(const float* in, int64_t n, uint16_t* out) {
    each_vector(n, [&](int64_t at, auto count) QUANT_INLINE_LAMBDA {
        uint16_t part[lanes];
        Simd::store_f16(part, load_part(in + at, count));
        std::memcpy(out + at, part, static_cast<size_t>(count) * 2);
    });
}
