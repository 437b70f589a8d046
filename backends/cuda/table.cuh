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

// Column `col` of a row of GGUF's blocks, whose bytes formats/ggml_blocks.h describes.
__device__ inline float decode_blocks(const Format& f, const uint8_t* row, int64_t col, int64_t block_bytes) {
    const int width = f.super_group ? f.super_group : f.group, i = static_cast<int>(col % width);
    const uint8_t* block = row + col / width * block_bytes;
    const auto half = [&](int at) { return load_float(FloatType::f16, block + at, 0); };
    int code;
    float scale, minimum = 0;
    if (f.scale_code == ScaleCode::s8) {
        const int quarter = i % 128 / 32, k = i % 32;
        const uint8_t *low = block + i / 128 * 64, *high = block + 128 + i / 128 * 32;
        code = (low[quarter % 2 * 32 + k] >> quarter / 2 * 4 & 15) | (high[k] >> 2 * quarter & 3) << 4;
        scale = static_cast<float>(static_cast<int8_t>(block[192 + i / 16])) * half(208);
    } else if (f.scale_code == ScaleCode::u6) {
        const uint8_t *numbers = block + 4, *fifth = block + 16,
                      *q = f.element == Element::u5 ? block + 48 : block + 16;
        const int group = i / 32, k = i % 32, j = group % 4;
        code = q[group / 2 * 32 + k] >> group % 2 * 4 & 15;
        if (f.element == Element::u5) code |= (fifth[k] >> group & 1) << 4;
        const int small_scale = group < 4 ? numbers[j] & 63 : (numbers[8 + j] & 15) | numbers[j] >> 6 << 4;
        const int small_minimum = group < 4 ? numbers[4 + j] & 63 : numbers[8 + j] >> 4 | numbers[4 + j] >> 6 << 4;
        scale = static_cast<float>(small_scale) * half(0);
        minimum = static_cast<float>(small_minimum) * -half(2);
    } else {
        const uint8_t* q = block + (f.zero == Zero::minimum ? 4 : 2);
        const uint8_t* fifth = q;
        if (f.element == Element::u5) q += 4;
        code = f.element == Element::s8 ? static_cast<int8_t>(q[i]) : q[i % 16] >> i / 16 * 4 & 15;
        if (f.element == Element::u5) code |= (fifth[i / 8] >> i % 8 & 1) << 4;
        scale = half(0);
        if (f.zero == Zero::minimum) minimum = half(2);
    }
    if (f.zero == Zero::minimum) return static_cast<float>(code) * scale + minimum;
    const int zero = f.zero == Zero::constant ? f.zero_point : 0;
    return (static_cast<float>(code) - static_cast<float>(zero)) * scale;
}

__device__ inline float decode(const Table& t, int64_t row, int64_t col) {
    const Format& f = t.format;
    const uint8_t* codes = t.codes + row * t.row_bytes;
    if (f.storage == Storage::ggml) return decode_blocks(f, codes, col, t.block_bytes);
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
