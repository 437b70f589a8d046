// A few input rows times a weight: each subgroup takes ROWS weight rows, its lanes the chunks of those rows, of which
// UNITS are on their way at a time. The rmsnorm that makes the input and the silu_mul that takes the results can be
// folded in: NORM multiplies the input by gains, and the results by the row's factor; PAIRED takes the weight's two halves
// as gate and up, row by row.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "activations.glsl"
#include "linear.glsl"
layout(constant_id = 7) const uint INPUTS = 1;  // input rows at most
layout(constant_id = 8) const uint ROWS = 2;
layout(constant_id = 9) const uint UNITS = 1;
layout(constant_id = 10) const uint NORM = 0;
layout(constant_id = 11) const uint PAIRED = 0;
layout(constant_id = 12) const uint WHOLE = 0;         // the columns fill the last chunk
layout(constant_id = 13) const uint CHUNK_GROUPS = 1;  // groups among which a chunk's quads are divided evenly
const uint GROUP_QUADS = CHUNK_QUADS / CHUNK_GROUPS;

uint input_row[INPUTS], chunk_row[ROWS], parameter_row[ROWS];
float sums[ROWS][INPUTS], input_sums[INPUTS], squares[INPUTS];
uvec4 chunks[UNITS][ROWS];
vec2 scales[UNITS][ROWS][CHUNK_GROUPS];

uint column_of(uint unit) {
    return (unit >> 3) * (32u * CHUNK_QUADS) + (unit & 7u) * 4u;
}

void load_chunks(uint u, uint unit) {
    [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
        chunks[u][r] = weight.at[chunk_row[r] + unit];
        if (GROUP != 0u)
            [[unroll]] for (uint g = 0u; g < CHUNK_GROUPS; ++g) {
                uint c = min(column_of(unit) + 32u * g * GROUP_QUADS, cols - 1u);
                scales[u][r][g] = parameters(Uints(uvec2(weight)), parameter_row[r], c / GROUP);
            }
    }
}

// Adds the products of one chunk of every row. Without branches where WHOLE, so that loads are not kept apart.
void add_chunks(uint u, uint unit) {
    Floats input_floats = Floats(uvec2(input_aligned));
    Uints input_codes = Uints(uvec2(input_aligned));
    [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) {
        uint c = column_of(unit) + 32u * j;
        if (WHOLE == 0u && c >= cols) break;
        vec4 x[INPUTS], gain = vec4(1.0);
        float x_sum[INPUTS];
        if (NORM != 0u) gain = gains.at[c >> 2];
        [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
            x[b] = input_quad(input_aligned, input_floats, input_codes, input_row[b], c, cols);
            if (NORM != 0u) {
                squares[b] += dot(x[b], x[b]);
                x[b] *= gain;
            }
            if (HAS_OFFSET) x_sum[b] = (x[b].x + x[b].y) + (x[b].z + x[b].w);
            if (HAS_OFFSET && GROUP == 0u) input_sums[b] += x_sum[b];
            x[b] *= quad_scale();
        }
        [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
            vec4 w = quad(chunks[u][r], j, zero);
            [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
                float product = dot(w, x[b]);
                if (GROUP != 0u) {
                    vec2 p = scales[u][r][j / GROUP_QUADS];
                    product = HAS_OFFSET ? product * p.x + x_sum[b] * p.y : product * p.x;
                }
                sums[r][b] += product;
            }
        }
    }
}

void main() {
    uint inputs = uint(row_count.at[0]), lane = gl_SubgroupInvocationID;
    if (INPUTS > 1u && inputs == 0u) return;
    [[unroll]] for (uint b = 0u; b < INPUTS; ++b) input_row[b] = INPUTS == 1u ? 0u : min(b, inputs - 1u) * input_stride;

    // Rows of results; with PAIRED the second half of a subgroup's weight rows is that of the weight.
    uint results = PAIRED != 0u ? rows / 2u : rows;
    const uint each = PAIRED != 0u ? ROWS / 2u : ROWS;
    uint together = gl_NumWorkGroups.x * gl_NumSubgroups * each;
    for (uint row = (gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID) * each; row < results; row += together) {
        [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
            uint at = min(row + r % each, results - 1u) + r / each * results;
            chunk_row[r] = chunk_at(at);
            parameter_row[r] = parameter_at(at);
            [[unroll]] for (uint b = 0u; b < INPUTS; ++b) sums[r][b] = 0.0;
        }
        [[unroll]] for (uint b = 0u; b < INPUTS; ++b) input_sums[b] = squares[b] = 0.0;

        uint unit = lane;
        for (; unit + (UNITS - 1u) * gl_SubgroupSize < row_chunks; unit += UNITS * gl_SubgroupSize) {
            [[unroll]] for (uint u = 0u; u < UNITS; ++u) load_chunks(u, unit + u * gl_SubgroupSize);
            if (UNITS > 1u) subgroupMemoryBarrier();  // the compiler must not move loads to where they are used
            [[unroll]] for (uint u = 0u; u < UNITS; ++u) add_chunks(u, unit + u * gl_SubgroupSize);
        }
        for (; UNITS > 1u && unit < row_chunks; unit += gl_SubgroupSize) {
            load_chunks(0u, unit);
            add_chunks(0u, unit);
        }

        [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
            float factor = CODE_FACTOR, input_sum = HAS_OFFSET && GROUP == 0u ? subgroupAdd(input_sums[b]) : 0.0;
            if (NORM != 0u) factor *= 1.0 / sqrt(subgroupAdd(squares[b]) / float(cols) + eps);
            if (INPUT != 0u) factor *= uintBitsToFloat(row_scales.at[2u * b]);
            [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
                float sum = subgroupAdd(sums[r][b]);
                if (PARAMETERS != 0 && GROUP == 0u) {
                    vec2 p = parameters(Uints(uvec2(weight)), parameter_row[r], 0u);
                    sum = sum * p.x + input_sum * p.y;
                }
                sums[r][b] = sum * factor;
            }
            if (subgroupElect() && b < inputs)
                [[unroll]] for (uint r = 0u; r < each; ++r) {
                    if (row + r >= results) break;
                    if (PAIRED != 0u)
                        result.at[b * result_stride + row + r] = silu_mul(sums[r][b], sums[r + each][b]);
                    else
                        store(b, row + r, sums[r][b]);
                }
        }
    }
}
