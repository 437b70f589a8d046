// The vector vocabulary of the kernels for NEON, but for the integer dot product, which each kernels_neon*.cpp adds.
// A vector is two registers: 8 rows of a tile. Included inside an unnamed namespace after arm_neon.h and
// formats/float_types.h; simd_avx512.h comments the operations.
//
// 32-bit ARM's NEON flushes subnormal numbers to zero and neither divides nor takes roots. There, what other parts of
// the library define to the bit (add, sub, mul, div, sqrt, min, max and conversions to smaller types) is done by the
// scalar unit, or on the bits as integers; fma, of which long sums are made, is NEON's own.
#if defined(__aarch64__) || defined(_M_ARM64)
#define QUANT_NEON_64
#endif

struct Neon {
    static constexpr int lanes = 8;
    struct Float {
        float32x4_t lo, hi;
    };
    struct Int {
        int32x4_t lo, hi;
    };
    struct Bytes {  // 4 bytes a lane
        uint8x16_t lo, hi;
    };
#if defined(QUANT_NEON_64)
    static constexpr int float_sums = 12;
#else
    static constexpr int float_sums = 4;
#endif
    QUANT_INLINE static void prefetch(const void* p) {
#if defined(_MSC_VER)
        __prefetch(p);
#else
        __builtin_prefetch(p);
#endif
    }
    QUANT_INLINE static void prefetch_far(const void* p) {  // into the second-level cache
#if defined(_MSC_VER)
        __prefetch2(p, 2);  // PLDL2KEEP
#else
        __builtin_prefetch(p, 0, 2);
#endif
    }

    // ---- Float ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Float set(float x) {
        return {vdupq_n_f32(x), vdupq_n_f32(x)};
    }
    QUANT_INLINE static Float load(const float* p) {
        return {vld1q_f32(p), vld1q_f32(p + 4)};
    }
    QUANT_INLINE static Float load(const float* p, int n) {
        float x[lanes] = {};
        std::memcpy(x, p, sizeof(float) * static_cast<size_t>(n < lanes ? n : lanes));
        return load(x);
    }
    QUANT_INLINE static void store(float* p, Float v) {
        vst1q_f32(p, v.lo);
        vst1q_f32(p + 4, v.hi);
    }
    QUANT_INLINE static void store(float* p, Float v, int n) {
        float x[lanes];
        store(x, v);
        std::memcpy(p, x, sizeof(float) * static_cast<size_t>(n < lanes ? n : lanes));
    }
    QUANT_INLINE static Float abs(Float a) {
        return {vabsq_f32(a.lo), vabsq_f32(a.hi)};
    }
    QUANT_INLINE static Float nan_to_zero(Float a) {
        return {and_mask(a.lo, vceqq_f32(a.lo, a.lo)), and_mask(a.hi, vceqq_f32(a.hi, a.hi))};
    }
    QUANT_INLINE static Float scale_by_power(Float a, Int n) {  // in two steps: 2^n itself may not be a normal float
        const Int half{vshrq_n_s32(n.lo, 1), vshrq_n_s32(n.hi, 1)};
        const Float x = power_of_two(half), y = power_of_two(sub(n, half));
        return {vmulq_f32(vmulq_f32(a.lo, x.lo), y.lo), vmulq_f32(vmulq_f32(a.hi, x.hi), y.hi)};
    }
    QUANT_INLINE static Float select_lanes(int first, int end, Float a, Float b) {
        const int32_t index[lanes] = {0, 1, 2, 3, 4, 5, 6, 7};
        const int32x4_t least = vdupq_n_s32(first), limit = vdupq_n_s32(end);
        auto inside = [&](int32x4_t i)
                          QUANT_INLINE_LAMBDA { return vandq_u32(vcgeq_s32(i, least), vcltq_s32(i, limit)); };
        return {vbslq_f32(inside(vld1q_s32(index)), a.lo, b.lo), vbslq_f32(inside(vld1q_s32(index + 4)), a.hi, b.hi)};
    }
