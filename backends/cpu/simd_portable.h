// The vector vocabulary of the kernels for any processor: GNU vectors of 32 bytes, which GCC and Clang turn into what
// the processor has; elsewhere arrays with the same operators. Included inside an unnamed namespace after
// formats/float_types.h; simd_avx512.h comments the operations.
#if defined(__GNUC__)
typedef float Float8 __attribute__((vector_size(32)));
typedef int32_t Int8x32 __attribute__((vector_size(32)));
typedef int16_t Int16x16 __attribute__((vector_size(32)));
QUANT_INLINE Float8 convert(Int8x32 a) {
    return __builtin_convertvector(a, Float8);
}
template <class To, class From>
QUANT_INLINE To same_bits(From a) {
    return reinterpret_cast<To>(a);
}
#else
template <class T>
struct Lanes {
    T v[32 / sizeof(T)];
    T& operator[](int i) { return v[i]; }
    const T& operator[](int i) const { return v[i]; }
};
#define QUANT_LANES_OPERATOR(op)                                                                              \
    template <class T>                                                                                        \
    QUANT_INLINE Lanes<T> operator op(const Lanes<T>& a, const Lanes<T>& b) {                                 \
        Lanes<T> r;                                                                                           \
        for (int i = 0; i < static_cast<int>(32 / sizeof(T)); ++i) r.v[i] = static_cast<T>(a.v[i] op b.v[i]); \
        return r;                                                                                             \
    }
QUANT_LANES_OPERATOR(+)
QUANT_LANES_OPERATOR(-)
QUANT_LANES_OPERATOR(*)
QUANT_LANES_OPERATOR(/)
QUANT_LANES_OPERATOR(&)
QUANT_LANES_OPERATOR(|)
#undef QUANT_LANES_OPERATOR
template <class T>
QUANT_INLINE Lanes<T> operator<<(const Lanes<T>& a, int n) {
    Lanes<T> r;
    for (int i = 0; i < static_cast<int>(32 / sizeof(T)); ++i)
        r.v[i] = static_cast<T>(static_cast<uint32_t>(a.v[i]) << n);
    return r;
}
template <class T>
QUANT_INLINE Lanes<T> operator>>(const Lanes<T>& a, int n) {
    Lanes<T> r;
    for (int i = 0; i < static_cast<int>(32 / sizeof(T)); ++i) r.v[i] = static_cast<T>(a.v[i] >> n);
    return r;
}
typedef Lanes<float> Float8;
typedef Lanes<int32_t> Int8x32;
typedef Lanes<int16_t> Int16x16;
QUANT_INLINE Float8 convert(const Int8x32& a) {
    Float8 r;
    for (int i = 0; i < 8; ++i) r.v[i] = static_cast<float>(a.v[i]);
    return r;
}
template <class To, class From>
QUANT_INLINE To same_bits(const From& a) {
    To r;
    std::memcpy(&r, &a, sizeof r);
    return r;
}
#endif

struct Simd {
    static constexpr int lanes = 8;
    using Float = Float8;
    using Int = Int8x32;
    using Bytes = Int8x32;
    static constexpr int float_sums = 8;
    QUANT_INLINE static void prefetch(const void*) {}
    QUANT_INLINE static void prefetch_far(const void*) {}

