// Small device functions that the kernels share.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "backends/cuda/device_step.h"
#include "core/graph.h"

namespace quant {
namespace cuda {

// The next kernel may be scheduled; it waits before it reads what this one writes.
__device__ inline void allow_next() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Everything that earlier kernels of the plan have written is visible after this, and they have read what they need.
// Blocks must pass it even if they have nothing to do: the next kernel relies on this one having waited.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline float warp_sum(float x) {
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
__device__ inline int warp_sum(int x) {
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int i = 16; i > 0; i >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

// Over a block of at most 32 warps; `shared` holds 32 values. Every thread gets the result.
template <class T, class Reduce>
__device__ inline T block_reduce(T x, T* shared, T neutral, Reduce reduce) {
    x = reduce(x);
    __syncthreads();  // `shared` may still be read from before
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : neutral;
    return reduce(x);
}

__device__ inline float silu_times(float gate, float up) {
    return gate / (1.f + expf(-gate)) * up;
}

__device__ inline uint4 load_shared(uint32_t at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

// Two numbers rounded to f16 or bf16, the first in the low half.
template <bool Bf16>
__device__ inline uint32_t two_halves(float a, float b) {
    if (Bf16) {
        const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
        return *reinterpret_cast<const uint32_t*>(&h);
    }
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&h);
}
template <bool Bf16>
__device__ inline float sum_of_halves(uint32_t v) {
    if (Bf16) {
        const float2 f = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v));
        return f.x + f.y;
    }
    const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&v));
    return f.x + f.y;
}

// As in formats/float_types.h.
__device__ inline uint8_t f32_to_e4m3(float x) {
    const uint32_t u = __float_as_uint(x), sign = u >> 24 & 0x80, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000u) return static_cast<uint8_t>(0x7f | sign);
    const uint32_t a = magnitude < 0x43e00000u ? magnitude : 0x43e00000u;  // 448
    const uint32_t normal = ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120u << 3);
    const uint32_t subnormal = __float_as_uint(__uint_as_float(a) + 16384.0f) - __float_as_uint(16384.0f);
    return static_cast<uint8_t>((a < (121u << 23) ? subnormal : normal) | sign);
}
__device__ inline float e4m3_to_f32(uint8_t code) {
    const uint32_t sign = (code & 0x80u) << 24, magnitude = code & 0x7fu;
    if (magnitude == 0x7f) return __uint_as_float(0x7fffffffu);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude << 20) * 0x1p120f));
}
#if __CUDA_ARCH__ >= 890
// Two codes, the low 16 bits of x, as two f16.
__device__ inline uint32_t e4m3_to_halves(uint32_t x) {
    uint32_t h;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"(static_cast<uint16_t>(x)));
    return h;
}
#endif
__device__ inline void e4m3_to_f32(uint32_t codes, float (&v)[4]) {
#if __CUDA_ARCH__ >= 890
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint32_t h = e4m3_to_halves(codes >> 16 * i);
        const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&h));
        v[2 * i] = f.x, v[2 * i + 1] = f.y;
    }
#else
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = e4m3_to_f32(static_cast<uint8_t>(codes >> 8 * i));
#endif
}

// How a row whose largest magnitude is known is rounded to s8 or e4m3.
template <ValueType type>
struct Rounding {
    float scale, inverse;
    __device__ explicit Rounding(float largest) {
        if (type == ValueType::s8) {
            inverse = largest > 0 ? 127.0f / largest : 0.0f;
            scale = largest / 127.0f;
        } else {
            scale = fmaxf(largest / 448.0f, 1.0f / (448.0f * 512.0f));
        }
    }
    __device__ int code(float value) const {
        if (type == ValueType::e4m3) return f32_to_e4m3(value / scale);
        const float rounded = rintf(value * inverse);
        return isnan(rounded) ? 0 : static_cast<int>(fminf(fmaxf(rounded, -127.0f), 127.0f));
    }
};

// ---- Tensor cores -------------------------------------------------------------------------------------------------

// c += a * b: 16 x 16 (or 16 x 32 of 8 bits) times 16 x 8. Lane = 4 g + t holds of `a` rows g, g + 8, of `b` and `c`
// column g and columns 2t, 2t + 1.
__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

#if __CUDA_ARCH__ >= 800
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else  // the table has no bf16 kernel for these devices
__device__ inline void mma_bf16(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) {}
#endif

// Codes of `a` signed or not, of `b` signed.
template <bool SignedA>
__device__ inline void mma_int8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    if (SignedA)
        asm volatile(
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    int top[2] = {c[0], c[1]}, bottom[2] = {c[2], c[3]};
    for (int half = 0; half < 2; ++half)
        for (int part = 0; part < 2; ++part) {
            int(&d)[2] = part ? bottom : top;
            const uint32_t x = a[2 * half + part], y = half ? b1 : b0;
            if (SignedA)
                asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                             : "+r"(d[0]), "+r"(d[1])
                             : "r"(x), "r"(y));
            else
                asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                             : "+r"(d[0]), "+r"(d[1])
                             : "r"(x), "r"(y));
        }
    c[0] = top[0], c[1] = top[1], c[2] = bottom[0], c[3] = bottom[1];
#endif
}

}  // namespace cuda
}  // namespace quant
