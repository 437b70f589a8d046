// As matmul.comp, for int8 activations and one scale a weight row: exact.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 16, local_size_y = 16) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "linear.glsl"
#include "integer.glsl"

const uint TILE = 64, DEPTH = 16, PADDED = TILE + 4;  // the depth in words of four codes
shared uvec4 weight_tile[DEPTH][PADDED / 4], input_tile[DEPTH][PADDED / 4];

void main() {
    uint inputs = uint(row_count.at[0]);
    uint first_weight = gl_WorkGroupID.x * TILE, first_input = gl_WorkGroupID.y * TILE;
    if (first_input >= inputs) return;
    Uints codes = Uints(uvec2(input_aligned)), parameter_array = Uints(uvec2(weight));
    uint thread = gl_LocalInvocationIndex;
    ivec4 sums[4];
    [[unroll]] for (uint i = 0u; i < 4u; ++i) sums[i] = ivec4(0);

    for (uint depth = 0u; depth < cols; depth += 4u * DEPTH) {
        [[unroll]] for (uint n = 0u; n < 4u; ++n) {  // eight lanes of 64 rows, two quads each
            uint l = thread % 8u, at = thread / 8u + 32u * (n & 1u), word = l + 8u * (n >> 1), c = depth + 4u * word;
            uint block_cols = 32u * CHUNK_QUADS, w = 0u, x = 0u;
            if (c < cols) {
                uint row = min(first_weight + at, rows - 1u);
                w = signed_quad(weight.at[chunk_at(row) + c / block_cols * 8u + l], c % block_cols / 32u);
                x = codes.at[min(first_input + at, inputs - 1u) * input_stride + (c >> 2)];
            }
            weight_tile[word][at / 4u][at % 4u] = w;
            input_tile[word][at / 4u][at % 4u] = x;
        }
        barrier();
        for (uint k = 0u; k < DEPTH; ++k) {
            uvec4 w = weight_tile[k][gl_LocalInvocationID.x], x = input_tile[k][gl_LocalInvocationID.y];
            [[unroll]] for (uint i = 0u; i < 4u; ++i)
                [[unroll]] for (uint r = 0u; r < 4u; ++r) sums[i][r] = add_dot(w[r], x[i], sums[i][r]);
        }
        barrier();
    }
    for (uint i = 0u; i < 4u; ++i) {
        uint input_row = first_input + 4u * gl_LocalInvocationID.y + i;
        if (input_row >= inputs) break;
        float row_scale = uintBitsToFloat(row_scales.at[2u * input_row]);
        int row_sum = int(row_scales.at[2u * input_row + 1u]);
        for (uint r = 0u; r < 4u; ++r) {
            uint row = first_weight + 4u * gl_LocalInvocationID.x + r;
            if (row < rows)
                store(input_row, row,
                      scaled(sums[i][r], row_scale, row_sum, exact_parameters(parameter_array, parameter_at(row), zero)));
        }
    }
}
