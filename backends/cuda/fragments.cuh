// Weights in layout "fragments" as operands of tensor core instructions: what a lane loads for a stage, and how that
// becomes registers. A block is 32 columns: two 16-column products of 16 bit values or one 32-column product of bytes.
#pragma once
#include "backends/cuda/device.cuh"
#include "backends/cuda/layouts.h"

namespace quant {
namespace cuda {

struct StageLoad {
    uint4 v[2];  // of 8 bit codes, a block each: rows g and g + 8 of one matrix, then of the next
};
__device__ inline uint32_t word(const uint4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// A stage of weights in shared memory at `at`: load i of a lane. at_lane: fragment_lane_offset(kind, lane).
QUANT_HOST_DEVICE constexpr int fragment_lane_offset(FragmentKind kind, int lane) {
    return kind == FragmentKind::bits8 ? lane / 8 % 2 * 512 + lane / 16 * matrix_bytes + lane % 8 * 16 : lane * 16;
}
template <FragmentKind kind>
__device__ inline uint4 load_fragment(uint32_t at, int at_lane, int i) {
    if (kind != FragmentKind::bits8) return load_shared(at + at_lane + i * 512);
    uint4 v;  // each octet of lanes has the addresses of one matrix's rows
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at + at_lane + i * 2 * matrix_bytes)
                 : "memory");
    return v;
}

// Column c of a block goes to this place among the activations of the block, so that a lane's 8 lie side by side in the
// order of its weights.
QUANT_HOST_DEVICE constexpr int place_in_block(FragmentKind kind, bool integer, int c) {
    return kind == FragmentKind::bits8              ? (c < 16 ? c / 4 * 8 + c % 4 : (c - 16) / 4 * 8 + 4 + c % 4)
           : kind == FragmentKind::bits4 && integer ? c / 8 * 8 + (c % 8 < 4 ? 2 * (c % 8) : 2 * (c % 8 - 4) + 1)
                                                    : c;
}

// Each codec: `expand` gives the two 16 bit operands of a block, exactly the codes times `unit`; `bytes` the operand of
// 8 bit codes; `e4m3` that of e4m3 numbers, the weights before scaling times `e4m3_unit`.
template <bool Bf16>
struct Codec16 {
    static constexpr FragmentKind kind = FragmentKind::bits16;
    static constexpr int blocks = 1;
    static constexpr bool bf16 = Bf16, codes = false, is_signed = true;
    static constexpr float unit = 1;
    __device__ static void expand(const StageLoad& w, int, uint32_t (&a)[2][4]) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < 4; ++i) a[half][i] = word(w.v[i % 2], 2 * half + i / 2);
    }
};

enum class ByteCode { s8, u8, e4m3 };

template <ByteCode code>
struct Codec8 {
    static constexpr FragmentKind kind = FragmentKind::bits8;
    static constexpr int blocks = 2;
    static constexpr bool bf16 = false, codes = true, is_signed = code == ByteCode::s8;
#if __CUDA_ARCH__ >= 890
    static constexpr float unit = 1;
#else
    static constexpr float unit = code == ByteCode::e4m3 ? 1.f / 256 : 1;
#endif

    // Bytes `low` and `low` + 1 of x as two f16.
    template <int low>
    __device__ static uint32_t pair(uint32_t x) {
#if __CUDA_ARCH__ >= 890
        if (code == ByteCode::e4m3) return e4m3_to_halves(x >> 8 * low);
#endif
        if (code == ByteCode::e4m3) {  // exponent and mantissa in place: 2^-8 of the value
            const uint32_t high = __byte_perm(x, 0, low ? 0x3424 : 0x1404);
            return (high >> 1 & 0x3f803f80u) | (high & 0x80008000u);
        }
        // 1024 + code has the code in its last bits.
        const uint32_t biased = __byte_perm(x, 0x64646464u, low ? 0x4342 : 0x4140);
        const __half2 bias =
            code == ByteCode::s8 ? __half2half2(__float2half_rn(1152.f)) : __half2half2(__float2half_rn(1024.f));
        const __half2 value = __hsub2(*reinterpret_cast<const __half2*>(&biased), bias);
        return *reinterpret_cast<const uint32_t*>(&value);
    }
    __device__ static void expand(const StageLoad& w, int block, uint32_t (&a)[2][4]) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                uint32_t x = word(w.v[block], 2 * half + row);
                if (code == ByteCode::s8) x ^= 0x80808080u;
                a[half][row] = pair<0>(x);
                a[half][2 + row] = pair<2>(x);
            }
    }
    __device__ static void bytes(const StageLoad& w, int block, uint32_t (&a)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = word(w.v[block], i);
    }
    static constexpr float e4m3_unit = 1;
    __device__ static void e4m3(const StageLoad& w, int block, uint32_t (&a)[4]) {
        bytes(w, block, a);
    }
};

