// One workgroup a row: quantize, rmsnorm or silu_mul, the result in float or quantized.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OP = 0;      // 0 = copy, 1 = rmsnorm, 2 = silu_mul
layout(constant_id = 2) const uint RESULT = 0;  // 0 = f32, 1 = s8, 2 = e4m3
#include "memory.glsl"
#include "numbers.glsl"
#include "workgroup.glsl"

layout(push_constant, std430) uniform Push {
    Ints row_count;
    Floats in0, in1, gains;
    Uints result;  // f32 rows, or rows of codes
    Uints row_scales;
    uint cols, in0_stride, in1_stride, result_stride;  // floats; the result's in 4 bytes
    float eps;
    uint span;  // columns of a workgroup: all of them unless OP = 2 and RESULT = 0
};

float factor = 1.0;
uint in0_row, in1_row;

float value_at(uint c) {
    float x = in0.at[in0_row + c];
    if (OP == 1u) return x * factor * gains.at[c];
    if (OP == 2u) return silu_mul(x, in1.at[in1_row + c]);
    return x;
}

void main() {
    uint row = gl_WorkGroupID.y, thread = gl_LocalInvocationID.x, threads = gl_WorkGroupSize.x;
    if (row >= uint(row_count.at[0])) return;
    in0_row = row * in0_stride;
    in1_row = row * in1_stride;
    uint begin = gl_WorkGroupID.x * span, end = min(cols, begin + span);
    if (OP == 1u) {
        float sum = 0.0;
        for (uint c = thread; c < cols; c += threads) sum += in0.at[in0_row + c] * in0.at[in0_row + c];
        factor = 1.0 / sqrt(workgroup_sum(sum) / float(cols) + eps);
    }
    if (RESULT == 0u) {
        for (uint c = begin + thread; c < end; c += threads)
            result.at[row * result_stride + c] = floatBitsToUint(value_at(c));
        return;
    }
    uint largest = 0u;  // NaN does not count
    for (uint c = thread; c < cols; c += threads) {
        uint a = floatBitsToUint(value_at(c)) & 0x7fffffffu;
        if (a <= 0x7f800000u) largest = max(largest, a);
    }
    largest = workgroup_max(largest);
    RowRounding rounding;
    if (RESULT == 1u)
        rounding = s8_rounding(largest);
    else
        rounding = e4m3_rounding(largest);
    int sum = 0;
    for (uint word = thread; word < result_stride; word += threads) {
        uint codes = 0u;
        for (uint i = 0u; i < 4u; ++i) {
            uint c = 4u * word + i;
            if (c >= cols) break;
            uint code;
            if (RESULT == 1u) {
                int signed_code = s8_code(value_at(c), rounding);
                sum += signed_code;
                code = uint(signed_code) & 0xffu;
            } else {
                code = e4m3_code(value_at(c), rounding);
            }
            codes |= code << (8u * i);
        }
        result.at[row * result_stride + word] = codes;
    }
    if (RESULT == 1u) sum = workgroup_sum(sum);
    if (thread == 0u) {
        row_scales.at[2u * row] = rounding.scale;
        row_scales.at[2u * row + 1u] = uint(sum);
    }
}
