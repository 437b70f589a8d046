// Many input rows times a weight on cooperative matrices: f16 x f16 -> f32, or int8 x int8 -> int32 (INTEGER_MATRICES).
// Both are plain rows of 16 bytes, `row_chunks` each, their columns in the same order: arrange.comp and expand.comp made
// them. A workgroup computes TILE_INPUTS x TILE_WEIGHTS results, a subgroup PART_INPUTS x PART_WEIGHTS of them, DEPTH
// bytes of every row at a time through shared memory.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_NV_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef INTEGER_MATRICES
#extension GL_NV_integer_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#endif
#pragma use_vulkan_memory_model
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "linear.glsl"
#include "integer.glsl"
layout(constant_id = 5) const uint TILE_INPUTS = 128;
layout(constant_id = 6) const uint TILE_WEIGHTS = 128;
layout(constant_id = 7) const uint PART_INPUTS = 32;
layout(constant_id = 8) const uint PART_WEIGHTS = 32;
layout(constant_id = 9) const uint DEPTH = 128;
layout(constant_id = 10) const uint M = 16;  // of the matrices; three constants, although they may be equal:
layout(constant_id = 11) const uint N = 16;  // see cooperative_matrix.h
layout(constant_id = 12) const uint K = 16;
layout(constant_id = 13) const uint SCALED = 0;  // 1: weight rows have parameters

#ifdef INTEGER_MATRICES
#define INPUT_MATRIX icoopmatNV<8, gl_ScopeSubgroup, M, K>
#define WEIGHT_MATRIX icoopmatNV<8, gl_ScopeSubgroup, K, N>
#define SUM_MATRIX icoopmatNV<32, gl_ScopeSubgroup, M, N>
const uint VALUE_BYTES = 1;
#else
#define INPUT_MATRIX fcoopmatNV<16, gl_ScopeSubgroup, M, K>
#define WEIGHT_MATRIX fcoopmatNV<16, gl_ScopeSubgroup, K, N>
#define SUM_MATRIX fcoopmatNV<32, gl_ScopeSubgroup, M, N>
const uint VALUE_BYTES = 2;
#endif
const uint ROW = DEPTH / 16, PITCH = ROW + 1;  // 16 bytes: of a tile's row, and to the next
const uint WEIGHT_CHUNKS = TILE_WEIGHTS * ROW / gl_WorkGroupSize.x, INPUT_CHUNKS = TILE_INPUTS * ROW / gl_WorkGroupSize.x;
const uint STAGE_PITCH = PART_WEIGHTS / 4 + 1;  // of M rows of a subgroup's results
shared uvec4 tiles[(TILE_INPUTS + TILE_WEIGHTS) * PITCH];

uvec4 weight_chunks[WEIGHT_CHUNKS], input_chunks[INPUT_CHUNKS];

void load_tiles(uint first_weight, uint first_input, uint step) {
    Uint4s inputs = Uint4s(uvec2(input_aligned));
    [[unroll]] for (uint n = 0u; n < WEIGHT_CHUNKS; ++n) {
        uint i = gl_LocalInvocationIndex + n * gl_WorkGroupSize.x;
        weight_chunks[n] = weight.at[min(first_weight + i / ROW, rows - 1u) * row_chunks + step * ROW + i % ROW];
    }
    [[unroll]] for (uint n = 0u; n < INPUT_CHUNKS; ++n) {
        uint i = gl_LocalInvocationIndex + n * gl_WorkGroupSize.x;
        input_chunks[n] = inputs.at[(first_input + i / ROW) * row_chunks + step * ROW + i % ROW];
    }
}

