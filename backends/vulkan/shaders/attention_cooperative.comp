// As attention.comp, for many rows on cooperative matrices: queries, keys, weights and values are f16, sums f32. A
// workgroup takes 64 rows of one sequence and one head, page by page; a subgroup 16 of the rows. Keys lie in a page as
// [dimension][position] and values as [position][dimension], which is how both products want their right factor.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_NV_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#pragma use_vulkan_memory_model
layout(local_size_x = 128) in;
layout(constant_id = 0) const uint DIM = 128;
layout(constant_id = 1) const uint M = 16;  // three constants, although they are equal: see cooperative_matrix.h
layout(constant_id = 2) const uint N = 16;
layout(constant_id = 3) const uint K = 16;
#include "memory.glsl"
#include "step.glsl"
#define LEFT fcoopmatNV<16, gl_ScopeSubgroup, M, K>
#define RIGHT fcoopmatNV<16, gl_ScopeSubgroup, K, N>
#define SUM fcoopmatNV<32, gl_ScopeSubgroup, M, N>

layout(push_constant, std430) uniform Push {
    Ints block;
    Floats q, result, parts;  // parts: not used
    uint max_rows, slot, heads, kv_heads;
    uint q_stride, result_stride, layer_at, max_splits;  // the layer's place in a page, in 4 bytes
    uint window;
    float scale;
};
const uint ROWS = 64, POSITIONS_OF_PAGE = 64;
const float LOWEST = -3.0e38;
const uint HEAD_CHUNKS = DIM * 8;                  // 16 bytes, of a head's keys or values
const uint KEY_PITCH = 9, DIM_PITCH = DIM / 8 + 1;  // 16 bytes, from row to row of a tile
const uint TILE = DIM * KEY_PITCH > ROWS * DIM_PITCH ? DIM * KEY_PITCH : ROWS * DIM_PITCH;
const uint SCORE_PITCH = 17, WEIGHT_PITCH = 9;
const uint SCRATCH = 16 * SCORE_PITCH;  // of a subgroup: its scores, then their weights
const uint LOADS = HEAD_CHUNKS / 128;   // of an invocation, for a page's keys or values
shared uvec4 tile[TILE];  // queries, keys, values in turn
shared uvec4 scratch[4 * SCRATCH];
shared uvec4 factors[4 * 64];  // of every element of a 16 x 16 matrix of a subgroup

uint step_int(uint array, uint row) {
    return uint(block.at[step_at(array, max_rows, row)]);
}

// This lane's row, half of whose columns it has, gets one factor in every column.
void spread(float factor) {
    uint lane = gl_SubgroupInvocationID, to = gl_SubgroupID * 64u + (lane >> 1) * 4u + (lane & 1u) * 2u;
    factors[to] = factors[to + 1u] = uvec4(floatBitsToUint(factor));
}

