// Rows of an embedding table.
#pragma once
#include "backends/cuda/arguments.h"
#include "backends/cuda/device.cuh"

namespace quant {
namespace cuda {

__device__ inline float load_float(FloatType type, const uint8_t* array, int64_t index) {
    if (type == FloatType::f32) return reinterpret_cast<const float*>(array)[index];
    if (type == FloatType::f16) return __half2float(reinterpret_cast<const __half*>(array)[index]);
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(array)[index]);
}

__device__ inline float decode(const Table& t, int64_t row, int64_t col) {
    const Format& f = t.format;
    const uint8_t* codes = t.codes + row * t.row_bytes;
    if (f.element == Element::f32) return load_float(FloatType::f32, codes, col);
    if (f.element == Element::f16) return load_float(FloatType::f16, codes, col);
    if (f.element == Element::bf16) return load_float(FloatType::bf16, codes, col);
    const int bits = f.element == Element::u4 ? 4 : f.element == Element::u5 ? 5 : f.element == Element::u6 ? 6 : 8;
    const int64_t bit = col * bits;
    const uint32_t low = codes[bit / 8], high = bit % 8 + bits > 8 ? codes[bit / 8 + 1] : 0;
    const uint32_t code = ((low | high << 8) >> bit % 8) & ((1u << bits) - 1);
    int64_t index = 0;
    if (f.granularity == Granularity::channel) index = row;
    if (f.granularity == Granularity::group) index = row * t.groups + col / f.group;
    if (f.granularity == Granularity::block) index = row / f.group * t.groups + col / f.group;
    const float scale = load_float(f.scale, t.scales, index);
    const float q = f.element == Element::s8     ? static_cast<float>(static_cast<int8_t>(code))
                    : f.element == Element::e4m3 ? e4m3_to_f32(static_cast<uint8_t>(code))
                                                 : static_cast<float>(code);
    if (f.zero == Zero::minimum) return q * scale + load_float(f.scale, t.zeros, index);
    if (f.zero == Zero::integer) return (q - static_cast<float>(t.zeros[index])) * scale;
    if (f.zero == Zero::constant) return (q - static_cast<float>(f.zero_point)) * scale;
    return q * scale;
}

// The row of a token; one that the table has not: the nearest that it has.
__device__ inline int64_t table_row(const Table& t, int64_t token) {
    return token < 0 ? 0 : token >= t.rows ? t.rows - 1 : token;
}

}  // namespace cuda
}  // namespace quant
