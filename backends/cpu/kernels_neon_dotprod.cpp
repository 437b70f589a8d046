// The kernels for 64-bit ARM with the dot product instructions (Armv8.2 dotprod). kernels.h says what this file must
// not contain.
#include "backends/cpu/kernels.h"
#if defined(QUANT_ARM_64)
#include <arm_neon.h>

#include "backends/cpu/simd.h"
#include "formats/float_types.h"

namespace quant {
namespace {

#include "backends/cpu/simd_neon.h"

// One instruction for 16 bytes of codes: four products for each of 4 rows, with 4 activations taken from any quarter of
// a register.
struct Simd : Neon {
    static constexpr bool fused_dot = true, lane_dot = true, matrix_dot = false;
    static constexpr int bias_8_bits = 0;
    QUANT_INLINE static int8x16_t load_activations(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
    template <int Lane>
    QUANT_INLINE static Int dot(Int sum, Bytes codes, int8x16_t activations) {
        return {vdotq_laneq_s32(sum.lo, vreinterpretq_s8_u8(codes.lo), activations, Lane),
                vdotq_laneq_s32(sum.hi, vreinterpretq_s8_u8(codes.hi), activations, Lane)};
    }
};

constexpr int row_tile = 6, weight_tiles = 1;  // 12 integer sums, 12 float sums, 6 activations, 2 weights: 32 registers
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

#define QUANT_KERNELS kernels_neon_dotprod
#define QUANT_LAYOUT layout_rows8
#include "backends/cpu/kernel_list.inl"

}  // namespace quant
#endif
