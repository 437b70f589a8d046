// The kernels for NEON as every 64-bit ARM has it, and for 32-bit ARM with NEON and VFPv4 (its fused multiply-add and
// conversions of halves). kernels.h says what this file must not contain.
#include "backends/cpu/kernels.h"
#if defined(QUANT_ARM)
#include <arm_neon.h>

#include "backends/cpu/simd.h"
#include "formats/float_types.h"

namespace quant {
namespace {

#include "backends/cpu/simd_neon.h"

// Products in 16 bits, 2 registers for each of the two with codes: a lane holds one column's products, and lanes are
// added in pairs at the end, whose largest sums simd_avx2.h gives. For 16 bytes of 8-bit codes 4 instructions: two of
// products, two that add; for 4-bit ones 2.25.
struct Simd : Neon {
    static constexpr bool fused_dot = false, lane_dot = false, matrix_dot = false;
    static constexpr int bias_8_bits = 0;
    template <int Bits>
    static constexpr int steps_in_16_bits = Bits == 4   ? 8
                                            : Bits == 5 ? 4
                                            : Bits == 6 ? 2
                                                        : 1;
    struct Products {
        int16x8_t v[4];
    };
    QUANT_INLINE static int8x16_t broadcast4(const uint8_t* p) {
        int32_t x;
        std::memcpy(&x, p, 4);
        return vreinterpretq_s8_s32(vdupq_n_s32(x));
    }
    template <int Bits>
    QUANT_INLINE static Products product(Bytes codes, int8x16_t a) {
        const int8x16_t lo = vreinterpretq_s8_u8(codes.lo), hi = vreinterpretq_s8_u8(codes.hi);
        return {{vmull_s8(vget_low_s8(lo), vget_low_s8(a)), vmull_s8(vget_high_s8(lo), vget_high_s8(a)),
                 vmull_s8(vget_low_s8(hi), vget_low_s8(a)), vmull_s8(vget_high_s8(hi), vget_high_s8(a))}};
    }
    template <int Bits>
    QUANT_INLINE static Products add_product(Products p, Bytes codes, int8x16_t a) {
        const int8x16_t lo = vreinterpretq_s8_u8(codes.lo), hi = vreinterpretq_s8_u8(codes.hi);
        return {{vmlal_s8(p.v[0], vget_low_s8(lo), vget_low_s8(a)), vmlal_s8(p.v[1], vget_high_s8(lo), vget_high_s8(a)),
                 vmlal_s8(p.v[2], vget_low_s8(hi), vget_low_s8(a)),
                 vmlal_s8(p.v[3], vget_high_s8(hi), vget_high_s8(a))}};
    }
    QUANT_INLINE static Int add_pairs(Int sum, Products p) {
        return {vpadalq_s16(sum.lo, pairs(p.v[0], p.v[1])), vpadalq_s16(sum.hi, pairs(p.v[2], p.v[3]))};
    }

  private:
    QUANT_INLINE static int16x8_t pairs(int16x8_t a, int16x8_t b) {
#if defined(QUANT_NEON_64)
        return vpaddq_s16(a, b);
#else
        return vcombine_s16(vpadd_s16(vget_low_s16(a), vget_high_s16(a)), vpadd_s16(vget_low_s16(b), vget_high_s16(b)));
#endif
    }
};

#if defined(QUANT_NEON_64)
constexpr int row_tile = 4, weight_tiles = 1;              // 16 registers of sums in 16 bits, 8 in 32 bits, of 32
constexpr int float_row_tile = 6, float_weight_tiles = 2;  // 24 registers of sums, 4 of weights, an activation
#else
constexpr int row_tile = 2, weight_tiles = 1;
constexpr int float_row_tile = 4, float_weight_tiles = 1;  // 8 registers of sums, 2 of weights, an activation, of 16
#endif
constexpr int s8_row_tile = row_tile;
constexpr int code_streams = 1, float_streams = 1;
constexpr bool direct_rows = true;
// In this order: each uses what is above it.
#include "backends/cpu/codes.inl"
//
#include "backends/cpu/linear.inl"
//
#include "backends/cpu/linear_int8.inl"
//
#include "backends/cpu/tile_reader.inl"
//
#include "backends/cpu/linear_decoded.inl"
//
#include "backends/cpu/linear_float.inl"
//
#include "backends/cpu/rowwise.inl"
//
#include "backends/cpu/attention.inl"

}  // namespace

#define QUANT_KERNELS kernels_neon
#define QUANT_LAYOUT layout_rows8
#include "backends/cpu/kernel_list.inl"

}  // namespace quant
#endif