#if defined(QUANT_NEON_64)
    QUANT_INLINE static Float add(Float a, Float b) {
        return {vaddq_f32(a.lo, b.lo), vaddq_f32(a.hi, b.hi)};
    }
    QUANT_INLINE static Float sub(Float a, Float b) {
        return {vsubq_f32(a.lo, b.lo), vsubq_f32(a.hi, b.hi)};
    }
    QUANT_INLINE static Float mul(Float a, Float b) {
        return {vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi)};
    }
    QUANT_INLINE static Float div(Float a, Float b) {
        return {vdivq_f32(a.lo, b.lo), vdivq_f32(a.hi, b.hi)};
    }
    QUANT_INLINE static Float sqrt(Float a) {
        return {vsqrtq_f32(a.lo), vsqrtq_f32(a.hi)};
    }
    QUANT_INLINE static Float fma(Float a, Float b, Float c) {
        return {vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi)};
    }
    QUANT_INLINE static Float min(Float a, Float b) {  // b if either is NaN, which vminq_f32 would give
        return {vbslq_f32(vcltq_f32(a.lo, b.lo), a.lo, b.lo), vbslq_f32(vcltq_f32(a.hi, b.hi), a.hi, b.hi)};
    }
    QUANT_INLINE static Float max(Float a, Float b) {
        return {vbslq_f32(vcgtq_f32(a.lo, b.lo), a.lo, b.lo), vbslq_f32(vcgtq_f32(a.hi, b.hi), a.hi, b.hi)};
    }
    QUANT_INLINE static float reduce_add(Float a) {
        return vaddvq_f32(vaddq_f32(a.lo, a.hi));
    }
    QUANT_INLINE static float reduce_max(Float a) {
        return vmaxvq_f32(max({a.lo, a.lo}, {a.hi, a.hi}).lo);
    }
#else
    QUANT_INLINE static Float add(Float a, Float b) {
        return each_lane(a, b, [](float x, float y) QUANT_INLINE_LAMBDA { return x + y; });
    }
    QUANT_INLINE static Float sub(Float a, Float b) {
        return each_lane(a, b, [](float x, float y) QUANT_INLINE_LAMBDA { return x - y; });
    }
    QUANT_INLINE static Float mul(Float a, Float b) {
        return each_lane(a, b, [](float x, float y) QUANT_INLINE_LAMBDA { return x * y; });
    }
    QUANT_INLINE static Float div(Float a, Float b) {
        return each_lane(a, b, [](float x, float y) QUANT_INLINE_LAMBDA { return x / y; });
    }
    QUANT_INLINE static Float sqrt(Float a) {
        return each_lane(a, a, [](float x, float) QUANT_INLINE_LAMBDA { return __builtin_sqrtf(x); });
    }
    QUANT_INLINE static Float fma(Float a, Float b, Float c) {
        return {vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi)};
    }
    QUANT_INLINE static Float min(Float a, Float b) {
        return {vbslq_f32(less(a.lo, b.lo), a.lo, b.lo), vbslq_f32(less(a.hi, b.hi), a.hi, b.hi)};
    }
    QUANT_INLINE static Float max(Float a, Float b) {
        return {vbslq_f32(less(b.lo, a.lo), a.lo, b.lo), vbslq_f32(less(b.hi, a.hi), a.hi, b.hi)};
    }
    QUANT_INLINE static float reduce_add(Float a) {
        const float32x4_t x = vaddq_f32(a.lo, a.hi);
        const float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));
        return vget_lane_f32(vpadd_f32(y, y), 0);
    }
    QUANT_INLINE static float reduce_max(Float a) {
        float x[lanes];
        store(x, a);
        float m = x[0];
        for (float v : x) m = v > m ? v : m;
        return m;
    }
#endif

    // ---- Conversions ---------------------------------------------------------------------------------------------
    QUANT_INLINE static Float to_float(Int a) {
        return {vcvtq_f32_s32(a.lo), vcvtq_f32_s32(a.hi)};
    }
    QUANT_INLINE static Float load_f16(const void* p) {
        const uint16x8_t h = vld1q_u16(static_cast<const uint16_t*>(p));
        return from_f16(h);
    }
    QUANT_INLINE static Float load_bf16(const void* p) {
        const uint16x8_t h = vld1q_u16(static_cast<const uint16_t*>(p));
        return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)),
                vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(h), 16))};
    }
    QUANT_INLINE static Float load_e4m3(const uint8_t* p) {
        const uint16x8_t code = vreinterpretq_u16_s16(vmovl_s8(vreinterpret_s8_u8(vld1_u8(p))));
        const uint16x8_t half = vandq_u16(vshlq_n_u16(code, 7), vdupq_n_u16(0xbf80)), nan = vdupq_n_u16(0x3f80);
        const uint16x8_t is_nan = vceqq_u16(vandq_u16(half, nan), nan);
        const Float x = from_f16(vbslq_u16(is_nan, vdupq_n_u16(0x7e00), half));
        return {vmulq_n_f32(x.lo, 256), vmulq_n_f32(x.hi, 256)};
    }
