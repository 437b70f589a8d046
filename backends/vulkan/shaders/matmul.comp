// Many input rows times a weight: tiles of 64 x 64 results, 32 columns at a time through shared memory. Takes every
// format and shape.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 16, local_size_y = 16) in;
#include "memory.glsl"
#include "weights.glsl"
#include "activations.glsl"
#include "linear.glsl"

const uint TILE = 64, DEPTH = 32, PADDED = TILE + 4;
shared vec4 weight_tile[DEPTH][PADDED / 4], input_tile[DEPTH][PADDED / 4];

void main() {
    uint inputs = uint(row_count.at[0]);
    uint first_weight = gl_WorkGroupID.x * TILE, first_input = gl_WorkGroupID.y * TILE;
    if (first_input >= inputs) return;
    Floats input_floats = Floats(uvec2(input_aligned));
    Uints input_codes = Uints(uvec2(input_aligned)), parameter_array = Uints(uvec2(weight));
    uint thread = gl_LocalInvocationIndex;
    vec4 sums[4];
    [[unroll]] for (uint i = 0u; i < 4u; ++i) sums[i] = vec4(0.0);

    for (uint depth = 0u; depth < cols; depth += DEPTH) {
        uint block_cols = 32u * CHUNK_QUADS, j = depth % block_cols / 32u;
        [[unroll]] for (uint n = 0u; n < 2u; ++n) {  // eight lanes of 64 rows, each a quad
            uint l = thread % 8u, at = thread / 8u + 32u * n, c = depth + 4u * l;
            uint row = min(first_weight + at, rows - 1u);
            uvec4 chunk = weight.at[chunk_at(row) + depth / block_cols * 8u + l];
            vec4 w = quad(chunk, j, zero) * (quad_scale() * CODE_FACTOR);
            if (PARAMETERS != 0u && c < cols) {
                uint parameter_row = parameter_at(row);
                if (GROUP % 4u == 0u) {
                    vec2 p = parameters(parameter_array, parameter_row, GROUP == 0u ? 0u : c / GROUP);
                    w = HAS_OFFSET ? w * p.x + p.y : w * p.x;
                } else {
                    for (uint i = 0u; i < 4u; ++i)
                        if (c + i < cols) {
                            vec2 p = parameters(parameter_array, parameter_row, (c + i) / GROUP);
                            w[i] = HAS_OFFSET ? w[i] * p.x + p.y : w[i] * p.x;
                        }
                }
            }
            vec4 x = vec4(0.0);
            uint input_row = min(first_input + at, inputs - 1u);
            if (c < cols) x = input_quad(input_aligned, input_floats, input_codes, input_row * input_stride, c, cols);
            for (uint i = 0u; i < 4u; ++i) {
                weight_tile[4u * l + i][at / 4u][at % 4u] = w[i];
                input_tile[4u * l + i][at / 4u][at % 4u] = x[i];
            }
        }
        barrier();
        for (uint k = 0u; k < DEPTH; ++k) {
            vec4 w = weight_tile[k][gl_LocalInvocationID.x], x = input_tile[k][gl_LocalInvocationID.y];
            [[unroll]] for (uint i = 0u; i < 4u; ++i) sums[i] += x[i] * w;
        }
        barrier();
    }
    for (uint i = 0u; i < 4u; ++i) {
        uint input_row = first_input + 4u * gl_LocalInvocationID.y + i;
        if (input_row >= inputs) break;
        float scale = INPUT != 0u ? uintBitsToFloat(row_scales.at[2u * input_row]) : 1.0;
        for (uint r = 0u; r < 4u; ++r) {
            uint row = first_weight + 4u * gl_LocalInvocationID.x + r;
            if (row < rows) store(input_row, row, INPUT != 0u ? sums[i][r] * scale : sums[i][r]);
        }
    }
}
