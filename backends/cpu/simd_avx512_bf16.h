// Pairs of bf16 in 32-bit lanes, for AVX-512 BF16: the low half is the even column. Included inside an unnamed
// namespace after simd_avx512.h.
struct Pairs {
    using Float = __m512;  // pairs are kept in vectors of words, which Float are here

    // sum + both products of each lane; subnormal operands count as 0, and the sum is rounded after each product.
    QUANT_INLINE static Float multiply_add(Float w, Float x, Float sum) {
        return _mm512_dpbf16_ps(sum, operand(w), operand(x));
    }
    // 32 floats rounded to bf16, half to even.
    QUANT_INLINE static Float round(Float first, Float second) {
        const __m512bh pairs = _mm512_cvtne2ps_pbh(second, first);
        Float r;
        std::memcpy(&r, &pairs, sizeof r);
        return r;
    }
    // 32 codes of e4m3 as bf16, which holds them all: the exponent moves up by 120, subnormals come from a table.
    QUANT_INLINE static Float load_e4m3(const uint8_t* p) {
        const __m512i code = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        const __m512i magnitude = _mm512_and_si512(code, _mm512_set1_epi16(0x7f));
        __m512i bits = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), _mm512_set1_epi16(120 << 7));
        // 0, 1, ... 7 times 2^-9
        const __m512i subnormals =
            _mm512_broadcast_i32x4(_mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
        bits = _mm512_mask_permutexvar_epi16(bits, _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(8)), magnitude,
                                             subnormals);
        bits = _mm512_mask_mov_epi16(bits, _mm512_cmpeq_epi16_mask(magnitude, _mm512_set1_epi16(0x7f)),
                                     _mm512_set1_epi16(0x7fc0));
        const __m512i sign = _mm512_slli_epi16(_mm512_andnot_si512(_mm512_set1_epi16(0x7f), code), 8);
        return _mm512_castsi512_ps(_mm512_or_si512(bits, sign));
    }
    // Two columns of 16 rows, one after the other, as pairs.
    QUANT_INLINE static Float interleave(Float columns) {
        const __m512i rows = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i index = _mm512_add_epi32(_mm512_mullo_epi32(rows, _mm512_set1_epi32(0x10001)),
                                               _mm512_set1_epi32(16 << 16));  // row, 16 + row
        return _mm512_castsi512_ps(_mm512_permutexvar_epi16(index, _mm512_castps_si512(columns)));
    }

  private:
    QUANT_INLINE static __m512bh operand(Float v) {
        __m512bh r;
        std::memcpy(&r, &v, sizeof r);
        return r;
    }
};
