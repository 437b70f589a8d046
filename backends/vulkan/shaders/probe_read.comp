// Reads a buffer once, 16 bytes a lane at a time, and leaves something that depends on all of it.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x_id = 0) in;
#include "memory.glsl"

layout(push_constant, std430) uniform Push {
    Uint4s from;
    Uints result;
    uint count;  // of 16 bytes
};

void main() {
    uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uvec4 mixed = uvec4(0u);
    for (uint i = gl_GlobalInvocationID.x; i < count; i += 4u * step)
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            if (i + j * step < count) mixed ^= from.at[i + j * step];
    if ((mixed.x ^ mixed.y ^ mixed.z ^ mixed.w) == 0x5a5a5a5au) result.at[0] = gl_GlobalInvocationID.x;
}