void store_tiles() {
    [[unroll]] for (uint n = 0u; n < INPUT_CHUNKS; ++n) {
        uint i = gl_LocalInvocationIndex + n * gl_WorkGroupSize.x;
        tiles[i / ROW * PITCH + i % ROW] = input_chunks[n];
    }
    [[unroll]] for (uint n = 0u; n < WEIGHT_CHUNKS; ++n) {
        uint i = gl_LocalInvocationIndex + n * gl_WorkGroupSize.x;
        tiles[(TILE_INPUTS + i / ROW) * PITCH + i % ROW] = weight_chunks[n];
    }
}

void main() {
    uint inputs = uint(row_count.at[0]);
    uint first_input = gl_WorkGroupID.x * TILE_INPUTS, first_weight = gl_WorkGroupID.y * TILE_WEIGHTS;
    if (first_input >= inputs) return;
    uint part_input = gl_SubgroupID % (TILE_INPUTS / PART_INPUTS) * PART_INPUTS;
    uint part_weight = gl_SubgroupID / (TILE_INPUTS / PART_INPUTS) * PART_WEIGHTS;
    SUM_MATRIX sums[PART_INPUTS / M][PART_WEIGHTS / N];
    [[unroll]] for (uint m = 0u; m < PART_INPUTS / M; ++m)
        [[unroll]] for (uint n = 0u; n < PART_WEIGHTS / N; ++n) sums[m][n] = SUM_MATRIX(0);

    uint steps = row_chunks / ROW;
    load_tiles(first_weight, first_input, 0u);
    for (uint step = 0u; step < steps; ++step) {
        store_tiles();
        barrier();
        if (step + 1u < steps) load_tiles(first_weight, first_input, step + 1u);  // on their way during the products
        [[unroll]] for (uint k = 0u; k < DEPTH / (K * VALUE_BYTES); ++k) {
            uint at = k * (K * VALUE_BYTES / 16u);
            INPUT_MATRIX x[PART_INPUTS / M];
            [[unroll]] for (uint m = 0u; m < PART_INPUTS / M; ++m)
                coopMatLoadNV(x[m], tiles, (part_input + m * M) * PITCH + at, PITCH, false);
            [[unroll]] for (uint n = 0u; n < PART_WEIGHTS / N; ++n) {
                WEIGHT_MATRIX w;
                coopMatLoadNV(w, tiles, (TILE_INPUTS + part_weight + n * N) * PITCH + at, PITCH, true);
                [[unroll]] for (uint m = 0u; m < PART_INPUTS / M; ++m) sums[m][n] = coopMatMulAddNV(x[m], w, sums[m][n]);
            }
        }
        barrier();
    }

    Floats row_parameters = Floats(parameters_address);
    uint lane = gl_SubgroupInvocationID, stage = gl_SubgroupID * M * STAGE_PITCH;
    [[unroll]] for (uint m = 0u; m < PART_INPUTS / M; ++m) {
        [[unroll]] for (uint n = 0u; n < PART_WEIGHTS / N; ++n)
            coopMatStoreNV(sums[m][n], tiles, stage + n * N / 4u, STAGE_PITCH, false);
        barrier();
        for (uint c = lane; c < PART_WEIGHTS; c += gl_SubgroupSize) {
            uint row = first_weight + part_weight + c;
            if (row >= rows) break;
            vec2 p = SCALED != 0u ? vec2(row_parameters.at[2u * row], row_parameters.at[2u * row + 1u]) : vec2(1.0, 0.0);
            for (uint r = 0u; r < M; ++r) {
                uint input_row = first_input + part_input + m * M + r;
                if (input_row >= inputs) break;
                uint bits = tiles[stage + r * STAGE_PITCH + c / 4u][c % 4u];
#ifdef INTEGER_MATRICES
                store(input_row, row, scaled(int(bits), uintBitsToFloat(row_scales.at[2u * input_row]),
                                             int(row_scales.at[2u * input_row + 1u]), p));
#else
                store(input_row, row, uintBitsToFloat(bits) * (p.x * uintBitsToFloat(row_scales.at[input_row])));
#endif
            }
        }
        barrier();
    }
}
