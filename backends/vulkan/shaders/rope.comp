// rope, cache_write and both: turned queries, and keys and values to the cache in f16. A cache word holds two
// positions of a key, so one invocation writes both when both are in the step, and else keeps the other half.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint TURN_KEYS = 0;
layout(constant_id = 2) const uint ADJACENT = 0;
#include "memory.glsl"
#include "numbers.glsl"
#include "step.glsl"

layout(push_constant, std430) uniform Push {
    Ints block;  // the Step block
    Floats q, k, v, angles, result;
    uint max_rows, heads, kv_heads, dim;  // heads 0: no queries; kv_heads 0: no cache
    uint q_stride, k_stride, v_stride, angle_stride, result_stride;
    uint layer_at, values_at;  // in a page, in 4 bytes: the layer, and its values after its keys
};

uint step_int(uint array, uint row) {
    return uint(block.at[step_at(array, max_rows, row)]);
}

uvec2 pair_of(uint i) {
    return ADJACENT != 0u ? uvec2(2u * i, 2u * i + 1u) : uvec2(i, i + dim / 2u);
}

vec2 turned(Floats from, uint at, uint row, uint i) {
    uvec2 pair = pair_of(i);
    float a = from.at[at + pair.x], b = from.at[at + pair.y];
    float cosine = angles.at[row * angle_stride + 2u * i], sine = angles.at[row * angle_stride + 2u * i + 1u];
    return vec2(a * cosine - b * sine, a * sine + b * cosine);
}

uvec2 key_halves(uint row, uint head, uint i) {
    uint at = row * k_stride + head * dim;
    vec2 x;
    if (TURN_KEYS != 0u)
        x = turned(k, at, row, i);
    else
        x = vec2(k.at[at + pair_of(i).x], k.at[at + pair_of(i).y]);
    return uvec2(f32_to_f16(x.x), f32_to_f16(x.y));
}

void main() {
    uint row = gl_WorkGroupID.y, item = gl_GlobalInvocationID.x, half_dim = dim / 2u;
    uint rows = uint(block.at[STEP_ROWS]);
    if (row >= rows) return;
    if (item < heads * half_dim) {
        uint head = item / half_dim, i = item % half_dim;
        uvec2 pair = pair_of(i);
        vec2 y = turned(q, row * q_stride + head * dim, row, i);
        result.at[row * result_stride + head * dim + pair.x] = y.x;
        result.at[row * result_stride + head * dim + pair.y] = y.y;
        return;
    }
    item -= heads * half_dim;
    if (item >= 2u * kv_heads * half_dim) return;
    uint position = step_int(POSITIONS, row), sequence = step_int(SEQUENCES, row), at = position % 64u;
    Addresses pages = Addresses(uvec2(block.at[STEP_PAGES], block.at[STEP_PAGES + 1u]));
    Uints page = Uints(pages.at[step_int(FIRST_PAGES, row) + position / 64u]);
    if (item >= kv_heads * half_dim) {  // two columns of a value
        item -= kv_heads * half_dim;
        uint head = item / half_dim, i = item % half_dim, from = row * v_stride + head * dim + 2u * i;
        page.at[layer_at + values_at + (head * 64u + at) * half_dim + i] =
            f32_to_f16(v.at[from]) | f32_to_f16(v.at[from + 1u]) << 16;
        return;
    }
    bool odd = (at & 1u) != 0u;
    if (odd && row > 0u && step_int(SEQUENCES, row - 1u) == sequence) return;  // the row before writes this one, too
    bool both = !odd && row + 1u < rows && step_int(SEQUENCES, row + 1u) == sequence;
    uint head = item / half_dim, i = item % half_dim;
    uvec2 pair = pair_of(i), first = key_halves(row, head, i), second = uvec2(0u);
    if (both) second = key_halves(row + 1u, head, i);
    for (uint n = 0u; n < 2u; ++n) {
        uint word = layer_at + (head * dim + pair[n]) * 32u + at / 2u;
        if (both)
            page.at[word] = first[n] | second[n] << 16;
        else if (odd)
            page.at[word] = (page.at[word] & 0xffffu) | first[n] << 16;
        else
            page.at[word] = (page.at[word] & 0xffff0000u) | first[n];
    }
}
