// The vector vocabulary of the kernels for any processor: arrays of 8 and loops that compilers turn into vectors.
// Included inside an unnamed namespace; simd_avx512.h comments the operations.
struct Simd {
    static constexpr int lanes = 8;
    struct Float {
        float v[lanes];
    };
    struct Int {
        int32_t v[lanes];
    };
    struct Bytes {
        int8_t v[4 * lanes];
    };

    template <class F>
    QUANT_INLINE static Float each(F f) {
        Float r;
        for (int i = 0; i < lanes; ++i) r.v[i] = f(i);
        return r;
    }
    template <class F>
    QUANT_INLINE static Int each_int(F f) {
        Int r;
        for (int i = 0; i < lanes; ++i) r.v[i] = f(i);
        return r;
    }
    template <class F>
    QUANT_INLINE static Bytes each_byte(F f) {
        Bytes r;
        for (int i = 0; i < 4 * lanes; ++i) r.v[i] = static_cast<int8_t>(f(i));
        return r;
    }

    // ---- Float ----
    QUANT_INLINE static Float set(float x) {
        return each([=](int) { return x; });
    }
    QUANT_INLINE static Float load(const float* p) {
        return each([=](int i) { return p[i]; });
    }
    QUANT_INLINE static Float load(const float* p, int n) {
        return each([=](int i) { return i < n ? p[i] : 0; });
    }
    QUANT_INLINE static void store(float* p, const Float& v) { std::memcpy(p, v.v, sizeof v.v); }
    QUANT_INLINE static void store(float* p, const Float& v, int n) {
        for (int i = 0; i < lanes && i < n; ++i) p[i] = v.v[i];
    }
    QUANT_INLINE static Float add(const Float& a, const Float& b) {
        return each([&](int i) { return a.v[i] + b.v[i]; });
    }
    QUANT_INLINE static Float sub(const Float& a, const Float& b) {
        return each([&](int i) { return a.v[i] - b.v[i]; });
    }
    QUANT_INLINE static Float mul(const Float& a, const Float& b) {
        return each([&](int i) { return a.v[i] * b.v[i]; });
    }
    QUANT_INLINE static Float div(const Float& a, const Float& b) {
        return each([&](int i) { return a.v[i] / b.v[i]; });
    }
    QUANT_INLINE static Float sqrt(const Float& a) {
        return each([&](int i) { return std::sqrt(a.v[i]); });
    }
    QUANT_INLINE static Float fma(const Float& a, const Float& b, const Float& c) {  // rounded twice
        return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
    }
    QUANT_INLINE static Float min(const Float& a, const Float& b) {
        return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
    }
    QUANT_INLINE static Float max(const Float& a, const Float& b) {
        return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
    }
    QUANT_INLINE static Float abs(const Float& a) {
        return each([&](int i) { return float_from_bits(float_bits(a.v[i]) & 0x7fffffffu); });
    }
    QUANT_INLINE static Float nan_to_zero(const Float& a) {
        return each([&](int i) { return a.v[i] == a.v[i] ? a.v[i] : 0; });
    }
    QUANT_INLINE static float reduce_add(const Float& a) {
        return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
    }
    QUANT_INLINE static float reduce_max(const Float& a) {
        float m = a.v[0];
        for (int i = 1; i < lanes; ++i) m = a.v[i] > m ? a.v[i] : m;
        return m;
    }
    QUANT_INLINE static Float scale_by_power(const Float& a, const Int& n) {  // 2^n itself may not be a normal float
        return each([&](int i) {
            int half = n.v[i] / 2;
            return a.v[i] * power_of_two(half) * power_of_two(n.v[i] - half);
        });
    }
    QUANT_INLINE static Float select_lanes(int first, int end, const Float& a, const Float& b) {
        return each([&](int i) { return i >= first && i < end ? a.v[i] : b.v[i]; });
    }

    // ---- Conversions ----
    QUANT_INLINE static Float to_float(const Int& a) {
        return each([&](int i) { return static_cast<float>(a.v[i]); });
    }
    // Half to even, for |a| < 2^22: the sum with 1.5 * 2^23 has no fraction bits.
    QUANT_INLINE static Int round(const Float& a) {
        return each_int([&](int i) {
            return static_cast<int32_t>(float_bits(a.v[i] + 12582912.0f)) - static_cast<int32_t>(0x4b400000);
        });
    }
    QUANT_INLINE static Float load_f16(const void* p) {
        uint16_t h[lanes];
        std::memcpy(h, p, sizeof h);
        return each([&](int i) {
            uint32_t magnitude = h[i] & 0x7fffu;
            float value = float_from_bits(magnitude << 13) * 0x1p112f;  // exponent bias 15 -> 127, subnormals too
            uint32_t bits = magnitude >= 0x7c00u ? 0x7f800000u | magnitude << 13 : float_bits(value);
            return float_from_bits(bits | (h[i] & 0x8000u) << 16);
        });
    }
    QUANT_INLINE static Float load_bf16(const void* p) {
        uint16_t h[lanes];
        std::memcpy(h, p, sizeof h);
        return each([&](int i) { return bf16_to_f32(h[i]); });
    }
    QUANT_INLINE static void store_f16(uint16_t* p, const Float& v) {
        for (int i = 0; i < lanes; ++i) p[i] = f32_to_f16(v.v[i]);
    }
    QUANT_INLINE static Float load_e4m3(const uint8_t* p) {
        return each([&](int i) {
            uint32_t magnitude = p[i] & 0x7fu;
            float value = float_from_bits(magnitude << 20) * 0x1p120f;  // exponent bias 7 -> 127
            uint32_t bits = magnitude == 0x7fu ? 0x7fc00000u : float_bits(value);
            return float_from_bits(bits | (p[i] & 0x80u) << 24);
        });
    }