#if defined(QUANT_NEON_64)
    QUANT_INLINE static Int round(Float a) {
        return {vcvtnq_s32_f32(a.lo), vcvtnq_s32_f32(a.hi)};
    }
    QUANT_INLINE static void store_f16(uint16_t* p, Float v) {
        vst1q_u16(p, vcombine_u16(vreinterpret_u16_f16(vcvt_f16_f32(v.lo)), vreinterpret_u16_f16(vcvt_f16_f32(v.hi))));
    }
#else
    // For |a| < 2^22: the sum with 1.5 * 2^23 has no fraction bits.
    QUANT_INLINE static Int round(Float a) {
        const float32x4_t big = vdupq_n_f32(12582912.0f);
        const int32x4_t bits = vdupq_n_s32(0x4b400000);
        return {vsubq_s32(vreinterpretq_s32_f32(vaddq_f32(a.lo, big)), bits),
                vsubq_s32(vreinterpretq_s32_f32(vaddq_f32(a.hi, big)), bits)};
    }
    QUANT_INLINE static void store_f16(uint16_t* p, Float v) {  // NEON's own loses what a NaN carries
        float x[lanes];
        store(x, v);
        for (int i = 0; i < lanes; ++i) p[i] = f32_to_f16(x[i]);
    }
#endif

    // ---- Int -----------------------------------------------------------------------------------------------------
    QUANT_INLINE static Int set_int(int32_t x) {
        return {vdupq_n_s32(x), vdupq_n_s32(x)};
    }
    QUANT_INLINE static Int add(Int a, Int b) {
        return {vaddq_s32(a.lo, b.lo), vaddq_s32(a.hi, b.hi)};
    }
    QUANT_INLINE static Int sub(Int a, Int b) {
        return {vsubq_s32(a.lo, b.lo), vsubq_s32(a.hi, b.hi)};
    }
    QUANT_INLINE static Int mul(Int a, Int b) {
        return {vmulq_s32(a.lo, b.lo), vmulq_s32(a.hi, b.hi)};
    }
    QUANT_INLINE static int32_t reduce_add(Int a) {
        const int32x4_t x = vaddq_s32(a.lo, a.hi);
        const int32x2_t y = vadd_s32(vget_low_s32(x), vget_high_s32(x));
        return vget_lane_s32(vpadd_s32(y, y), 0);
    }
    QUANT_INLINE static Int bit_and(Int a, Int b) {
        return {vandq_s32(a.lo, b.lo), vandq_s32(a.hi, b.hi)};
    }
    QUANT_INLINE static Int bit_or(Int a, Int b) {
        return {vorrq_s32(a.lo, b.lo), vorrq_s32(a.hi, b.hi)};
    }
    template <int N>  // of lanes that are not negative
    QUANT_INLINE static Int shift_right(Int a) {
        return {vshrq_n_s32(a.lo, N), vshrq_n_s32(a.hi, N)};
    }
    template <int N>
    QUANT_INLINE static Int shift_left(Int a) {
        return {vshlq_n_s32(a.lo, N), vshlq_n_s32(a.hi, N)};
    }
    QUANT_INLINE static Int load_u8(const uint8_t* p) {
        const uint16x8_t x = vmovl_u8(vld1_u8(p));
        return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(x)))};
    }
    QUANT_INLINE static Int load_s8(const uint8_t* p) {
        const int16x8_t x = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
        return {vmovl_s16(vget_low_s16(x)), vmovl_s16(vget_high_s16(x))};
    }
    QUANT_INLINE static Int load_nibbles(const uint8_t* p) {
        const uint8_t x[lanes] = {static_cast<uint8_t>(p[0] & 15), static_cast<uint8_t>(p[1] & 15),
                                  static_cast<uint8_t>(p[2] & 15), static_cast<uint8_t>(p[3] & 15),
                                  static_cast<uint8_t>(p[0] >> 4), static_cast<uint8_t>(p[1] >> 4),
                                  static_cast<uint8_t>(p[2] >> 4), static_cast<uint8_t>(p[3] >> 4)};
        return load_u8(x);
    }
    QUANT_INLINE static void store_s8(uint8_t* p, Int v) {
        const int16x8_t x = vcombine_s16(vmovn_s32(v.lo), vmovn_s32(v.hi));
        vst1_u8(p, vreinterpret_u8_s8(vmovn_s16(x)));
    }

    // ---- Codes ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Bytes load_bytes(const uint8_t* p) {
        return {vld1q_u8(p), vld1q_u8(p + 16)};
    }
    QUANT_INLINE static void store_bytes(uint8_t* p, Bytes v) {
        vst1q_u8(p, v.lo);
        vst1q_u8(p + 16, v.hi);
    }
    QUANT_INLINE static Bytes bit_or(Bytes a, Bytes b) {
        return {vorrq_u8(a.lo, b.lo), vorrq_u8(a.hi, b.hi)};
    }
    template <int N>
    QUANT_INLINE static Bytes field(Bytes v, int byte_mask) {
        const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>(byte_mask));
        if constexpr (N == 0)
            return {vandq_u8(v.lo, mask), vandq_u8(v.hi, mask)};
        else
            return {vandq_u8(vshrq_n_u8(v.lo, N), mask), vandq_u8(vshrq_n_u8(v.hi, N), mask)};
    }
    template <int N>
    QUANT_INLINE static Bytes field_up(Bytes v, int byte_mask) {
        const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>(byte_mask));
        return {vandq_u8(vshlq_n_u8(v.lo, N), mask), vandq_u8(vshlq_n_u8(v.hi, N), mask)};
    }
    static constexpr bool signed_codes = true;
    template <int J>
    QUANT_INLINE static Float column(Bytes v) {
        auto byte = [](uint8x16_t x) QUANT_INLINE_LAMBDA {
            return vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_u8(x), 24 - 8 * J), 24);
        };
        return to_float({byte(v.lo), byte(v.hi)});
    }

  private:
    QUANT_INLINE static float32x4_t and_mask(float32x4_t a, uint32x4_t mask) {
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), mask));
    }
    QUANT_INLINE static Float power_of_two(Int n) {
        const int32x4_t bias = vdupq_n_s32(127);
        return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.lo, bias), 23)),
                vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.hi, bias), 23))};
    }
    QUANT_INLINE static Float from_f16(uint16x8_t h) {
        return {vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(h))),
                vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(h)))};
    }
