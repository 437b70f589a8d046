// A few input rows times a weight: each subgroup takes ROWS weight rows, its lanes the chunks of those rows.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "weights.glsl"
#include "activations.glsl"
#include "linear.glsl"
layout(constant_id = 7) const uint INPUTS = 1;  // input rows at most
layout(constant_id = 8) const uint ROWS = 2;

// A quad's group is that of the quad before it, 32 columns earlier.
bool same_group(uint j) {
    return j > 0u && GROUP % 32u == 0u && 32u * j % GROUP != 0u &&
           (GROUP % (32u * CHUNK_QUADS) == 0u || 32u * CHUNK_QUADS % GROUP == 0u);
}

void main() {
    uint inputs = uint(row_count.at[0]), lane = gl_SubgroupInvocationID;
    Floats input_floats = Floats(uvec2(input_aligned));
    Uints input_codes = Uints(uvec2(input_aligned)), parameter_array = Uints(uvec2(weight));
    if (inputs == 0u) return;
    uint input_row[INPUTS];
    [[unroll]] for (uint b = 0u; b < INPUTS; ++b) input_row[b] = min(b, inputs - 1u) * input_stride;

    uint together = gl_NumWorkGroups.x * gl_NumSubgroups * ROWS;
    for (uint row = (gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID) * ROWS; row < rows; row += together) {
        uint chunk_row[ROWS], parameter_row[ROWS];
        float sums[ROWS][INPUTS], input_sums[INPUTS];
        [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
            uint at = min(row + r, rows - 1u);
            chunk_row[r] = chunk_at(at);
            parameter_row[r] = parameter_at(at);
            [[unroll]] for (uint b = 0u; b < INPUTS; ++b) sums[r][b] = 0.0;
        }
        [[unroll]] for (uint b = 0u; b < INPUTS; ++b) input_sums[b] = 0.0;

        for (uint unit = lane; unit < row_chunks; unit += gl_SubgroupSize) {
            uvec4 chunks[ROWS];
            [[unroll]] for (uint r = 0u; r < ROWS; ++r) chunks[r] = weight.at[chunk_row[r] + unit];
            uint column = (unit >> 3) * (32u * CHUNK_QUADS) + (unit & 7u) * 4u;
            vec2 p[ROWS];
            [[unroll]] for (uint j = 0u; j < CHUNK_QUADS; ++j) {
                uint c = column + 32u * j;
                if (c >= cols) break;
                if (GROUP != 0u && !same_group(j))
                    [[unroll]] for (uint r = 0u; r < ROWS; ++r)
                        p[r] = parameters(parameter_array, parameter_row[r], c / GROUP);
                vec4 x[INPUTS];
                [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
                    x[b] = input_quad(input_aligned, input_floats, input_codes, input_row[b], c, cols);
                    if (HAS_OFFSET && GROUP == 0u) input_sums[b] += (x[b].x + x[b].y) + (x[b].z + x[b].w);
                }
                [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
                    vec4 w = quad(chunks[r], j, zero) * quad_scale();
                    [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
                        float product = dot(w, x[b]);
                        if (GROUP == 0u)
                            sums[r][b] += product;
                        else if (HAS_OFFSET)
                            sums[r][b] += product * p[r].x + ((x[b].x + x[b].y) + (x[b].z + x[b].w)) * p[r].y;
                        else
                            sums[r][b] += product * p[r].x;
                    }
                }
            }
        }

        [[unroll]] for (uint b = 0u; b < INPUTS; ++b) {
            float input_sum = HAS_OFFSET && GROUP == 0u ? subgroupAdd(input_sums[b]) : 0.0;
            [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
                float sum = subgroupAdd(sums[r][b]);
                if (subgroupElect() && row + r < rows && b < inputs) {
                    if (PARAMETERS != 0 && GROUP == 0u) {
                        vec2 p = parameters(parameter_array, parameter_row[r], 0u);
                        sum = sum * p.x + input_sum * p.y;
                    }
                    sum *= CODE_FACTOR;
                    if (INPUT != 0u) sum *= uintBitsToFloat(row_scales.at[2u * b]);
                    store(b, row + r, sum);
                }
            }
        }
    }
}
