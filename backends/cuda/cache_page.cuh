// Keys and values in a page of the cache, and what their codes mean.
#pragma once
#include <cuda_fp8.h>

#include "backends/cuda/arguments.h"
#include "backends/cuda/device.cuh"

namespace quant {
namespace cuda {

// One key head's part of a page: keys [head_dim][64], values [64][head_dim], and in a cache of codes the scales of
// both.
struct CachePage {
    uint8_t *keys, *values;
    __half *key_scales, *value_scales;
    __device__ CachePage(uint8_t* page, const CachePlaces& p, int kv_head) {
        uint8_t* layer = page + p.layer_at;
        keys = layer + kv_head * p.head_bytes;
        values = keys + p.values_at;
        key_scales = reinterpret_cast<__half*>(layer + p.key_scales_at) + kv_head * page_positions;
        value_scales = reinterpret_cast<__half*>(layer + p.value_scales_at) + kv_head * page_positions;
    }
};

// The two codes in the low half of `codes`, exactly.
template <CacheKind kind>
__device__ inline __half2 code_pair(uint32_t codes) {
    if (kind == CacheKind::e4m3)
        return __half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes & 0xffff), __NV_E4M3));
    const uint32_t biased = __byte_perm(codes ^ 0x8080u, 0x64646464u, 0x4140);  // 1024 + (code + 128)
    return __hsub2(*reinterpret_cast<const __half2*>(&biased), __half2half2(__float2half_rn(1152.f)));
}

// Number `index` of keys or values; f16, or a code and its scale.
template <CacheKind kind>
__device__ inline float cached_value(const uint8_t* numbers, int64_t index, const __half* scale) {
    if (kind == CacheKind::f16) return __half2float(reinterpret_cast<const __half*>(numbers)[index]);
    return __low2float(code_pair<kind>(numbers[index])) * __half2float(*scale);
}

// Eight numbers of the cache, side by side.
template <CacheKind kind>
struct Eight {
    uint32_t words[kind == CacheKind::f16 ? 4 : 2];
    __device__ void load(const uint8_t* numbers, int64_t index) {
        if constexpr (kind == CacheKind::f16)
            asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                         : "l"(numbers + index * 2));
        else
            asm volatile("ld.global.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
                         : "=r"(words[0]), "=r"(words[1])
                         : "l"(numbers + index));
    }
    __device__ void to_floats(float (&f)[8]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float2 pair;
            if constexpr (kind == CacheKind::f16)
                pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
            else
                pair = __half22float2(code_pair<kind>(words[i / 2] >> i % 2 * 16));
            f[2 * i] = pair.x;
            f[2 * i + 1] = pair.y;
        }
    }
};

}  // namespace cuda
}  // namespace quant
