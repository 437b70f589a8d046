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

}  // namespace cuda
}  // namespace quant
