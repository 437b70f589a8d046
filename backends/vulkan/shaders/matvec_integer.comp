// As matvec.comp, for int8 activations and one scale a weight row: exact.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "linear.glsl"
#include "integer.glsl"
layout(constant_id = 7) const uint INPUTS = 1;
layout(constant_id = 8) const uint ROWS = 2;
layout(constant_id = 9) const uint UNITS = 1;
layout(constant_id = 10) const uint WHOLE = 0;  // the columns fill the last chunk

uint input_row[INPUTS];
int sums[ROWS][INPUTS];

// Adds the products of one chunk of every row. Without branches where WHOLE, so that loads are not kept apart.
void add_chunks(uvec4 chunks[ROWS], uint unit) {
    Uints codes = Uints(uvec2(input_aligned));
    uint column = (unit >> 3) * (32u * CHUNK_QUADS) + (unit & 7u) * 4u;
    [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) {
        uint c = column + 32u * j;
        if (WHOLE == 0u && c >= cols) break;
        [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
            uint x = codes.at[input_row[b] + (c >> 2)];
            [[unroll]] for (uint r = 0u; r < ROWS; ++r) sums[r][b] = add_dot(signed_quad(chunks[r], j), x, sums[r][b]);
        }
    }
}

void main() {
    uint inputs = uint(row_count.at[0]), lane = gl_SubgroupInvocationID;
    Uints parameter_array = Uints(uvec2(weight));
    if (INPUTS > 1u && inputs == 0u) return;
    [[unroll]] for (uint b = 0u; b < INPUTS; ++b) input_row[b] = INPUTS == 1u ? 0u : min(b, inputs - 1u) * input_stride;

    uint together = gl_NumWorkGroups.x * gl_NumSubgroups * ROWS;
    for (uint row = (gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID) * ROWS; row < rows; row += together) {
        uint chunk_row[ROWS];
        [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
            chunk_row[r] = chunk_at(min(row + r, rows - 1u));
            [[unroll]] for (uint b = 0u; b < INPUTS; ++b) sums[r][b] = 0;
        }
        uint unit = lane;
        for (; unit + (UNITS - 1u) * gl_SubgroupSize < row_chunks; unit += UNITS * gl_SubgroupSize) {
            uvec4 chunks[UNITS][ROWS];
            [[unroll]] for (uint u = 0u; u < UNITS; ++u)
                [[unroll]] for (uint r = 0u; r < ROWS; ++r)
                    chunks[u][r] = weight.at[chunk_row[r] + unit + u * gl_SubgroupSize];
            if (UNITS > 1u) subgroupMemoryBarrier();  // the compiler must not move loads to where they are used
            [[unroll]] for (uint u = 0u; u < UNITS; ++u) add_chunks(chunks[u], unit + u * gl_SubgroupSize);
        }
        for (; UNITS > 1u && unit < row_chunks; unit += gl_SubgroupSize) {
            uvec4 chunks[ROWS];
            [[unroll]] for (uint r = 0u; r < ROWS; ++r) chunks[r] = weight.at[chunk_row[r] + unit];
            add_chunks(chunks, unit);
        }
        [[unroll]] for (uint r = 0u; r < ROWS; ++r)
            [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
                int sum = subgroupAdd(sums[r][b]);
                if (subgroupElect() && row + r < rows && b < inputs) {
                    vec2 p = exact_parameters(parameter_array, parameter_at(row + r), zero);
                    store(b, row + r, scaled(sum, uintBitsToFloat(row_scales.at[2u * b]),
                                             int(row_scales.at[2u * b + 1u]), p));
                }
            }
    }
}