    // ---- Int ----
    QUANT_INLINE static Int set_int(int32_t x) {
        return each_int([=](int) { return x; });
    }
    QUANT_INLINE static Int add(const Int& a, const Int& b) {
        return each_int([&](int i) { return a.v[i] + b.v[i]; });
    }
    QUANT_INLINE static Int sub(const Int& a, const Int& b) {
        return each_int([&](int i) { return a.v[i] - b.v[i]; });
    }
    QUANT_INLINE static Int mul(const Int& a, const Int& b) {
        return each_int([&](int i) { return a.v[i] * b.v[i]; });
    }
    QUANT_INLINE static int32_t reduce_add(const Int& a) {
        int32_t sum = 0;
        for (int i = 0; i < lanes; ++i) sum += a.v[i];
        return sum;
    }
    QUANT_INLINE static Int bit_and(const Int& a, const Int& b) {
        return each_int([&](int i) { return a.v[i] & b.v[i]; });
    }
    QUANT_INLINE static Int bit_or(const Int& a, const Int& b) {
        return each_int([&](int i) { return a.v[i] | b.v[i]; });
    }
    template <int N>
    QUANT_INLINE static Int shift_right(const Int& a) {
        return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> N); });
    }
    template <int N>
    QUANT_INLINE static Int shift_left(const Int& a) {
        return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << N); });
    }
    QUANT_INLINE static Int load_u8(const uint8_t* p) {
        return each_int([=](int i) { return p[i]; });
    }
    QUANT_INLINE static Int load_s8(const uint8_t* p) {
        return each_int([=](int i) { return static_cast<int8_t>(p[i]); });
    }
    QUANT_INLINE static Int load_nibbles(const uint8_t* p) {
        return each_int([=](int i) { return i < lanes / 2 ? p[i] & 15 : p[i - lanes / 2] >> 4; });
    }
    QUANT_INLINE static void store_s8(uint8_t* p, const Int& v) {
        for (int i = 0; i < lanes; ++i) p[i] = static_cast<uint8_t>(v.v[i]);
    }

    // ---- Codes ----
    QUANT_INLINE static Bytes load_bytes(const uint8_t* p) {
        Bytes r;
        std::memcpy(r.v, p, sizeof r.v);
        return r;
    }
    QUANT_INLINE static void store_bytes(uint8_t* p, const Bytes& v) { std::memcpy(p, v.v, sizeof v.v); }
    QUANT_INLINE static Bytes broadcast4(const uint8_t* p) {
        return each_byte([=](int i) { return p[i % 4]; });
    }
    template <int N>
    QUANT_INLINE static Bytes field(const Bytes& v, int byte_mask) {
        return each_byte([&](int i) { return static_cast<uint8_t>(v.v[i]) >> N & byte_mask; });
    }
    template <int N>
    QUANT_INLINE static Bytes field_up(const Bytes& v, int byte_mask) {
        return each_byte([&](int i) { return static_cast<uint8_t>(v.v[i]) << N & byte_mask; });
    }
    QUANT_INLINE static Bytes bit_or(const Bytes& a, const Bytes& b) {
        return each_byte([&](int i) { return a.v[i] | b.v[i]; });
    }
    static constexpr bool signed_codes = true;
    template <int J>
    QUANT_INLINE static Float column(const Bytes& v) {
        return each([&](int i) { return static_cast<float>(v.v[4 * i + J]); });
    }

    // ---- Integer dot product ----
    static constexpr bool fused_dot = true;
    QUANT_INLINE static Int dot(const Int& sum, const Bytes& codes, const Bytes& activations) {
        return each_int([&](int i) {
            const int8_t *c = codes.v + 4 * i, *a = activations.v + 4 * i;
            return sum.v[i] + (c[0] * a[0] + c[1] * a[1]) + (c[2] * a[2] + c[3] * a[3]);
        });
    }

  private:
    QUANT_INLINE static float power_of_two(int n) { return float_from_bits(static_cast<uint32_t>(n + 127) << 23); }
};
