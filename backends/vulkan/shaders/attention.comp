// out = softmax(scale q . K^T) V, causal, page by page with a running maximum. A workgroup takes some rows of one
// sequence (a tile), some heads of one key head, and a share of the pages (a split); with several splits it leaves its
// sums to attention_combine. Scales of a quantized cache multiply scores and weights, not keys and values.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint DIM = 64;
layout(constant_id = 2) const uint TILE_ROWS = 1;
layout(constant_id = 3) const uint TILE_HEADS = 1;
layout(constant_id = 4) const uint WIDTH = 2;  // columns of a value that one load brings: 8, or 2 where DIM is odd in 8
layout(constant_id = 5) const uint KIND = 0;  // of the cache: 0 = f16, 1 = s8, 2 = e4m3
#include "memory.glsl"
#include "codes.glsl"
#include "step.glsl"
#include "workgroup.glsl"
const uint QUERIES = TILE_ROWS * TILE_HEADS;
const uint SLICES = gl_WorkGroupSize.x / 32;  // of the dimension, in q . k
const uint UNITS = DIM / WIDTH;
const float LOWEST = -3.0e38;

layout(push_constant, std430) uniform Push {
    Ints block;
    Floats q, result, parts;  // parts: [row][head][split] of DIM sums, the largest score, the sum of weights
    uint max_rows, slot, heads, kv_heads;
    uint q_stride, result_stride, layer_at, max_splits;  // the layer's place in a page, in 4 bytes
    uint window;
    float scale;
};
const uint CODE_WORDS = KIND == 0u ? 2u : 1u;        // of four codes
const uint HEAD_WORDS = DIM * 16u * CODE_WORDS;      // of a head's keys, or values

// Two codes side by side, `pair` pairs after a word.
vec2 two_codes(Uints page, uint word, uint pair) {
    if (KIND == 0u) return unpackHalf2x16(page.at[word + pair]);
    uint both = page.at[word + pair / 2u] >> (16u * (pair & 1u));
    if (KIND == 1u) return vec2(signed_byte(both), signed_byte(both >> 8));
    return vec2(e4m3_value(both & 0xffu), e4m3_value(both >> 8 & 0xffu));
}
float scale_of(Uints page, uint head, uint position) {  // value heads come after key heads
    if (KIND == 0u) return 1.0;
    return unpackHalf2x16(page.at[layer_at + 2u * kv_heads * HEAD_WORDS + head * 32u + position / 2u])[position & 1u];
}

shared float query[QUERIES][DIM];
shared float scores[SLICES][QUERIES][64];  // partial; then in [0] the weights
shared float largest[QUERIES], total[QUERIES], shrink[QUERIES];
shared float columns[gl_WorkGroupSize.x * WIDTH];

uint step_int(uint array, uint row) {
    return uint(block.at[step_at(array, max_rows, row)]);
}

