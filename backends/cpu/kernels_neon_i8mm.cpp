// The kernels for 64-bit ARM with the dot product and the 8-bit matrix product instructions (Armv8.2 dotprod, Armv8.6
// i8mm). kernels.h says what this file must not contain.
#include "backends/cpu/kernels.h"
#if defined(QUANT_ARM_64)
#include <arm_neon.h>

#include "backends/cpu/simd.h"
#include "formats/float_types.h"

namespace quant {
namespace {

#include "backends/cpu/simd_neon.h"

// One instruction for 16 bytes of codes and two rows of activations: 8 columns of 2 x 2 rows,
//     sums of rows r, r+1 of the weights and c, c+1 of the activations:  r*c  r*(c+1)  (r+1)*c  (r+1)*(c+1)
// so 8 columns of a tile are 4 vectors of 2 rows. A row without a partner takes the dot product, as do codes of fewer
// than 8 bits, whose steps are of 4 columns.
struct Simd : Neon {
    static constexpr bool fused_dot = true, lane_dot = true, matrix_dot = true;
    static constexpr int bias_8_bits = 0;
    QUANT_INLINE static int8x16_t load_activations(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
    template <int Lane>
    QUANT_INLINE static Int dot(Int sum, Bytes codes, int8x16_t activations) {
        return {vdotq_laneq_s32(sum.lo, vreinterpretq_s8_u8(codes.lo), activations, Lane),
                vdotq_laneq_s32(sum.hi, vreinterpretq_s8_u8(codes.hi), activations, Lane)};
    }

    // Two steps of 4 columns of 8 rows, and the same as 8 columns of rows 0 to 3 and of rows 4 to 7.
    QUANT_INLINE static void widen_steps(Bytes& a, Bytes& b) {
        const Bytes x = a, y = b;
        a = {zip<1>(x.lo, y.lo), zip<2>(x.lo, y.lo)};
        b = {zip<1>(x.hi, y.hi), zip<2>(x.hi, y.hi)};
    }
    template <int Second>
    QUANT_INLINE static Bytes narrow_step(Bytes a, Bytes b) {
        return {unzip<Second>(a.lo, a.hi), unzip<Second>(b.lo, b.hi)};
    }

    // Sums of two rows of activations: of each row for the 8 rows of the tile, and as the matrix product keeps them.
    QUANT_INLINE static void pair_sums(Int& a, Int& b) {
        const Int x = a, y = b;
        a = {vzip1q_s32(x.lo, y.lo), vzip2q_s32(x.lo, y.lo)};
        b = {vzip1q_s32(x.hi, y.hi), vzip2q_s32(x.hi, y.hi)};
    }
    QUANT_INLINE static void unpair_sums(Int& a, Int& b) {
        const Int x = a, y = b;
        a = {vuzp1q_s32(x.lo, x.hi), vuzp1q_s32(y.lo, y.hi)};
        b = {vuzp2q_s32(x.lo, x.hi), vuzp2q_s32(y.lo, y.hi)};
    }
    QUANT_INLINE static Int multiply_pair(Int sum, Bytes codes, int8x16_t two_rows) {
        return {vmmlaq_s32(sum.lo, vreinterpretq_s8_u8(codes.lo), two_rows),
                vmmlaq_s32(sum.hi, vreinterpretq_s8_u8(codes.hi), two_rows)};
    }
    // One row's 8 columns in both halves: sums of 4 columns each, which add_halves adds.
    QUANT_INLINE static int8x16_t broadcast8(const uint8_t* p) {
        const int8x8_t x = vreinterpret_s8_u8(vld1_u8(p));
        return vcombine_s8(x, x);
    }
    QUANT_INLINE static Int multiply_one(Int sum, Bytes codes, int8x16_t row) {
        return {vdotq_s32(sum.lo, vreinterpretq_s8_u8(codes.lo), row),
                vdotq_s32(sum.hi, vreinterpretq_s8_u8(codes.hi), row)};
    }
    QUANT_INLINE static Int add_halves(Int a, Int b) { return {vpaddq_s32(a.lo, a.hi), vpaddq_s32(b.lo, b.hi)}; }

  private:
    template <int Half>
    QUANT_INLINE static uint8x16_t zip(uint8x16_t a, uint8x16_t b) {
        const uint32x4_t x = vreinterpretq_u32_u8(a), y = vreinterpretq_u32_u8(b);
        return vreinterpretq_u8_u32(Half == 1 ? vzip1q_u32(x, y) : vzip2q_u32(x, y));
    }
    template <int Second>
    QUANT_INLINE static uint8x16_t unzip(uint8x16_t a, uint8x16_t b) {
        const uint32x4_t x = vreinterpretq_u32_u8(a), y = vreinterpretq_u32_u8(b);
        return vreinterpretq_u8_u32(Second ? vuzp2q_u32(x, y) : vuzp1q_u32(x, y));
    }
};

constexpr int row_tile = 6, weight_tiles = 1;  // 12 integer sums, 12 float sums, 4 weights, an activation: 29 registers
constexpr int float_row_tile = 6, float_weight_tiles = 2;  // 24 registers of sums, 4 of weights, an activation
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

#define QUANT_KERNELS kernels_neon_i8mm
#define QUANT_LAYOUT layout_rows8x8
#include "backends/cpu/kernel_list.inl"

}  // namespace quant
#endif
