// Values that blocks of the persistent kernel write for each other. They are absent when the kernel starts and written
// once: that a value has come shows in itself, so that no block waits for more than what it reads.
#pragma once
#include <cstdint>

#include "backends/cuda/persistent.h"

namespace quant {
namespace cuda {
namespace persistent {

constexpr uint32_t absent = absent_byte * 0x01010101u;  // a NaN

__device__ inline bool has_come(float x) {
    return __float_as_uint(x) != absent;
}
__device__ inline void give(float* to, float x) {
    const uint32_t bits = has_come(x) ? __float_as_uint(x) : 0x7fffffffu;  // another NaN
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(bits) : "memory");
}
// What lies there now.
__device__ inline float look(const float* from) {
    float x;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(x) : "l"(from) : "memory");
    return x;
}
__device__ inline void look(const float* from, float (&v)[4]) {
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                 : "l"(from)
                 : "memory");
}
// Zeros past the end.
__device__ inline void look_within(const float* from, int first, int count, float (&v)[4]) {
    v[0] = v[1] = v[2] = v[3] = 0;
    if (first < count) look(from + first, v);
}
__device__ inline bool has_come(const float (&v)[4]) {
    return has_come(v[0]) && has_come(v[1]) && has_come(v[2]) && has_come(v[3]);
}

}  // namespace persistent
}  // namespace cuda
}  // namespace quant
