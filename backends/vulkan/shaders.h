// The compiled shaders, embedded at build time from backends/vulkan/shaders.
#pragma once
#include <cstddef>
#include <cstdint>

namespace quant {
namespace vulkan {

enum class Shader : uint8_t {
    embed,
    rowwise,
    rows,
    rope,
    attention,
    attention_combine,
    attention_cooperative,
    attention_row,
    cache_quantize,
    matvec,
    matvec_row,
    matvec_row_dot,
    matvec_integer,
    matvec_integer_dot,
    matmul,
    matmul_integer,
    matmul_integer_dot,
    arrange,
    expand,
    matmul_cooperative,
    matmul_cooperative_integer,
    probe_read,
};

struct SpirV {
    const char* name;
    const uint32_t* words;
    size_t bytes;
};
SpirV spirv(Shader shader);

}  // namespace vulkan
}  // namespace quant