#if !defined(QUANT_NEON_64)
    template <class F>
    QUANT_INLINE static float32x4_t each_of_4(float32x4_t a, float32x4_t b, F f) {
        float32x4_t r = a;
        r = vsetq_lane_f32(f(vgetq_lane_f32(a, 0), vgetq_lane_f32(b, 0)), r, 0);
        r = vsetq_lane_f32(f(vgetq_lane_f32(a, 1), vgetq_lane_f32(b, 1)), r, 1);
        r = vsetq_lane_f32(f(vgetq_lane_f32(a, 2), vgetq_lane_f32(b, 2)), r, 2);
        return vsetq_lane_f32(f(vgetq_lane_f32(a, 3), vgetq_lane_f32(b, 3)), r, 3);
    }
    template <class F>
    QUANT_INLINE static Float each_lane(Float a, Float b, F f) {
        return {each_of_4(a.lo, b.lo, f), each_of_4(a.hi, b.hi, f)};
    }
    // a < b, on integers in the same order; false if either is NaN. -0 counts as less than 0.
    QUANT_INLINE static uint32x4_t less(float32x4_t a, float32x4_t b) {
        auto ordered = [](float32x4_t x) QUANT_INLINE_LAMBDA {
            const int32x4_t bits = vreinterpretq_s32_f32(x);
            return veorq_s32(bits, vandq_s32(vshrq_n_s32(bits, 31), vdupq_n_s32(0x7fffffff)));
        };
        const uint32x4_t numbers = vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b));
        return vandq_u32(vcltq_s32(ordered(a), ordered(b)), numbers);
    }
#endif
};