void main() {
    uint thread = gl_LocalInvocationID.x, threads = gl_WorkGroupSize.x;
    uint slot_at = STEP_SLOTS + slot * SLOT_INTS, splits = uint(block.at[slot_at + 3u]), split = gl_WorkGroupID.z;
    uint first_row = step_int(TILES + 2u * slot, gl_WorkGroupID.x);
    uint tile_rows = step_int(TILES + 2u * slot + 1u, gl_WorkGroupID.x);
    uint first_head = gl_WorkGroupID.y * TILE_HEADS, kv_head = first_head / (heads / kv_heads);
    uint first_position = step_int(POSITIONS, first_row);
    uint begin = window == 0u || first_position + 1u < window ? 0u : first_position + 1u - window;
    uint end = first_position + tile_rows;
    uint first_page = begin / 64u, pages = (end + 63u) / 64u - first_page, share = (pages + splits - 1u) / splits;
    uint page_begin = first_page + split * share, page_end = first_page + min(pages, (split + 1u) * share);
    uint table = step_int(FIRST_PAGES, first_row);
    Addresses addresses = Addresses(uvec2(block.at[STEP_PAGES], block.at[STEP_PAGES + 1u]));

    for (uint i = thread; i < QUERIES * DIM; i += threads) {
        uint n = i / DIM, row = first_row + min(n / TILE_HEADS, tile_rows - 1u);
        query[n][i % DIM] = q.at[row * q_stride + (first_head + n % TILE_HEADS) * DIM + i % DIM] * scale;
    }
    if (thread < QUERIES) {
        largest[thread] = LOWEST;
        total[thread] = 0.0;
    }
    uint unit = thread % UNITS, slice = thread / UNITS, slices = threads / UNITS;
    float sums[QUERIES][WIDTH];
    for (uint n = 0u; n < QUERIES; ++n)
        for (uint i = 0u; i < WIDTH; ++i) sums[n][i] = 0.0;
    barrier();

    for (uint p = page_begin; p < page_end; ++p) {
        uvec2 address = addresses.at[table + p];
        Uints page = Uints(address);
        uint low = max(begin, p * 64u) - p * 64u, high = min(end, p * 64u + 64u) - p * 64u;
        {  // two positions and a slice of the dimension
            uint pair = thread % 32u, s = thread / 32u;
            vec2 dot_product[QUERIES];
            for (uint n = 0u; n < QUERIES; ++n) dot_product[n] = vec2(0.0);
            uint at = layer_at + kv_head * HEAD_WORDS;
            [[unroll]] for (uint i = 0u; i < (DIM + SLICES - 1u) / SLICES; ++i) {
                uint d = s + i * SLICES;
                if (d >= DIM) break;
                vec2 key = two_codes(page, at + d * 16u * CODE_WORDS, pair);
                for (uint n = 0u; n < QUERIES; ++n) dot_product[n] += query[n][d] * key;
            }
            for (uint n = 0u; n < QUERIES; ++n) {
                scores[s][n][2u * pair] = dot_product[n].x;
                scores[s][n][2u * pair + 1u] = dot_product[n].y;
            }
        }
        barrier();
        for (uint n = gl_SubgroupID; n < QUERIES; n += gl_NumSubgroups) {
            uint position = first_position + n / TILE_HEADS;  // of the query; sees keys [from, to)
            uint from = window == 0u || position + 1u < window ? 0u : position + 1u - window, to = position + 1u;
            float page_largest = LOWEST;
            for (uint i = gl_SubgroupInvocationID; i < 64u; i += gl_SubgroupSize) {
                uint key = p * 64u + i;
                float score = LOWEST;
                if (key >= from && key < to) {
                    score = 0.0;
                    [[unroll]] for (uint s = 0u; s < SLICES; ++s) score += scores[s][n][i];
                    score *= scale_of(page, kv_head, i);
                }
                scores[0][n][i] = score;
                page_largest = max(page_largest, score);
            }
            float before = largest[n], risen = max(before, subgroupMax(page_largest)), sum = 0.0;
            for (uint i = gl_SubgroupInvocationID; i < 64u; i += gl_SubgroupSize) {
                float score = scores[0][n][i], weight = score == LOWEST ? 0.0 : exp(score - risen);
                if (KIND != 0u && weight > 0.0) scores[0][n][i] = weight * scale_of(page, kv_heads + kv_head, i);
                else scores[0][n][i] = weight;
                sum += weight;
            }
            sum = subgroupAdd(sum);
            if (subgroupElect()) {
                float factor = before == LOWEST ? 0.0 : exp(before - risen);
                largest[n] = risen;
                total[n] = total[n] * factor + sum;
                shrink[n] = factor;
            }
        }
        barrier();
        if (slice < slices) {
            for (uint n = 0u; n < QUERIES; ++n)
                for (uint i = 0u; i < WIDTH; ++i) sums[n][i] *= shrink[n];
            for (uint i = low + slice; i < high; i += slices) {
                uint at = layer_at + (kv_heads + kv_head) * HEAD_WORDS + i * (DIM * CODE_WORDS / 4u);
                float value[WIDTH];
                if (WIDTH == 8u && KIND == 0u) {
                    uvec4 words = Uint4s(address).at[at / 4u + unit];
                    for (uint j = 0u; j < WIDTH / 2u; ++j) {
                        vec2 two = unpackHalf2x16(words[j]);
                        value[2u * j] = two.x;
                        value[2u * j + 1u] = two.y;
                    }
                } else {
                    for (uint j = 0u; j < WIDTH / 2u; ++j) {
                        vec2 two = two_codes(page, at, unit * (WIDTH / 2u) + j);
                        value[2u * j] = two.x;
                        value[2u * j + 1u] = two.y;
                    }
                }
                for (uint n = 0u; n < QUERIES; ++n) {
                    float weight = scores[0][n][i];
                    for (uint j = 0u; j < WIDTH; ++j) sums[n][j] += weight * value[j];
                }
            }
        }
        barrier();
    }

    for (uint n = 0u; n < QUERIES; ++n) {
        for (uint j = 0u; j < WIDTH; ++j)
            if (slice < slices) columns[slice * DIM + unit * WIDTH + j] = sums[n][j];
        barrier();
        uint tile_row = n / TILE_HEADS, row = first_row + tile_row, head = first_head + n % TILE_HEADS;
        if (tile_row < tile_rows) {
            uint part = ((row * heads + head) * max_splits + split) * (DIM + 2u);
            for (uint d = thread; d < DIM; d += threads) {
                float sum = 0.0;
                for (uint s = 0u; s < slices; ++s) sum += columns[s * DIM + d];
                if (splits == 1u)
                    result.at[row * result_stride + head * DIM + d] = sum / total[n];
                else
                    parts.at[part + d] = sum;
            }
            if (splits > 1u && thread == 0u) {
                parts.at[part + DIM] = largest[n];
                parts.at[part + DIM + 1u] = total[n];
            }
        }
        barrier();
    }
}
