// The splits of one row and head put together.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"
#include "step.glsl"

layout(push_constant, std430) uniform Push {
    Ints block;
    Floats result, parts;
    uint slot, heads, dim, result_stride, max_splits;
};

void main() {
    uint row = gl_WorkGroupID.x, head = gl_WorkGroupID.y;
    uint splits = uint(block.at[STEP_SLOTS + slot * SLOT_INTS + 3u]);
    uint first = (row * heads + head) * max_splits * (dim + 2u);
    float largest = -3.0e38, total = 0.0;
    for (uint s = 0u; s < splits; ++s) largest = max(largest, parts.at[first + s * (dim + 2u) + dim]);
    for (uint s = 0u; s < splits; ++s) {
        uint part = first + s * (dim + 2u);
        if (parts.at[part + dim + 1u] > 0.0)
            total += parts.at[part + dim + 1u] * exp(parts.at[part + dim] - largest);
    }
    for (uint d = gl_LocalInvocationID.x; d < dim; d += gl_WorkGroupSize.x) {
        float sum = 0.0;
        for (uint s = 0u; s < splits; ++s) {
            uint part = first + s * (dim + 2u);
            if (parts.at[part + dim + 1u] > 0.0) sum += parts.at[part + d] * exp(parts.at[part + dim] - largest);
        }
        result.at[row * result_stride + head * dim + d] = sum / total;
    }
}
