// The vector vocabulary of the kernels for AVX-512 (F BW VL DQ VNNI). Included inside an unnamed namespace.
struct Simd {
    static constexpr int lanes = 16;  // floats in a vector = rows of a tile
    using Float = __m512;
    using Int = __m512i;                   // int32 lanes
    using Bytes = __m512i;                 // 4 bytes a lane
    static constexpr int float_sums = 24;  // that attention keeps at a time, at most
    QUANT_INLINE static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
    QUANT_INLINE static void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

    // ---- Float ---------------------------------------------------------------------------------------------------
    QUANT_INLINE static Float set(float x) { return _mm512_set1_ps(x); }
    QUANT_INLINE static Float load(const float* p) { return _mm512_loadu_ps(p); }
    QUANT_INLINE static Float load(const float* p, int n) { return _mm512_maskz_loadu_ps(mask(n), p); }
    QUANT_INLINE static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
    QUANT_INLINE static void store(float* p, Float v, int n) { _mm512_mask_storeu_ps(p, mask(n), v); }
    QUANT_INLINE static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    QUANT_INLINE static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
    QUANT_INLINE static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    QUANT_INLINE static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
    QUANT_INLINE static Float sqrt(Float a) { return _mm512_sqrt_ps(a); }
    QUANT_INLINE static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    QUANT_INLINE static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }  // b if either is NaN
    QUANT_INLINE static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
    QUANT_INLINE static Float abs(Float a) { return _mm512_abs_ps(a); }
    QUANT_INLINE static Float nan_to_zero(Float a) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a);
    }
    QUANT_INLINE static float reduce_add(Float a) { return _mm512_reduce_add_ps(a); }
    QUANT_INLINE static float reduce_max(Float a) { return _mm512_reduce_max_ps(a); }
    QUANT_INLINE static Float scale_by_power(Float a, Int n) { return _mm512_scalef_ps(a, _mm512_cvtepi32_ps(n)); }
    // a where lane index is in [first, end), else b.
    QUANT_INLINE static Float select_lanes(int first, int end, Float a, Float b) {
        return _mm512_mask_blend_ps(mask(end) & ~mask(first), b, a);
    }

    // ---- Conversions ---------------------------------------------------------------------------------------------
    QUANT_INLINE static Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
    QUANT_INLINE static Int round(Float a) { return _mm512_cvtps_epi32(a); }  // half to even
    QUANT_INLINE static Float load_f16(const void* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    }
    QUANT_INLINE static Float load_bf16(const void* p) {
        return _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p))), 16));
    }
    QUANT_INLINE static void store_f16(uint16_t* p, Float v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    // e4m3 has the bits of a half whose exponent is 8 too small, once its sign is moved; 0x7f is its only NaN.
    QUANT_INLINE static Float load_e4m3(const uint8_t* p) {
        __m256i code = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        __m256i half = _mm256_and_si256(_mm256_slli_epi16(code, 7), _mm256_set1_epi16(static_cast<short>(0xbf80)));
        __m256i nan = _mm256_set1_epi16(0x3f80);
        half = _mm256_mask_mov_epi16(half, _mm256_cmpeq_epi16_mask(_mm256_and_si256(half, nan), nan),
                                     _mm256_set1_epi16(0x7e00));
        return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256));
    }

    // ---- Int -----------------------------------------------------------------------------------------------------
    QUANT_INLINE static Int set_int(int32_t x) { return _mm512_set1_epi32(x); }
    QUANT_INLINE static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
    QUANT_INLINE static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
    QUANT_INLINE static Int mul(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
    QUANT_INLINE static int32_t reduce_add(Int a) { return _mm512_reduce_add_epi32(a); }
    QUANT_INLINE static Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
    QUANT_INLINE static Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
    template <int N>
    QUANT_INLINE static Int shift_right(Int a) {
        return _mm512_srli_epi32(a, N);
    }
    template <int N>
    QUANT_INLINE static Int shift_left(Int a) {
        return _mm512_slli_epi32(a, N);
    }
    QUANT_INLINE static Int load_u8(const uint8_t* p) {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    QUANT_INLINE static Int load_s8(const uint8_t* p) {
        return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    // Low nibbles of `lanes / 2` bytes, then their high nibbles.
    QUANT_INLINE static Int load_nibbles(const uint8_t* p) {
        __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
        return _mm512_cvtepu8_epi32(_mm_and_si128(_mm_unpacklo_epi64(x, _mm_srli_epi16(x, 4)), _mm_set1_epi8(15)));
    }
    QUANT_INLINE static void store_s8(uint8_t* p, Int v) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
    }

    // ---- Codes: 4 columns of `lanes` rows ------------------------------------------------------------------------
    QUANT_INLINE static Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
    QUANT_INLINE static void store_bytes(uint8_t* p, Bytes v) { _mm512_storeu_si512(p, v); }
    QUANT_INLINE static Bytes broadcast4(const uint8_t* p) {
        int32_t x;
        std::memcpy(&x, p, 4);
        return _mm512_set1_epi32(x);
    }
    // (v >> N) & mask, in each byte, for masks that leave no bit of the byte above.
    template <int N>
    QUANT_INLINE static Bytes field(Bytes v, int byte_mask) {
        return _mm512_and_si512(_mm512_srli_epi16(v, N), _mm512_set1_epi8(static_cast<char>(byte_mask)));
    }
    template <int N>
    QUANT_INLINE static Bytes field_up(Bytes v, int byte_mask) {
        return _mm512_and_si512(_mm512_slli_epi16(v, N), _mm512_set1_epi8(static_cast<char>(byte_mask)));
    }
    // Byte J of every lane as a float.
    static constexpr bool signed_codes = false;  // 8-bit codes, as the layout keeps them for this dot product
    template <int J>
    QUANT_INLINE static Float column(Bytes v) {
        return _mm512_cvtepi32_ps(J == 3 ? _mm512_srli_epi32(v, 24)
                                         : _mm512_and_si512(_mm512_srli_epi32(v, 8 * J), _mm512_set1_epi32(255)));
    }

    // ---- Integer dot product: unsigned codes times int8, 4 products added to each lane ---------------------------
    static constexpr bool fused_dot = true, lane_dot = false, matrix_dot = false;
    static constexpr int bias_8_bits = 0;  // of 8-bit codes, where unsigned_codes makes signed ones unsigned for `dot`
    QUANT_INLINE static Int dot(Int sum, Bytes codes, Bytes activations) {
        return _mm512_dpbusd_epi32(sum, codes, activations);
    }

    static __mmask16 mask(int n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1); }
};