    // ---- Float ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Float set(float x) { return Float{x, x, x, x, x, x, x, x}; }
    QUANT_INLINE static Float load(const float* p) { return load_as<Float>(p, sizeof(Float)); }
    QUANT_INLINE static Float load(const float* p, int n) {
        Float r = set(0);
        std::memcpy(&r, p, n < lanes ? n * sizeof(float) : sizeof r);
        return r;
    }
    QUANT_INLINE static void store(float* p, Float v) { std::memcpy(p, &v, sizeof v); }
    QUANT_INLINE static void store(float* p, Float v, int n) {
        std::memcpy(p, &v, n < lanes ? n * sizeof(float) : sizeof v);
    }
    QUANT_INLINE static Float add(Float a, Float b) { return a + b; }
    QUANT_INLINE static Float sub(Float a, Float b) { return a - b; }
    QUANT_INLINE static Float mul(Float a, Float b) { return a * b; }
    QUANT_INLINE static Float div(Float a, Float b) { return a / b; }
    QUANT_INLINE static Float sqrt(Float a) {
        for (int i = 0; i < lanes; ++i) a[i] = std::sqrt(a[i]);
        return a;
    }
    QUANT_INLINE static Float fma(Float a, Float b, Float c) { return a * b + c; }  // rounded twice
    QUANT_INLINE static Float min(Float a, Float b) {
        for (int i = 0; i < lanes; ++i) a[i] = a[i] < b[i] ? a[i] : b[i];
        return a;
    }
    QUANT_INLINE static Float max(Float a, Float b) {
        for (int i = 0; i < lanes; ++i) a[i] = a[i] > b[i] ? a[i] : b[i];
        return a;
    }
    QUANT_INLINE static Float abs(Float a) { return same_bits<Float>(same_bits<Int>(a) & set_int(0x7fffffff)); }
    QUANT_INLINE static Float nan_to_zero(Float a) {
        for (int i = 0; i < lanes; ++i) a[i] = a[i] == a[i] ? a[i] : 0;
        return a;
    }
    QUANT_INLINE static float reduce_add(Float a) {
        return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
    }
    QUANT_INLINE static float reduce_max(Float a) {
        float m = a[0];
        for (int i = 1; i < lanes; ++i) m = a[i] > m ? a[i] : m;
        return m;
    }
    QUANT_INLINE static Float scale_by_power(Float a, Int n) {  // in two steps: 2^n itself may not be a normal float
        const Int half = n >> 1;
        return a * power_of_two(half) * power_of_two(n - half);
    }
    QUANT_INLINE static Float select_lanes(int first, int end, Float a, Float b) {
        for (int i = 0; i < lanes; ++i) a[i] = i >= first && i < end ? a[i] : b[i];
        return a;
    }

    // ---- Conversions ---------------------------------------------------------------------------------------------
    QUANT_INLINE static Float to_float(Int a) { return convert(a); }
    // For |a| < 2^22: the sum with 1.5 * 2^23 has no fraction bits.
    QUANT_INLINE static Int round(Float a) { return same_bits<Int>(a + set(12582912.0f)) - set_int(0x4b400000); }
    QUANT_INLINE static Float load_f16(const void* p) {
        const Int h = load_u16(p), magnitude = h & set_int(0x7fff);
        const Float value = same_bits<Float>(magnitude << 13) * set(0x1p112f);          // exponent bias 15 -> 127
        const Int special = (set_int(0x7bff) - magnitude) >> 31 & set_int(0x7f800000);  // infinity, NaN
        return same_bits<Float>(same_bits<Int>(value) | special | (h & set_int(0x8000)) << 16);
    }
    QUANT_INLINE static Float load_bf16(const void* p) { return same_bits<Float>(load_u16(p) << 16); }
    QUANT_INLINE static void store_f16(uint16_t* p, Float v) {
        for (int i = 0; i < lanes; ++i) p[i] = f32_to_f16(v[i]);
    }
    QUANT_INLINE static Float load_e4m3(const uint8_t* p) {
        const Int code = load_u8(p), magnitude = code & set_int(0x7f);
        const Float value = same_bits<Float>(magnitude << 20) * set(0x1p120f);  // exponent bias 7 -> 127
        const Int nan = (set_int(0x7e) - magnitude) >> 31 & set_int(0x7fc00000);
        return same_bits<Float>(same_bits<Int>(value) | nan | (code & set_int(0x80)) << 24);
    }

