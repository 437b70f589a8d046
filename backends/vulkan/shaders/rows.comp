// One row at a time, without sums: add, select_rows, rope_angles.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OP = 0;  // 0 = add, 1 = select_rows, 2 = rope_angles
#include "memory.glsl"
#include "numbers.glsl"

layout(push_constant, std430) uniform Push {
    Ints row_count;
    Ints index;  // select_rows: the step's output rows; rope_angles: its positions
    Floats in0, in1;
    Floats result;
    uint cols, in0_stride, in1_stride, result_stride;
};

void main() {
    uint row = gl_WorkGroupID.y, c = gl_GlobalInvocationID.x;
    if (row >= uint(row_count.at[0]) || c >= cols) return;
    uint to = row * result_stride + c;
    if (OP == 0u) {
        result.at[to] = in0.at[row * in0_stride + c] + in1.at[row * in1_stride + c];
    } else if (OP == 1u) {
        result.at[to] = in0.at[uint(index.at[row]) * in0_stride + c];
    } else {
        precise float angle = float(index.at[row]) * in0.at[c / 2u];
        vec2 turned = turn(abs(angle));
        result.at[to] = c % 2u == 0u ? turned.x : angle < 0.0 ? -turned.y : turned.y;
    }
}
