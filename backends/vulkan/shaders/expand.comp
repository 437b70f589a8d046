// Rows of a weight as matmul_cooperative.comp wants them: plain rows of f16 or int8, the columns in the order of the
// codes; and for each row what multiplies its results. A workgroup a row.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "linear.glsl"
#include "integer.glsl"
layout(constant_id = 5) const uint INTEGER = 0;
layout(constant_id = 6) const uint SCALED_LATER = 0;  // parameters, one pair a row, multiply results; else codes, here

uint parameter_row;
// Quad j of a chunk whose first column is `column`, as f16.
uvec2 halves(uvec4 chunk, uint j, uint column) {
    uint c = min(column + 32u * j, cols - 1u);  // past the end the input is zero
    vec4 w = quad(chunk, j, zero) * quad_scale() * CODE_FACTOR;
    if (SCALED_LATER == 0u && PARAMETERS != 0u) {
        vec2 p = parameters(Uints(uvec2(weight)), parameter_row, GROUP == 0u ? 0u : c / GROUP);
        w = w * p.x + p.y;
    }
    return uvec2(packHalf2x16(w.xy), packHalf2x16(w.zw));
}

void main() {
    uint row = gl_WorkGroupID.x, chunk_row = chunk_at(row);
    const uint quads = INTEGER != 0u ? 4u : 2u, parts = CHUNK_QUADS / quads;  // of 16 bytes; of a chunk
    Uint4s codes = Uint4s(uvec2(result));
    parameter_row = parameter_at(row);
    for (uint i = gl_LocalInvocationID.x; i < row_chunks * parts; i += gl_WorkGroupSize.x) {
        uint unit = i / parts, j = i % parts * quads, column = (unit >> 3) * (32u * CHUNK_QUADS) + (unit & 7u) * 4u;
        uvec4 chunk = weight.at[chunk_row + unit];
        if (INTEGER != 0u)
            codes.at[row * row_chunks * parts + i] = uvec4(signed_quad(chunk, j), signed_quad(chunk, j + 1u),
                                                           signed_quad(chunk, j + 2u), signed_quad(chunk, j + 3u));
        else
            codes.at[row * row_chunks * parts + i] = uvec4(halves(chunk, j, column), halves(chunk, j + 1u, column));
    }
    if (gl_LocalInvocationID.x == 0u && SCALED_LATER != 0u) {
        Uints row_parameters = Uints(parameters_address);
        vec2 p = exact_parameters(Uints(uvec2(weight)), parameter_row, zero);
        row_parameters.at[2u * row] = floatBitsToUint(p.x);
        row_parameters.at[2u * row + 1u] = floatBitsToUint(p.y);
    }
}
