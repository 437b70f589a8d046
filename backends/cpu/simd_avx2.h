// The vector vocabulary of the kernels for AVX2, FMA and F16C; with QUANT_AVX_VNNI, for AVX-VNNI too. Included inside
// an unnamed namespace; simd_avx512.h comments the operations.
struct Simd {
    static constexpr int lanes = 8;
    using Float = __m256;
    using Int = __m256i;
    using Bytes = __m256i;
    static constexpr int float_sums = 8;
    QUANT_INLINE static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
    QUANT_INLINE static void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

    // ---- Float ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Float set(float x) { return _mm256_set1_ps(x); }
    QUANT_INLINE static Float load(const float* p) { return _mm256_loadu_ps(p); }
    QUANT_INLINE static Float load(const float* p, int n) { return _mm256_maskload_ps(p, mask(n)); }
    QUANT_INLINE static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
    QUANT_INLINE static void store(float* p, Float v, int n) { _mm256_maskstore_ps(p, mask(n), v); }
    QUANT_INLINE static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    QUANT_INLINE static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
    QUANT_INLINE static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    QUANT_INLINE static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
    QUANT_INLINE static Float sqrt(Float a) { return _mm256_sqrt_ps(a); }
    QUANT_INLINE static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    QUANT_INLINE static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
    QUANT_INLINE static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
    QUANT_INLINE static Float abs(Float a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    QUANT_INLINE static Float nan_to_zero(Float a) { return _mm256_and_ps(a, _mm256_cmp_ps(a, a, _CMP_ORD_Q)); }
    QUANT_INLINE static float reduce_add(Float a) {
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
    }
    QUANT_INLINE static float reduce_max(Float a) {
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
    }
    QUANT_INLINE static Float scale_by_power(Float a, Int n) {  // in two steps: 2^n itself may not be a normal float
        Int half = _mm256_srai_epi32(n, 1);
        return mul(mul(a, power_of_two(half)), power_of_two(_mm256_sub_epi32(n, half)));
    }
    QUANT_INLINE static Float select_lanes(int first, int end, Float a, Float b) {
        return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_andnot_si256(mask(first), mask(end))));
    }

    // ---- Conversions ---------------------------------------------------------------------------------------------
    QUANT_INLINE static Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
    QUANT_INLINE static Int round(Float a) { return _mm256_cvtps_epi32(a); }
    QUANT_INLINE static Float load_f16(const void* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    }
    QUANT_INLINE static Float load_bf16(const void* p) {
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))), 16));
    }
    QUANT_INLINE static void store_f16(uint16_t* p, Float v) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    QUANT_INLINE static Float load_e4m3(const uint8_t* p) {
        __m128i code = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        __m128i half = _mm_and_si128(_mm_slli_epi16(code, 7), _mm_set1_epi16(static_cast<short>(0xbf80)));
        __m128i nan = _mm_set1_epi16(0x3f80);
        half = _mm_blendv_epi8(half, _mm_set1_epi16(0x7e00), _mm_cmpeq_epi16(_mm_and_si128(half, nan), nan));
        return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
    }

    // ---- Int -----------------------------------------------------------------------------------------------------
    QUANT_INLINE static Int set_int(int32_t x) { return _mm256_set1_epi32(x); }
    QUANT_INLINE static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
    QUANT_INLINE static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
    QUANT_INLINE static Int mul(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
    QUANT_INLINE static int32_t reduce_add(Int a) {
        __m128i x = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        x = _mm_add_epi32(x, _mm_unpackhi_epi64(x, x));
        return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 1)));
    }
    QUANT_INLINE static Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
    QUANT_INLINE static Int bit_or(Int a, Int b) { return _mm256_or_si256(a, b); }
    template <int N>
    QUANT_INLINE static Int shift_right(Int a) {
        return _mm256_srli_epi32(a, N);
    }
    template <int N>
    QUANT_INLINE static Int shift_left(Int a) {
        return _mm256_slli_epi32(a, N);
    }
    QUANT_INLINE static Int load_u8(const uint8_t* p) {
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    }
    QUANT_INLINE static Int load_s8(const uint8_t* p) {
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    }
    QUANT_INLINE static Int load_nibbles(const uint8_t* p) {
        int32_t bytes;
        std::memcpy(&bytes, p, 4);
        __m128i x = _mm_cvtsi32_si128(bytes);
        return _mm256_cvtepu8_epi32(_mm_and_si128(_mm_unpacklo_epi32(x, _mm_srli_epi16(x, 4)), _mm_set1_epi8(15)));
    }
    QUANT_INLINE static void store_s8(uint8_t* p, Int v) {
        __m128i x = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(x, x));
    }

    // ---- Codes ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Bytes load_bytes(const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    QUANT_INLINE static void store_bytes(uint8_t* p, Bytes v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    QUANT_INLINE static Bytes broadcast4(const uint8_t* p) {
        int32_t x;
        std::memcpy(&x, p, 4);
        return _mm256_set1_epi32(x);
    }
    template <int N>
    QUANT_INLINE static Bytes field(Bytes v, int byte_mask) {
        return _mm256_and_si256(_mm256_srli_epi16(v, N), _mm256_set1_epi8(static_cast<char>(byte_mask)));
    }
    template <int N>
    QUANT_INLINE static Bytes field_up(Bytes v, int byte_mask) {
        return _mm256_and_si256(_mm256_slli_epi16(v, N), _mm256_set1_epi8(static_cast<char>(byte_mask)));
    }
    static constexpr bool signed_codes = true;
    template <int J>
    QUANT_INLINE static Float column(Bytes v) {
        return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * J), 24));
    }

#ifdef QUANT_AVX_VNNI
    // ---- Integer dot product: unsigned codes times int8, 4 products added to each lane ---------------------------
    static constexpr bool fused_dot = true, lane_dot = false, matrix_dot = false;
    static constexpr int bias_8_bits = 128;
    QUANT_INLINE static Bytes unsigned_codes(Bytes codes) {
        return _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    }
    QUANT_INLINE static Int dot(Int sum, Bytes codes, Bytes activations) {
        return _mm256_dpbusd_avx_epi32(sum, codes, activations);
    }
#else
    // ---- Integer dot product: through sums of two products in 16 bits --------------------------------------------
    // Largest sums, with activations of at most 127:
    //   4 bit  15 * 127 * 2 * 8 steps = 30480      6 bit  63 * 127 * 2 * 2 steps = 32004
    //   5 bit  31 * 127 * 2 * 4 steps = 31496      8 bit  128 * 127 * 2 * 1 step = 32512      (of 32767)
    static constexpr bool fused_dot = false, lane_dot = false, matrix_dot = false;
    static constexpr int bias_8_bits = 0;
    using Products = Int;
    template <int Bits>
    static constexpr int steps_in_16_bits = Bits == 4   ? 8
                                            : Bits == 5 ? 4
                                            : Bits == 6 ? 2
                                                        : 1;
    template <int Bits>
    QUANT_INLINE static Int product(Bytes codes, Bytes activations) {
        if (Bits == 8)  // |code| * (activation with the code's sign)
            return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(activations, codes));
        return _mm256_maddubs_epi16(codes, activations);
    }
    template <int Bits>
    QUANT_INLINE static Int add_product(Int products, Bytes codes, Bytes activations) {
        return _mm256_add_epi16(products, product<Bits>(codes, activations));
    }
    QUANT_INLINE static Int add_pairs(Int sum, Int products) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
    }
#endif

  private:
    QUANT_INLINE static Int mask(int n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    QUANT_INLINE static Float power_of_two(Int n) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
    }
};