void main() {
    uint thread = gl_LocalInvocationID.x, lane = gl_SubgroupInvocationID;
    // The last tiles, which see the most keys, of all heads begin first.
    uint index = gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x, head = index % heads;
    uint tile_at = gl_NumWorkGroups.x - 1u - index / heads, kv_head = head / (heads / kv_heads);
    uint first_row = step_int(TILES + 2u * slot, tile_at), tile_rows = step_int(TILES + 2u * slot + 1u, tile_at);
    uint first_position = step_int(POSITIONS, first_row);
    uint begin = window == 0u || first_position + 1u < window ? 0u : first_position + 1u - window;
    uint end = first_position + tile_rows;
    uint table = step_int(FIRST_PAGES, first_row);
    Addresses addresses = Addresses(uvec2(block.at[STEP_PAGES], block.at[STEP_PAGES + 1u]));

    for (uint i = thread; i < ROWS * (DIM / 8u); i += 128u) {
        uint r = i / (DIM / 8u), c = i % (DIM / 8u) * 8u, at = (first_row + min(r, tile_rows - 1u)) * q_stride + head * DIM + c;
        uvec4 halves;
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            halves[j] = packHalf2x16(vec2(q.at[at + 2u * j], q.at[at + 2u * j + 1u]) * scale);
        tile[r * DIM_PITCH + c / 8u] = halves;
    }
    barrier();
    LEFT query[DIM / K];
    [[unroll]] for (uint k = 0u; k < DIM / K; ++k)
        coopMatLoadNV(query[k], tile, gl_SubgroupID * 16u * DIM_PITCH + k * (K / 8u), DIM_PITCH, false);
    SUM sums[DIM / N];
    [[unroll]] for (uint n = 0u; n < DIM / N; ++n) sums[n] = SUM(0.0);

    uint scratch_at = gl_SubgroupID * SCRATCH, row_at = lane >> 1, column_at = lane & 1u;  // every second 16 bytes
    uint position = first_position + gl_SubgroupID * 16u + row_at;  // of the query; sees keys [from, to)
    uint from = window == 0u || position + 1u < window ? 0u : position + 1u - window, to = position + 1u;
    float largest = LOWEST, total = 0.0;
    for (uint p = begin / 64u; p < (end + 63u) / 64u; ++p) {
        Uint4s page = Uint4s(addresses.at[table + p]);
        uint keys = layer_at / 4u + kv_head * HEAD_CHUNKS, values = keys + kv_heads * HEAD_CHUNKS;
        uvec4 loaded[LOADS];
        [[unroll]] for (uint n = 0u; n < LOADS; ++n) loaded[n] = page.at[keys + thread + n * 128u];
        barrier();  // the tile is free
        [[unroll]] for (uint n = 0u; n < LOADS; ++n) {
            uint i = thread + n * 128u;
            tile[i / 8u * KEY_PITCH + i % 8u] = loaded[n];
        }
        [[unroll]] for (uint n = 0u; n < LOADS; ++n) {
            uint i = thread + n * 128u;  // no values from past the end, which may be anything
            loaded[n] = p * 64u + i / (DIM / 8u) < end ? page.at[values + i] : uvec4(0u);
        }
        barrier();
        [[unroll]] for (uint n = 0u; n < 64u / N; ++n) {
            SUM scores = SUM(0.0);
            [[unroll]] for (uint k = 0u; k < DIM / K; ++k) {
                RIGHT key;
                coopMatLoadNV(key, tile, k * K * KEY_PITCH + n * (N / 8u), KEY_PITCH, false);
                scores = coopMatMulAddNV(query[k], key, scores);
            }
            coopMatStoreNV(scores, scratch, scratch_at + n * (N / 4u), SCORE_PITCH, false);
        }
        barrier();
        [[unroll]] for (uint n = 0u; n < LOADS; ++n) {
            uint i = thread + n * 128u;
            tile[i / (DIM / 8u) * DIM_PITCH + i % (DIM / 8u)] = loaded[n];
        }
        vec4 row[8];
        float risen = largest;
        [[unroll]] for (uint i = 0u; i < 8u; ++i) {
            uint c = 2u * i + column_at;
            vec4 score = uintBitsToFloat(scratch[scratch_at + row_at * SCORE_PITCH + c]);
            [[unroll]] for (uint j = 0u; j < 4u; ++j) {
                uint key = p * 64u + 4u * c + j;
                row[i][j] = key >= from && key < to ? score[j] : LOWEST;
                risen = max(risen, row[i][j]);
            }
        }
        risen = max(risen, subgroupShuffleXor(risen, 1u));
        float sum = 0.0;
        [[unroll]] for (uint i = 0u; i < 8u; ++i)
            [[unroll]] for (uint j = 0u; j < 4u; ++j) {
                row[i][j] = row[i][j] == LOWEST ? 0.0 : exp(row[i][j] - risen);
                sum += row[i][j];
            }
        float shrink = largest == LOWEST ? 0.0 : exp(largest - risen);
        total = total * shrink + sum + subgroupShuffleXor(sum, 1u);
        largest = risen;
        spread(shrink);
        subgroupBarrier();  // the scores are read
        [[unroll]] for (uint i = 0u; i < 8u; ++i) {
            uint c = 2u * i + column_at, at = scratch_at + row_at * WEIGHT_PITCH + c / 2u;
            scratch[at][2u * column_at] = packHalf2x16(row[i].xy);
            scratch[at][2u * column_at + 1u] = packHalf2x16(row[i].zw);
        }
        barrier();
        SUM factor;
        coopMatLoadNV(factor, factors, gl_SubgroupID * 64u, 4u, false);
        LEFT weights[64u / K];
        [[unroll]] for (uint k = 0u; k < 64u / K; ++k)
            coopMatLoadNV(weights[k], scratch, scratch_at + k * (K / 8u), WEIGHT_PITCH, false);
        [[unroll]] for (uint n = 0u; n < DIM / N; ++n) {
            [[unroll]] for (uint i = 0u; i < factor.length(); ++i) sums[n][i] *= factor[i];
            [[unroll]] for (uint k = 0u; k < 64u / K; ++k) {
                RIGHT value;
                coopMatLoadNV(value, tile, k * K * DIM_PITCH + n * (N / 8u), DIM_PITCH, false);
                sums[n] = coopMatMulAddNV(weights[k], value, sums[n]);
            }
        }
    }

    barrier();
    spread(1.0 / total);
    barrier();
    SUM factor;
    coopMatLoadNV(factor, factors, gl_SubgroupID * 64u, 4u, false);
    [[unroll]] for (uint n = 0u; n < DIM / N; ++n) {
        [[unroll]] for (uint i = 0u; i < factor.length(); ++i) sums[n][i] *= factor[i];
        coopMatStoreNV(sums[n], scratch, scratch_at, 5u, false);
        barrier();
        for (uint i = lane; i < 16u * N; i += gl_SubgroupSize) {
            uint r = gl_SubgroupID * 16u + i / N, c = i % N;
            if (r < tile_rows)
                result.at[(first_row + r) * result_stride + head * DIM + n * N + c] =
                    uintBitsToFloat(scratch[scratch_at + i / N * 5u + c / 4u][c % 4u]);
        }
        barrier();
    }
}
