#include "backends/vulkan/shaders.h"

namespace quant {
namespace vulkan {
namespace {
// Written by cmake/vulkan.cmake: `const uint32_t NAME[] = {...};`
#include "vulkan_shaders/arrange.inc"
#include "vulkan_shaders/attention.inc"
#include "vulkan_shaders/attention_combine.inc"
#include "vulkan_shaders/attention_cooperative.inc"
#include "vulkan_shaders/attention_row.inc"
#include "vulkan_shaders/cache_quantize.inc"
#include "vulkan_shaders/embed.inc"
#include "vulkan_shaders/expand.inc"
#include "vulkan_shaders/matmul.inc"
#include "vulkan_shaders/matmul_cooperative.inc"
#include "vulkan_shaders/matmul_cooperative_integer.inc"
#include "vulkan_shaders/matmul_integer.inc"
#include "vulkan_shaders/matmul_integer_dot.inc"
#include "vulkan_shaders/matvec.inc"
#include "vulkan_shaders/matvec_integer.inc"
#include "vulkan_shaders/matvec_integer_dot.inc"
#include "vulkan_shaders/matvec_row.inc"
#include "vulkan_shaders/matvec_row_dot.inc"
#include "vulkan_shaders/probe_read.inc"
#include "vulkan_shaders/rope.inc"
#include "vulkan_shaders/rows.inc"
#include "vulkan_shaders/rowwise.inc"
}  // namespace

SpirV spirv(Shader shader) {
    switch (shader) {
#define QUANT_VULKAN_SHADER(name) \
    case Shader::name:            \
        return {#name, name, sizeof name}
        QUANT_VULKAN_SHADER(embed);
        QUANT_VULKAN_SHADER(rowwise);
        QUANT_VULKAN_SHADER(rows);
        QUANT_VULKAN_SHADER(rope);
        QUANT_VULKAN_SHADER(attention);
        QUANT_VULKAN_SHADER(attention_combine);
        QUANT_VULKAN_SHADER(attention_cooperative);
        QUANT_VULKAN_SHADER(attention_row);
        QUANT_VULKAN_SHADER(cache_quantize);
        QUANT_VULKAN_SHADER(matvec);
        QUANT_VULKAN_SHADER(matvec_row);
        QUANT_VULKAN_SHADER(matvec_row_dot);
        QUANT_VULKAN_SHADER(matvec_integer);
        QUANT_VULKAN_SHADER(matvec_integer_dot);
        QUANT_VULKAN_SHADER(matmul);
        QUANT_VULKAN_SHADER(matmul_integer);
        QUANT_VULKAN_SHADER(matmul_integer_dot);
        QUANT_VULKAN_SHADER(arrange);
        QUANT_VULKAN_SHADER(expand);
        QUANT_VULKAN_SHADER(matmul_cooperative);
        QUANT_VULKAN_SHADER(matmul_cooperative_integer);
        QUANT_VULKAN_SHADER(probe_read);
#undef QUANT_VULKAN_SHADER
    }
    return {"?", nullptr, 0};
}

}  // namespace vulkan
}  // namespace quant