// x & mask | bits in one instruction, for which the compiler needs two.
__device__ inline uint32_t masked_or(uint32_t x, uint32_t mask, uint32_t bits) {
    uint32_t y;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "r"(mask), "r"(bits));
    return y;
}

struct Codec4 {
    static constexpr FragmentKind kind = FragmentKind::bits4;
    static constexpr int blocks = 4;
    static constexpr bool bf16 = false, codes = true, is_signed = false;
    static constexpr float unit = 1;

    // Nibbles n and n + 4 (n = 0 or 1) of x as two f16.
    template <int n>
    __device__ static uint32_t pair(uint32_t x) {
        const uint32_t biased = masked_or(x, n ? 0x00f000f0u : 0x000f000fu, 0x64006400u);  // 1024 + code, + 16 code
        const __half2 h = *reinterpret_cast<const __half2*>(&biased);
        const __half2 value =
            n ? __hfma2(h, __half2half2(__float2half_rn(1.f / 16)), __half2half2(__float2half_rn(-64.f)))
              : __hsub2(h, __half2half2(__float2half_rn(1024.f)));
        return *reinterpret_cast<const uint32_t*>(&value);
    }
    __device__ static void expand(const StageLoad& w, int block, uint32_t (&a)[2][4]) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const uint32_t x = word(w.v[block / 2], block % 2 * 2 + row), y = x >> 8;
            a[0][row] = pair<0>(x);
            a[0][2 + row] = pair<1>(x);
            a[1][row] = pair<0>(y);
            a[1][2 + row] = pair<1>(y);
        }
    }
    // Nibbles where they lie, as subnormal f16: one instruction a pair. Operand i is the codes times subnormal_unit[i],
    // and its columns are those of halves i and 2 + i of a lane's 8 activations.
    static constexpr float subnormal_unit_0 = 0x1p-24f, subnormal_unit_1 = 0x1p-20f;
    __device__ static void expand_subnormal(const StageLoad& w, int block, uint32_t (&a)[2][4]) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const uint32_t x = word(w.v[block / 2], block % 2 * 2 + row), y = x >> 8;
            a[0][row] = x & 0x000f000fu;
            a[0][2 + row] = y & 0x000f000fu;
            a[1][row] = x & 0x00f000f0u;
            a[1][2 + row] = y & 0x00f000f0u;
        }
    }
    __device__ static void bytes(const StageLoad& w, int block, uint32_t (&a)[4]) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const uint32_t x = word(w.v[block / 2], block % 2 * 2 + row);
            a[row] = x & 0x0f0f0f0fu;
            a[2 + row] = x >> 4 & 0x0f0f0f0fu;
        }
    }
    // Of a zero point of 8. The magnitudes 0 to 8 are the last bits of e4m3's 0 to 8 * 2^-9.
    static constexpr float e4m3_unit = 1.f / 512;
    __device__ static void e4m3(const StageLoad& w, int block, uint32_t (&a)[4]) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const uint32_t x = word(w.v[block / 2], block % 2 * 2 + row);
            const uint32_t negative = ~x & 0x88888888u, one = negative >> 3;
            const uint32_t magnitude = ((x & 0x77777777u) ^ (negative - one)) + one;  // 8 - q = (7 ^ q) + 1
            a[row] = (magnitude & 0x0f0f0f0fu) | (negative << 4 & 0x80808080u);
            a[2 + row] = (magnitude >> 4 & 0x0f0f0f0fu) | (negative & 0x80808080u);
        }
    }
};

// The (scale, offset) pairs of rows g and g + 8 in one group.
struct GroupParameters {
    float scale[2], offset[2];
};
// Where it stands, ahead of its use: compilers would move it there.
__device__ inline uint4 load_parameters(const uint8_t* at, bool half, int64_t group, int g) {
    uint4 v = make_uint4(0, 0, 0, 0);
    if (half)
        asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];"
                     : "=r"(v.x), "=r"(v.y)
                     : "l"(reinterpret_cast<const uint2*>(at) + group * 8 + g));
    else
        asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(reinterpret_cast<const uint4*>(at) + group * 8 + g));
    return v;
}
__device__ inline GroupParameters group_parameters(const uint4& v, bool half) {
    GroupParameters p;
    if (half) {
        const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&v.x));
        const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&v.y));
        p.scale[0] = low.x, p.offset[0] = low.y, p.scale[1] = high.x, p.offset[1] = high.y;
    } else {
        p.scale[0] = __uint_as_float(v.x), p.offset[0] = __uint_as_float(v.y);
        p.scale[1] = __uint_as_float(v.z), p.offset[1] = __uint_as_float(v.w);
    }
    return p;
}

}  // namespace cuda
}  // namespace quant
