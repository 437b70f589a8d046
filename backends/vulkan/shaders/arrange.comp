// Rows of a linear's input for matmul_cooperative.comp: the columns in the order of the weight's codes, floats as f16,
// zero past the end. A row of floats whose largest magnitude f16 does not hold is divided by a power of two first. The
// rmsnorm or the silu_mul that makes the input can be folded in.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "activations.glsl"
#include "workgroup.glsl"
layout(constant_id = 7) const uint INTEGER = 0;   // int8 codes stay so
layout(constant_id = 8) const uint PRODUCER = 0;  // 1 = rmsnorm, 2 = silu_mul
const uint RMSNORM = 1, SILU_MUL = 2;

layout(push_constant, std430) uniform Push {
    Ints row_count;
    Float4s input_aligned;  // the same address as the next one
    Uints row_scales;       // RowScale of an input of codes
    Uints result;
    Floats factors;  // what results of a row are multiplied by
    Float4s second;  // rmsnorm's gains, or what silu_mul multiplies by
    uint cols, input_stride, quads;  // of four columns, in a row of the result
    float eps;
};

uint from;
float norm_factor = 1.0;

vec4 input_at(uint c) {
    return input_quad(input_aligned, Floats(uvec2(input_aligned)), Uints(uvec2(input_aligned)), from, c, cols);
}
vec4 value_at(uint c) {
    vec4 x = input_at(c);
    if (PRODUCER == RMSNORM) return x * norm_factor * second.at[c >> 2];
    if (PRODUCER != SILU_MUL) return x;
    vec4 y = second.at[(from + c) >> 2];
    return vec4(silu_mul(x.x, y.x), silu_mul(x.y, y.y), silu_mul(x.z, y.z), silu_mul(x.w, y.w));
}

void main() {
    uint row = gl_WorkGroupID.x, thread = gl_LocalInvocationID.x;
    if (row >= uint(row_count.at[0])) return;
    from = row * input_stride;
    float factor = 1.0, inverse = 1.0;
    if (PRODUCER == RMSNORM) {
        float squares = 0.0;
        for (uint c = 4u * thread; c < cols; c += 4u * gl_WorkGroupSize.x) {
            vec4 x = input_at(c);
            squares += dot(x, x);
        }
        norm_factor = 1.0 / sqrt(workgroup_sum(squares) / float(cols) + eps);
    }
    if (INPUT == 0u) {
        uint largest = 0u;
        for (uint c = 4u * thread; c < cols; c += 4u * gl_WorkGroupSize.x) {
            uvec4 x = floatBitsToUint(value_at(c)) & 0x7fffffffu;
            largest = max(max(max(largest, x.x), max(x.y, x.z)), x.w);
        }
        int exponent = int(workgroup_max(largest) >> 23) - 127;
        if (exponent > 14 && exponent < 128) {
            factor = uintBitsToFloat(uint(exponent - 14 + 127) << 23);
            inverse = uintBitsToFloat(uint(14 - exponent + 127) << 23);
        }
    } else {
        factor = uintBitsToFloat(row_scales.at[2u * row]);
    }
    if (thread == 0u) factors.at[row] = factor;

    for (uint i = thread; i < quads; i += gl_WorkGroupSize.x) {
        uint chunk = i / CHUNK_QUADS, c = (chunk >> 3) * (32u * CHUNK_QUADS) + 32u * (i % CHUNK_QUADS) + 4u * (chunk & 7u);
        if (INTEGER != 0u) {
            result.at[row * quads + i] = c < cols ? Uints(uvec2(input_aligned)).at[from + (c >> 2)] : 0u;
        } else {
            vec4 x = c < cols ? value_at(c) * inverse : vec4(0.0);
            uint to = 2u * (row * quads + i);
            result.at[to] = packHalf2x16(x.xy);
            result.at[to + 1u] = packHalf2x16(x.zw);
        }
    }
}