    // ---- Int -----------------------------------------------------------------------------------------------------
    QUANT_INLINE static Int set_int(int32_t x) { return Int{x, x, x, x, x, x, x, x}; }
    QUANT_INLINE static Int add(Int a, Int b) { return a + b; }
    QUANT_INLINE static Int sub(Int a, Int b) { return a - b; }
    QUANT_INLINE static Int mul(Int a, Int b) { return a * b; }
    QUANT_INLINE static int32_t reduce_add(Int a) {
        return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
    }
    QUANT_INLINE static Int bit_and(Int a, Int b) { return a & b; }
    QUANT_INLINE static Int bit_or(Int a, Int b) { return a | b; }
    template <int N>  // of lanes that are not negative
    QUANT_INLINE static Int shift_right(Int a) {
        return a >> N;
    }
    template <int N>
    QUANT_INLINE static Int shift_left(Int a) {
        return a << N;
    }
    QUANT_INLINE static Int load_u8(const uint8_t* p) { return Int{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]}; }
    QUANT_INLINE static Int load_s8(const uint8_t* p) { return load_u8(p) << 24 >> 24; }
    QUANT_INLINE static Int load_nibbles(const uint8_t* p) {
        return Int{p[0] & 15, p[1] & 15, p[2] & 15, p[3] & 15, p[0] >> 4, p[1] >> 4, p[2] >> 4, p[3] >> 4};
    }
    QUANT_INLINE static void store_s8(uint8_t* p, Int v) {
        for (int i = 0; i < lanes; ++i) p[i] = static_cast<uint8_t>(v[i]);
    }

    // ---- Codes ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Bytes load_bytes(const uint8_t* p) { return load_as<Bytes>(p, sizeof(Bytes)); }
    QUANT_INLINE static void store_bytes(uint8_t* p, Bytes v) { std::memcpy(p, &v, sizeof v); }
    template <int N>
    QUANT_INLINE static Bytes field(Bytes v, int byte_mask) {
        return (v >> N) & set_int(byte_mask * 0x01010101);
    }
    template <int N>
    QUANT_INLINE static Bytes field_up(Bytes v, int byte_mask) {
        return (v << N) & set_int(byte_mask * 0x01010101);
    }
    static constexpr bool signed_codes = true;
    template <int J>
    QUANT_INLINE static Float column(Bytes v) {
        return convert(v << (24 - 8 * J) >> 24);
    }

    // ---- Integer dot product: bytes 0, 2 and 1, 3 of each lane as 16-bit pairs -----------------------------------
    struct Activations {
        Int16x16 even, odd;
    };
    QUANT_INLINE static Activations broadcast4(const uint8_t* p) {
        auto pair = [](uint8_t low, uint8_t high) QUANT_INLINE_LAMBDA {
            const auto extended = [](uint8_t x) { return static_cast<uint16_t>(static_cast<int8_t>(x)); };
            return same_bits<Int16x16>(set_int(static_cast<int32_t>(extended(low) | uint32_t{extended(high)} << 16)));
        };
        return {pair(p[0], p[2]), pair(p[1], p[3])};
    }
    static constexpr bool fused_dot = true, lane_dot = false, matrix_dot = false;
    static constexpr int bias_8_bits = 0;
    QUANT_INLINE static Int dot(Int sum, Bytes codes, const Activations& a) {
        const Int16x16 both = same_bits<Int16x16>(codes);
        return sum + add_products(both << 8 >> 8, a.even) + add_products(both >> 8, a.odd);
    }

  private:
    template <class V>
    QUANT_INLINE static V load_as(const void* p, size_t bytes) {
        V v;
        std::memcpy(&v, p, bytes);
        return v;
    }
    QUANT_INLINE static Int load_u16(const void* p) {
        uint16_t h[lanes];
        std::memcpy(h, p, sizeof h);
        return Int{h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]};
    }
    QUANT_INLINE static Float power_of_two(Int n) { return same_bits<Float>((n + set_int(127)) << 23); }
    // The two products of each pair, added.
    QUANT_INLINE static Int add_products(Int16x16 a, Int16x16 b) {
#if defined(__GNUC__) && defined(__SSE2__)
        __m128i x[2], y[2];
        std::memcpy(x, &a, sizeof x);
        std::memcpy(y, &b, sizeof y);
        x[0] = _mm_madd_epi16(x[0], y[0]);
        x[1] = _mm_madd_epi16(x[1], y[1]);
        Int r;
        std::memcpy(&r, x, sizeof r);
        return r;
#else
        const Int product = same_bits<Int>(a * b);  // below 2^15 each
        return (product << 16 >> 16) + (product >> 16);
#endif
    }
};
