// Rows of a table as a file stores it, decoded: every format that the host's decode knows, to the bit.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ELEMENT = 0;      // Element
layout(constant_id = 2) const uint GRANULARITY = 0;  // Granularity
layout(constant_id = 3) const uint SCALE = 0;        // FloatType
layout(constant_id = 4) const uint SCALE_CODE = 0;   // ScaleCode
layout(constant_id = 5) const uint ZERO = 0;         // Zero
layout(constant_id = 6) const uint GGML = 0;         // blocks of a GGUF file
#include "memory.glsl"
#include "numbers.glsl"
const uint F32 = 0, F16 = 1, BF16 = 2, S8 = 3, U8 = 4, U6 = 5, U5 = 6, U4 = 7, E4M3 = 8;
const uint CHANNEL = 2, GROUP = 3, BLOCK = 4;       // of GRANULARITY
const uint SCALE_F32 = 1, SCALE_F16 = 2;            // of SCALE; 3 = bf16
const uint ZERO_INTEGER = 2, ZERO_MINIMUM = 3;      // of ZERO
const uint CODE_U6 = 1, CODE_S8 = 2;                // of SCALE_CODE

layout(push_constant, std430) uniform Push {
    Ints row_count, tokens;
    Uints codes, scales, zeros;
    Floats result;
    int first_row, end_row, table_rows;  // codes holds rows [first_row, end_row)
    uint cols, row_bytes, group, groups, block_bytes;
    uint zero_point, result_stride;
};

uint byte_at(uint at) {
    return codes.at[at >> 2] >> (8u * (at & 3u)) & 0xffu;
}
uint half_at(uint at) {
    return byte_at(at) | byte_at(at + 1u) << 8;
}
float f16_at(uint at) {
    return f16_to_f32(half_at(at));
}
float signed_byte(uint b) {
    return float(int(b << 24) >> 24);
}
float scale_at(Uints array, uint i) {
    if (SCALE == SCALE_F32) return uintBitsToFloat(array.at[i]);
    uint h = array.at[i >> 1] >> (16u * (i & 1u)) & 0xffffu;
    return SCALE == SCALE_F16 ? f16_to_f32(h) : uintBitsToFloat(h << 16);
}

// q * s + m or (q - z) * s, every step rounded.
float affine(float q, float scale, float offset) {
    if (ZERO == ZERO_MINIMUM) {
        precise float product = q * scale;
        precise float sum = product + offset;
        return sum;
    }
    precise float difference = q - offset;
    precise float product = difference * scale;
    return product;
}

float ggml_value(uint row, uint c) {
    uint width = SCALE_CODE != 0u ? 256u : 32u, i = c % width, base = row * row_bytes + c / width * block_bytes;
    float q, offset = float(zero_point);
    precise float scale;
    if (SCALE_CODE == 0u) {
        uint header = base + (ZERO == ZERO_MINIMUM ? 4u : 2u);
        scale = f16_at(base);
        if (ZERO == ZERO_MINIMUM) offset = f16_at(base + 2u);
        if (ELEMENT == S8) {
            q = signed_byte(byte_at(header + i));
        } else {
            uint low = header + (ELEMENT == U5 ? 4u : 0u);
            uint code = byte_at(low + i % 16u) >> (i < 16u ? 0u : 4u) & 15u;
            if (ELEMENT == U5) code |= (byte_at(header + i / 8u) >> i % 8u & 1u) << 4;
            q = float(code);
        }
    } else if (SCALE_CODE == CODE_U6) {  // Q4_K, Q5_K: see formats/ggml_blocks.cpp for the 12 bytes of scales
        uint pair = i / 64u, k = i % 32u, high = i / 32u % 2u, s = i / 32u, scale_code, minimum_code;
        if (s < 4u) {
            scale_code = byte_at(base + 4u + s) & 63u;
            minimum_code = byte_at(base + 8u + s) & 63u;
        } else {
            uint both = byte_at(base + 8u + s);
            scale_code = (both & 15u) | byte_at(base + s) >> 6 << 4;
            minimum_code = both >> 4 | byte_at(base + 4u + s) >> 6 << 4;
        }
        scale = float(scale_code) * f16_at(base);
        precise float minimum = float(minimum_code) * -f16_at(base + 2u);
        offset = minimum;
        uint low = base + (ELEMENT == U5 ? 48u : 16u);
        uint code = byte_at(low + 32u * pair + k) >> (4u * high) & 15u;
        if (ELEMENT == U5) code |= (byte_at(base + 16u + k) >> (2u * pair + high) & 1u) << 4;
        q = float(code);
    } else {  // Q6_K
        uint part = i / 128u, quarter = i % 128u / 32u, k = i % 32u;
        uint code = byte_at(base + 64u * part + 32u * (quarter & 1u) + k) >> (4u * (quarter >> 1)) & 15u;
        code |= (byte_at(base + 128u + 32u * part + k) >> (2u * quarter) & 3u) << 4;
        q = float(code);
        scale = signed_byte(byte_at(base + 192u + i / 16u)) * f16_at(base + 208u);
    }
    return affine(q, scale, offset);
}

float planar_value(uint row, uint c) {
    uint base = row * row_bytes;
    if (ELEMENT == F32) return uintBitsToFloat(codes.at[(base >> 2) + c]);
    if (ELEMENT == F16) return f16_at(base + 2u * c);
    if (ELEMENT == BF16) return uintBitsToFloat(half_at(base + 2u * c) << 16);
    float q;
    if (ELEMENT == S8) {
        q = signed_byte(byte_at(base + c));
    } else if (ELEMENT == U8) {
        q = float(byte_at(base + c));
    } else if (ELEMENT == E4M3) {
        q = e4m3_to_f32(byte_at(base + c));
    } else {  // a bit stream
        uint bits = ELEMENT == U6 ? 6u : ELEMENT == U5 ? 5u : 4u, bit = c * bits, at = base + bit / 8u;
        uint both = byte_at(at);
        if (bit % 8u + bits > 8u) both |= byte_at(at + 1u) << 8;
        q = float(both >> bit % 8u & ((1u << bits) - 1u));
    }
    uint g = GRANULARITY == CHANNEL   ? row
             : GRANULARITY == GROUP   ? row * groups + c / group
             : GRANULARITY == BLOCK   ? row / group * groups + c / group
                                      : 0u;
    float offset = float(zero_point);
    if (ZERO == ZERO_INTEGER) offset = float(zeros.at[g >> 2] >> (8u * (g & 3u)) & 0xffu);
    if (ZERO == ZERO_MINIMUM) offset = scale_at(zeros, g);
    return affine(q, scale_at(scales, g), offset);
}

void main() {
    uint row = gl_WorkGroupID.y, c = gl_GlobalInvocationID.x;
    if (row >= uint(row_count.at[0]) || c >= cols) return;
    int token = clamp(tokens.at[row], 0, table_rows - 1);
    if (token < first_row || token >= end_row) return;
    uint table_row = uint(token - first_row);
    result.at[row * result_stride + c] = GGML != 0u ? ggml_value(table_row, c) : planar_value(table_row, c);
}
