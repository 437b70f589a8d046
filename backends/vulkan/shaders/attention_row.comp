// Attention of a plan of one row over a cache of f16, with what comes before and after: ROPE turns the query and the key
// and writes key and value to the cache; where the positions are split among workgroups, the last one to finish puts the
// splits together. A workgroup takes the heads of one key head and a share of the pages, and keeps a running maximum.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint DIM = 64;  // a multiple of 8
layout(constant_id = 2) const uint HEADS = 1;  // of a key head
layout(constant_id = 3) const uint ROPE = 0;
layout(constant_id = 4) const uint ADJACENT = 0;
#include "memory.glsl"
#include "numbers.glsl"
#include "step.glsl"
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer SharedFloats { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Counters { uint at[]; };

layout(push_constant, std430) uniform Push {
    Ints block;
    Floats q, k, v, angles, result;
    SharedFloats parts;  // [head][split] of DIM sums, the largest score, the sum of weights
    uint slot, kv_heads, layer_at, max_splits;  // the layer's place in a page, in 4 bytes
    uint window, counters_at;                   // in the Step block: splits of a key head that have finished
    float scale;
};

const uint THREADS = gl_WorkGroupSize.x;
const uint SLICES = THREADS / 32u;                     // of the dimension, in q . k
const uint KEYS = (DIM + SLICES - 1u) / SLICES;        // words of a page's keys that an invocation reads
const uint UNITS = DIM / 8u;                           // of 16 bytes, in a value
const uint GROUPS = THREADS / UNITS;                   // of positions
const uint VALUES = (64u + GROUPS - 1u) / GROUPS;      // units of a page's values that an invocation reads
const float LOWEST = -3.0e38;

shared float query[HEADS][DIM];
shared uint new_key[DIM];  // f16
shared float scores[SLICES][HEADS][64];  // partial; then in [0] the weights
shared float largest[HEADS], total[HEADS], shrink[HEADS];
shared float columns[GROUPS * DIM];
shared bool last;

uvec4 values[VALUES];
uint keys[KEYS];
float sums[HEADS][8];

// Column d of a head of q or k, turned.
float turned(Floats from, uint head, uint d) {
    uint at = head * DIM;
    if (ROPE == 0u) return from.at[at + d];
    uint half_dim = DIM / 2u, i = ADJACENT != 0u ? d / 2u : d % half_dim;
    bool second = ADJACENT != 0u ? (d & 1u) != 0u : d >= half_dim;
    float a = from.at[at + (ADJACENT != 0u ? 2u * i : i)], b = from.at[at + (ADJACENT != 0u ? 2u * i + 1u : i + half_dim)];
    float cosine = angles.at[2u * i], sine = angles.at[2u * i + 1u];
    return second ? a * sine + b * cosine : a * cosine - b * sine;
}

void scores_of_page(uint kv_head, Uints page, bool has_new, uint at_new) {
    uint pair = gl_LocalInvocationID.x % 32u, slice = gl_LocalInvocationID.x / 32u;
    vec2 products[HEADS];
    [[unroll]] for (uint n = 0u; n < HEADS; ++n) products[n] = vec2(0.0);
    [[unroll]] for (uint i = 0u; i < KEYS; ++i) {
        uint d = slice + i * SLICES;
        if (d >= DIM) break;
        if (ROPE != 0u && has_new && pair == at_new / 2u) {
            keys[i] = (at_new & 1u) != 0u ? (keys[i] & 0xffffu) | new_key[d] << 16 : (keys[i] & 0xffff0000u) | new_key[d];
            page.at[layer_at + (kv_head * DIM + d) * 32u + pair] = keys[i];
        }
        vec2 key = unpackHalf2x16(keys[i]);
        [[unroll]] for (uint n = 0u; n < HEADS; ++n) products[n] += query[n][d] * key;
    }
    [[unroll]] for (uint n = 0u; n < HEADS; ++n) {
        scores[slice][n][2u * pair] = products[n].x;
        scores[slice][n][2u * pair + 1u] = products[n].y;
    }
}

// Of positions [low, high) of the page: a subgroup takes a head.
void weights_of_page(uint low, uint high) {
    for (uint n = gl_SubgroupID; n < HEADS; n += gl_NumSubgroups) {
        float page_largest = LOWEST;
        for (uint i = gl_SubgroupInvocationID; i < 64u; i += gl_SubgroupSize) {
            float score = LOWEST;
            if (i >= low && i < high) {
                score = 0.0;
                [[unroll]] for (uint s = 0u; s < SLICES; ++s) score += scores[s][n][i];
            }
            scores[0][n][i] = score;
            page_largest = max(page_largest, score);
        }
        float before = largest[n], risen = max(before, subgroupMax(page_largest)), sum = 0.0;
        for (uint i = gl_SubgroupInvocationID; i < 64u; i += gl_SubgroupSize) {
            float score = scores[0][n][i], weight = score == LOWEST ? 0.0 : exp(score - risen);
            scores[0][n][i] = weight;
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
}

void combine(uint kv_head, uint splits) {
    for (uint i = gl_LocalInvocationID.x; i < HEADS * DIM; i += THREADS) {
        uint head = kv_head * HEADS + i / DIM, first = head * max_splits * (DIM + 2u);
        float most = LOWEST, sum = 0.0, weights = 0.0;
        for (uint s = 0u; s < splits; ++s) most = max(most, parts.at[first + s * (DIM + 2u) + DIM]);
        for (uint s = 0u; s < splits; ++s) {
            uint part = first + s * (DIM + 2u);
            float weight = parts.at[part + DIM + 1u];
            if (weight <= 0.0) continue;
            float factor = exp(parts.at[part + DIM] - most);
            weights += weight * factor;
            sum += parts.at[part + i % DIM] * factor;
        }
        result.at[head * DIM + i % DIM] = sum / weights;
    }
}

void main() {
    uint thread = gl_LocalInvocationID.x, kv_head = gl_WorkGroupID.y, split = gl_WorkGroupID.z;
    uint splits = uint(block.at[STEP_SLOTS + slot * SLOT_INTS + 3u]);
    uint position = uint(block.at[step_at(POSITIONS, 1u, 0u)]), table = uint(block.at[step_at(FIRST_PAGES, 1u, 0u)]);
    Addresses addresses = Addresses(uvec2(block.at[STEP_PAGES], block.at[STEP_PAGES + 1u]));
    uint begin = window == 0u || position + 1u < window ? 0u : position + 1u - window, end = position + 1u;
    uint first_page = begin / 64u, pages = (end + 63u) / 64u - first_page, share = (pages + splits - 1u) / splits;
    uint page_begin = first_page + split * share, page_end = first_page + min(pages, (split + 1u) * share);
    uint unit = thread % UNITS, group = thread / UNITS;

    for (uint i = thread; i < HEADS * DIM; i += THREADS)
        query[i / DIM][i % DIM] = turned(q, kv_head * HEADS + i / DIM, i % DIM) * scale;
    if (ROPE != 0u)
        for (uint d = thread; d < DIM; d += THREADS) new_key[d] = f32_to_f16(turned(k, kv_head, d));
    if (thread < HEADS) {
        largest[thread] = LOWEST;
        total[thread] = 0.0;
    }
    [[unroll]] for (uint n = 0u; n < HEADS; ++n)
        [[unroll]] for (uint j = 0u; j < 8u; ++j) sums[n][j] = 0.0;

    for (uint p = page_begin; p < page_end; ++p) {
        uvec2 address = addresses.at[table + p];
        Uints page = Uints(address);
        uint low = max(begin, p * 64u) - p * 64u, high = min(end, p * 64u + 64u) - p * 64u;
        bool has_new = p == position / 64u;
        [[unroll]] for (uint i = 0u; i < KEYS; ++i) {
            uint d = thread / 32u + i * SLICES;
            if (d < DIM) keys[i] = page.at[layer_at + (kv_head * DIM + d) * 32u + thread % 32u];
        }
        uint values_at = layer_at / 4u + ((kv_heads + kv_head) * 64u) * UNITS;
        [[unroll]] for (uint i = 0u; i < VALUES; ++i) {
            uint at = group + i * GROUPS;
            values[i] = uvec4(0u);
            if (group >= GROUPS || at < low || at >= high) continue;
            if (ROPE != 0u && has_new && at == position % 64u) {
                [[unroll]] for (uint j = 0u; j < 4u; ++j) {
                    uint from = kv_head * DIM + unit * 8u + 2u * j;
                    values[i][j] = f32_to_f16(v.at[from]) | f32_to_f16(v.at[from + 1u]) << 16;
                }
                Uint4s(address).at[values_at + at * UNITS + unit] = values[i];
            } else {
                values[i] = Uint4s(address).at[values_at + at * UNITS + unit];
            }
        }
        barrier();
        scores_of_page(kv_head, page, has_new, position % 64u);
        barrier();
        weights_of_page(low, high);
        barrier();
        [[unroll]] for (uint n = 0u; n < HEADS; ++n) {
            [[unroll]] for (uint j = 0u; j < 8u; ++j) sums[n][j] *= shrink[n];
            [[unroll]] for (uint i = 0u; i < VALUES; ++i) {
                uint at = group + i * GROUPS;
                if (at >= 64u) break;
                float weight = scores[0][n][at];
                [[unroll]] for (uint j = 0u; j < 4u; ++j) {
                    vec2 two = unpackHalf2x16(values[i][j]);
                    sums[n][2u * j] += weight * two.x;
                    sums[n][2u * j + 1u] += weight * two.y;
                }
            }
        }
    }
    barrier();

    [[unroll]] for (uint n = 0u; n < HEADS; ++n) {
        if (group < GROUPS)
            [[unroll]] for (uint j = 0u; j < 8u; ++j) columns[group * DIM + unit * 8u + j] = sums[n][j];
        barrier();
        uint head = kv_head * HEADS + n, part = (head * max_splits + split) * (DIM + 2u);
        for (uint d = thread; d < DIM; d += THREADS) {
            float sum = 0.0;
            for (uint g = 0u; g < GROUPS; ++g) sum += columns[g * DIM + d];
            if (splits == 1u)
                result.at[head * DIM + d] = sum / total[n];
            else
                parts.at[part + d] = sum;
        }
        if (splits > 1u && thread == 0u) {
            parts.at[part + DIM] = largest[n];
            parts.at[part + DIM + 1u] = total[n];
        }
        barrier();
    }
    if (splits == 1u) return;

    memoryBarrierBuffer();
    barrier();
    Counters finished = Counters(uvec2(block));
    if (thread == 0u) last = atomicAdd(finished.at[counters_at + kv_head], 1u) == splits - 1u;
    barrier();
    if (!last) return;
    memoryBarrierBuffer();
    if (thread == 0u) finished.at[counters_at + kv_head] = 0u;  // for the next layer
    combine(kv_head, splits);
}
